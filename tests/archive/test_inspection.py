from __future__ import annotations

import numpy as np
import pytest
import zarr

import moec_zarr
from moec_zarr import CorruptStreamError, MoECCodec, MoECError
from moec_zarr.archive.inspection import compressed_arrays, expert_map, inspect_streams
from tests.conformance.freeze_streams import paths
from tests.support.fields import rough, steps
from tests.support.fits import fast

SHAPE = (6, 16, 24)
DATA = steps(SHAPE)
CODEC = MoECCodec(ratio=2, effort="fast")
NOISE = np.random.default_rng(0).normal(size=(5, 20, 24)).astype("f4")

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
    assert dict(inspect_streams(alone["array"])).keys() == found.keys()


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


def test_a_shard_of_more_chunks_than_it_has_bytes_is_refused_at_once(tmp_path):
    array = moec_zarr.open(
        tmp_path, mode="w", shape=(4,), dtype="u1", chunks=(1,), shards=(2**40,), compressor=CODEC
    )
    (tmp_path / "c").mkdir()
    (tmp_path / "c/0").write_bytes(bytes(100))
    with pytest.raises(CorruptStreamError, match="too short for its index"):
        dict(inspect_streams(array))


def test_a_stream_of_another_shape_is_refused(tmp_path):
    """The store says which shape its chunks have; a stream is not asked."""
    array = make(tmp_path / "a.zarr", **LAYOUTS["v2"])
    (tmp_path / "a.zarr/a/0.0.0").write_bytes(CODEC.encode(np.zeros((2, 16, 13), "f4")))
    with pytest.raises(CorruptStreamError, match="shape"):
        dict(inspect_streams(array))


def test_what_holds_no_stream_is_refused(tmp_path):
    with pytest.raises(MoECError, match="no zarr store at"):
        compressed_arrays(tmp_path / "absent")
    zarr.create_array(tmp_path / "a.zarr", name="x", shape=(3,), dtype="f4")
    with pytest.raises(MoECError, match="no array that was compressed"):
        compressed_arrays(tmp_path / "a.zarr")


@pytest.mark.torch
def test_kinds_and_sections_of_a_stream():
    """Each way of storing values has its name, and its section; without it there is none."""
    field = rough((4, 12, 16))
    streams = {
        "transform": (field, MoECCodec(**fast(field, 250))),
        "model": (field, MoECCodec(**fast(field, 250, experts=2))),
        "lossless": (DATA, CODEC),
        "rounded": (NOISE.round(1), MoECCodec(max_error=0.01, effort="fast")),
        "constant": (np.full(SHAPE, 3, "i2"), CODEC),
    }
    sections = {"lossless": {"integers"}, "rounded": {"integers"}, "constant": set()}
    for kind, (array, codec) in streams.items():
        info = moec_zarr.inspect(codec.encode(array))
        assert info.kind == kind
        assert info.sections.keys() - {"header"} == sections.get(kind, {kind})
        assert sum(info.sections.values()) == info.stream_bytes
        assert (info.shape, info.dtype, info.nbytes) == (array.shape, array.dtype, array.nbytes)
        assert info.ratio == array.nbytes / info.stream_bytes
        assert (info.psnr == np.inf) == (kind in ("lossless", "constant"))
        assert (info.coefficients > 0) == (kind == "transform")
        assert (info.experts, len(info.load)) == ((2, 2) if kind == "model" else (0, 0))
        assert (info.weights > 0) == (kind == "model")


def test_what_a_network_adds_to_a_transform():
    """The frozen stream with both has the section of either."""
    info = moec_zarr.inspect(paths("transform_and_experts")[0].read_bytes())
    assert info.kind == "both"
    assert {"model", "transform"} <= info.sections.keys()
    assert info.coefficients > 0
    assert sum(info.load) == pytest.approx(1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_some_of_many_objects(tmp_path, layout):
    array = make(tmp_path / "a.zarr", **LAYOUTS[layout])
    all_of_them, some = dict(inspect_streams(array)), dict(inspect_streams(array, 2))
    assert some.items() <= all_of_them.items()
    assert (0, 0, 0) in some  # they are spread from the first to the last
    assert max(some) == max(all_of_them)
    assert dict(inspect_streams(array, 100)) == all_of_them


@pytest.mark.torch
def test_the_map_of_experts_has_the_shares_of_their_load(tmp_path):
    codec = MoECCodec(ratio=3, model="network", experts=3, effort="fast")
    array = moec_zarr.open(
        tmp_path / "a.zarr", mode="w", shape=(16, 24), chunks=(16, 24), dtype="f4", compressor=codec
    )
    array[:] = rough((16, 24))
    (info,) = dict(inspect_streams(array)).values()
    found = expert_map(array, (0, 0))
    assert found.shape == (16, 24)
    shares = [np.count_nonzero(found == expert) / found.size for expert in range(3)]
    assert info.load == pytest.approx(shares)
    assert expert_map(make(tmp_path / "b.zarr"), (0, 0, 0)) is None  # it has no network
