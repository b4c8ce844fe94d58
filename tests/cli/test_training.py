"""What the command line says of dictionaries."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from moec_zarr import MoECCodec, Trial, train_dictionary
from moec_zarr.quality import Quality
from tests.adapters.test_training import field

xr = pytest.importorskip("xarray")
pytest.importorskip("typer")

from moec_zarr.cli.trial import announce, trial_result, trial_table  # noqa: E402

FAST = ("--ratio", "30", "--effort", "fast", "--chunks", "time=8")


def test_a_dry_run_says_what_is_trained_and_inspect_what_there_is(run, tmp_path, scheduler):
    source, dst = tmp_path / "s.zarr", tmp_path / "d.zarr"
    xr.Dataset({"a": (("time", "y", "x"), field(6))}).to_zarr(source, consolidated=False)
    command = ("convert", source, dst, *FAST)
    assert "dictionaries" not in run(*command, "--dry-run")[1]
    assert "dictionaries" not in run(*command, "--dry-run", "--no-train")[1]
    text = run(*command, "--dry-run", "--train")[1]
    said = r"dictionaries are trained first, of a on 4 chunks: about \d+s on one core, \d+% of the time"
    assert re.search(said, text)
    planned = json.loads(run(*command, "--dry-run", "--train", "--json")[1])
    figures = planned["estimates"]["a"]
    assert (figures["training_chunks"], figures["dictionary_bytes"]) == (4, 0)
    assert planned["core_seconds_left"] == figures["core_seconds"] + figures["training_core_seconds"]
    assert figures["training_core_seconds"] > 0
    code, _, err = run(*command, "--train", "--scheduler", scheduler)
    assert code == 0
    assert "training dictionaries, 0 of 1 done" in err
    (inspected,) = json.loads(run("inspect", dst, "--json")[1]).values()
    size = inspected["dictionary_bytes"]
    assert size > 4
    assert f"streams of a are read with a dictionary of {size} B in its metadata" in run("inspect", dst)[1]
    again = run(*command, "--dry-run")[1]
    assert f"dictionary={size} B" in again
    assert "6 of the tasks are done" in again
    assert json.loads(run(*command, "--dry-run", "--json")[1])["estimates"]["a"]["training_chunks"] == 0
    code, _, err = run(*command, "--no-train", "--scheduler", scheduler, "-q")
    assert code == 2
    assert len(err) < 400


def test_a_trial_has_a_line_for_a_dictionary(capsys):
    codec = train_dictionary(MoECCodec(ratio=20, effort="fast"), np.split(field(3), 3))
    tried = Trial(
        variable="a", codec=codec, chunks=2, seconds=1, bytes_in=100, bytes_out=5, quality=Quality(), whole=8,
        training=7,
    )  # fmt: skip
    target = f"ratio 20, dictionary of {codec.shared.nbytes} B"
    assert announce([tried], quiet=False) == [tried]
    assert f"a {target}: fitted in 1s, trained in 7s" in capsys.readouterr().err
    assert list(trial_table([tried]).columns[1].cells) == [target]
    (result,) = trial_result([tried])
    assert (result["dictionary_bytes"], result["training_seconds"]) == (codec.shared.nbytes, 7)
