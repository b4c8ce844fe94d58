"""Run-time settings: only keys that exist can be set."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import moec_zarr
from moec_zarr import MoECError, config

IMPORT = "import moec_zarr; moec_zarr.config.refresh(); print(moec_zarr.config.get('device'))"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: config.set(devise="cuda"),
        lambda: config.set({"devise": "cuda"}),
        lambda: config.set({"threads": 2}, devise="cuda"),
    ],
)
def test_an_unknown_key_is_refused_and_nothing_is_set(wrong):
    before = dict(config.config)
    with pytest.raises(MoECError, match=r"no key 'devise'; did you mean 'device'\?.*'device', 'group', 'dec"):
        wrong()
    assert config.config == before


@pytest.mark.parametrize("key", ["device__x", "device.x", "colour", 3])
def test_other_keys_that_there_are_not(key):
    with pytest.raises(MoECError, match=f"no key {key!r}"):
        config.set({key: 1})


def test_known_keys_are_set_for_good_or_for_a_while():
    before = config.get("threads")
    with config.set({"threads": before + 1}, cache=0) as inside:
        assert inside is config.config
        assert config.get("threads") == before + 1
        with config.set(threads=7):
            assert config.get("threads") == 7
        assert (config.get("threads"), config.get("cache")) == (before + 1, 0)
    assert config.get("threads") == before
    changed = config.set(threads=before + 2)
    assert config.get("threads") == before + 2
    with changed:
        pass
    assert config.get("threads") == before


def test_the_settings_can_be_pickled():
    cloudpickle = pytest.importorskip("cloudpickle")  # as dask does; pickle alone refuses os.environ
    with config.set(threads=5):
        again = cloudpickle.loads(cloudpickle.dumps(config))
    assert again.get("threads") == 5
    with pytest.raises(MoECError, match="'devise'"):
        again.set(devise="cuda")
    assert moec_zarr.config.get("threads") != 5


def imported(**environment: str) -> tuple[str, list[str]]:
    """The device and the lines on stderr of a process that imports the package; a warning would end it."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip(), done.stderr.splitlines()


def test_an_unknown_key_of_the_environment_is_said_once():
    device, (line,) = imported(MOEC_ZARR_DEVISE="cuda")
    assert device == "cpu"
    for part in ("'devise'", "'device'", "MOEC_ZARR_DEVISE"):
        assert part in line
    assert imported(MOEC_ZARR_DEVICE="cuda") == ("cuda", [])


def test_an_unknown_key_of_a_file_is_said_once(tmp_path):
    (tmp_path / "moec_zarr.yaml").write_text("devise: cuda\nthreads: 2\n")
    device, (line,) = imported(MOEC_ZARR_CONFIG=str(tmp_path))
    assert device == "cpu"
    assert "'devise'" in line
    (tmp_path / "moec_zarr.yaml").write_text("device: cuda\n")
    assert imported(MOEC_ZARR_CONFIG=str(tmp_path)) == ("cuda", [])


def test_a_key_within_a_key_does_not_stop_an_import():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT],
        check=False, capture_output=True, text=True, env=os.environ | {"MOEC_ZARR_CACHE__X": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "cpu\n"), done.stderr
    assert "are not read" in done.stderr
