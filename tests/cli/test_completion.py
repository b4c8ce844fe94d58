"""Completion on a shell, as the script that the shell runs asks for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("typer")


def answer(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "moec_zarr.cli", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def completed(line: str) -> list[str]:
    """What the last word of a line may be."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    return answer(_MOEC_ZARR_COMPLETE="complete_bash", **words).split()


def test_the_script_of_a_shell():
    script = answer(_MOEC_ZARR_COMPLETE="source_bash")
    assert "complete -o default -F _moec_zarr_completion moec-zarr" in script
    assert "_MOEC_ZARR_COMPLETE=complete_bash" in script
    text = answer("--help")
    assert "--install-completion" in text
    assert "--show-completion" in text


def test_commands_and_fixed_values():
    assert sorted(completed("moec-zarr ")) == [
        "compare",
        "convert",
        "demo",
        "inspect",
        "migrate",
        "report",
        "verify",
    ]
    for option, values in {
        "--effort ": ["fast", "balanced", "best"],
        "--effort b": ["balanced", "best"],
        "--model ": ["auto", "transform", "network"],
        "--device ": ["cpu", "cuda"],
        "--zarr-format ": ["2", "3"],
        "--incomplete ": ["hold", "refit"],
    }.items():
        assert completed(f"moec-zarr convert a b {option}") == values
    assert "--storage-option" in completed("moec-zarr report --sto")
    assert completed("moec-zarr migrate a --zarr-format ") == ["2", "3"]
