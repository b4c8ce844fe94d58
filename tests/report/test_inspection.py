from __future__ import annotations

import numpy as np
import pytest
import zarr

import moec_zarr
from moec_zarr import CorruptStreamError, MoECCodec, MoECError
from moec_zarr.report.inspection import compressed_arrays, inspect_streams
from tests.support.fields import smooth

SHAPE = (6, 16, 24)
DATA = np.round(smooth(SHAPE) / 20).astype("f4")
CODEC = MoECCodec(ratio=2, effort="fast")

LAYOUTS = {
    "v2": {"zarr_format": 2},
    "v3": {"zarr_format": 3},
    "shards": {"zarr_format": 3, "shards": (4, 32, 24)},
}


def make(path, **options):
    options |= {"shape": SHAPE, "dtype": "f4", "chunks": (2, 16, 12), "fill_value": -1}
    array = moec_zarr.open(path, mode="w", path="a", compressor=CODEC, **options)
    array[:] = DATA
    array[2:4, :, 12:] = -1
    return array


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_stored_chunk_is_found(tmp_path, layout):
    make(tmp_path / "a.zarr", **LAYOUTS[layout])
    zarr.open_group(tmp_path / "a.zarr", mode="a").create_array("plain", shape=(3,), dtype="f4")
    ((name, array),) = compressed_arrays(tmp_path / "a.zarr").items()
    assert name == "a"
    found = dict(inspect_streams(array))
    # A chunk of fill alone is not stored.
    assert set(found) == set(np.ndindex(3, 1, 2)) - {(1, 0, 1)}
    for info in found.values():
        assert info.shape == (2, 16, 12)
        assert info.stream_bytes == sum(info.sections.values())
    alone = compressed_arrays(tmp_path / "a.zarr" / "a")
    assert dict(inspect_streams(alone[""])).keys() == found.keys()


def test_damage_is_reported(tmp_path):
    array = make(tmp_path / "a.zarr", **LAYOUTS["shards"])
    for path in (tmp_path / "a.zarr/a/c").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[-40:])
    with pytest.raises(CorruptStreamError, match="too short for its index"):
        dict(inspect_streams(array))
    array = make(tmp_path / "b.zarr", **LAYOUTS["v3"])
    (tmp_path / "b.zarr/a/c/0/0/0").write_bytes(b"nonsense")
    with pytest.raises(CorruptStreamError):
        dict(inspect_streams(array))


def test_what_holds_no_stream_is_refused(tmp_path):
    with pytest.raises(MoECError, match="no zarr store at"):
        compressed_arrays(tmp_path / "absent")
    zarr.create_array(tmp_path / "a.zarr", name="x", shape=(3,), dtype="f4")
    with pytest.raises(MoECError, match="no array that was compressed"):
        compressed_arrays(tmp_path / "a.zarr")
