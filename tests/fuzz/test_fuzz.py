"""Mutated streams in a process with limits: what a stranger's store may do to a reader."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.fuzz.run import CPU_SECONDS

COUNT = 20_000


def test_mutated_streams_are_decoded_or_refused_within_limits(tmp_path):
    """In another process, for its memory is limited; `tests.fuzz.run` decodes as many as it is asked for."""
    command = [sys.executable, "-m", "tests.fuzz.run", "--count", str(COUNT), "--failures", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    traces = [path.read_text() for path in sorted(tmp_path.glob("*.txt"))[:3]]
    assert not traces, "\n".join(traces)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary["streams"] == COUNT == summary["arrays"] + summary["refused"]
    # Mutations that hardly ever, or nearly always, lead to a stream test nothing.
    assert COUNT // 20 < summary["arrays"] < COUNT // 2
    assert summary["worst_cpu_seconds"] < CPU_SECONDS
