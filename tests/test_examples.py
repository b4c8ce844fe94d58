from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(example, tmp_path):
    pytest.importorskip("distributed")
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, example, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "temperature" in done.stdout or "compression_ratio" in done.stdout


def test_there_are_examples():
    assert len(EXAMPLES) >= 3
