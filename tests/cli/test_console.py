"""Messages that were written for Python, on the command line."""

from __future__ import annotations

from importlib.metadata import version

import pytest

pytest.importorskip("typer")

from moec_zarr import MoECCodec, MoECError
from moec_zarr.cli.console import on_command_line


@pytest.mark.parametrize(
    ("python", "spoken"),
    [
        ("use --overwrite (resume=False) to start anew", "use --overwrite to start anew"),
        ("resume=False replaces it", "--overwrite replaces it"),
        ("got ratio=None and psnr=None", "got no --ratio and no --psnr"),
        ("give ratio= (times smaller) or psnr= (dB)", "give --ratio (times smaller) or --psnr (dB)"),
        ("leave shards= out, or ask for zarr_format=3", "leave --shards out, or ask for --zarr-format 3"),
        ("name them with variables=, or client=", "name them with --var, or --scheduler"),
        ("max_error=0.5 and model='transform'.", "--max-error 0.5 and --model 'transform'."),
        ("got MoECCodec(ratio=2, effort='fast')", "got MoECCodec(ratio=2, effort='fast')"),
        ("the bratio=3 of a.psnr=4", "the bratio=3 of a.psnr=4"),
        ("nothing to say", "nothing to say"),
    ],
)
def test_words(python, spoken):
    assert on_command_line(python) == spoken


def test_an_error_of_the_settings_names_options(run):
    with pytest.raises(MoECError, match="ratio=None"):
        MoECCodec()
    code, _, err = run("convert", "absent.nc", "d.zarr")
    assert code == 2
    assert "--ratio" in err
    assert "=" not in err
    assert "None" not in err


def test_version(run):
    assert run("--version") == (0, f"moec-zarr {version('moec_zarr')}\n", "")
