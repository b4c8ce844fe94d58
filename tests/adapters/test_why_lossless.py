"""One rule for what stays lossless."""

import numpy as np
import pytest

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.adapters.choice import why_lossless as list_reasons
from tests.support.variables import DIMS, RATIO, REASONS, SHAPE, dataset_of_kinds

xr = pytest.importorskip("xarray")

CODEC = MoECCodec(ratio=RATIO)


def why_lossless(ds, name, codec):
    return list_reasons(ds, [name], codec)[name]


@pytest.fixture(scope="module")
def ds():
    return dataset_of_kinds()


def test_the_table_has_every_variable(ds):
    assert set(REASONS) == set(ds.variables)


@pytest.mark.parametrize(("name", "reason"), REASONS.items())
def test_reason(ds, name, reason):
    assert why_lossless(ds, name, CODEC) == reason


def test_a_lower_ratio_leaves_less_too_small(ds):
    alone = ds[["area", "lat"]]
    assert why_lossless(alone, "area", MoECCodec(ratio=40)) == ""
    assert why_lossless(alone, "area", MoECCodec(psnr=40)) == ""
    assert why_lossless(ds, "short", MoECCodec(psnr=40)) == "small"  # 240 bytes of 300


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_encoding_follows_the_rule(ds, zarr_format):
    fields = {name for name, reason in REASONS.items() if not reason}
    assert set(moec_zarr.encoding(ds, CODEC, zarr_format)) == fields


def test_a_mask_is_compressed_where_it_is_named(ds):
    assert list(moec_zarr.encoding(ds, CODEC, variables=["sea"])) == ["sea"]
    assert list(moec_zarr.encoding(ds, {"sea": CODEC})) == ["sea"]


@pytest.mark.parametrize("name", ["sea", "region", "counts"])
def test_lazy_integers_are_sampled_and_little_is_read(ds, name):
    pytest.importorskip("dask.array")
    read = []

    def count(block):
        read.append(block.size)
        return block

    blocks = ds[[name]].chunk(dict(zip(DIMS, (1, 1, 60), strict=True)))
    blocks[name] = blocks[name].copy(
        data=blocks[name].data.map_blocks(count, meta=np.array((), ds[name].dtype))
    )
    assert why_lossless(blocks, name, CODEC) == REASONS[name]
    assert sum(read) <= np.prod(SHAPE)


def test_places_are_spread_over_large_variables():
    """Classes that stand in the first, the last or all places; a field that begins with zeros is one."""
    values = np.zeros((64, 256, 256), "i2")
    whole = xr.Dataset({"a": (DIMS, values)})
    assert why_lossless(whole, "a", CODEC) == "few values: 0"
    values[-1, -1, -1] = 5
    assert why_lossless(whole, "a", CODEC) == "few values: 0, 5"
    values[32:] = np.arange(256)
    assert why_lossless(whole, "a", CODEC) == ""


@pytest.mark.parametrize(("count", "compressed"), [(64, False), (65, True)])
def test_how_many_values_are_few(count, compressed):
    values = (np.arange(np.prod(SHAPE)) % count).reshape(SHAPE)
    assert (why_lossless(xr.Dataset({"a": (DIMS, values)}), "a", CODEC) == "") == compressed


def test_floats_are_not_read(ds):
    pytest.importorskip("dask.array")

    def fail(block):
        raise AssertionError("a field must not be read")

    lazy = ds[["temperature"]].chunk()
    lazy["temperature"] = lazy.temperature.copy(
        data=lazy.temperature.data.map_blocks(fail, meta=np.zeros(0, "f4"))
    )
    assert why_lossless(lazy, "temperature", CODEC) == ""


def longer(name, values, dims=("time", "y", "x"), **attrs):
    """A variable beside a field that runs in time."""
    steps = np.arange(4, dtype="f4") * 6
    field = np.random.default_rng(0).standard_normal((4, 60, 60)).astype("f4")
    return xr.Dataset(
        {"temperature": (("time", "y", "x"), field), name: (dims, values, attrs)},
        coords={"time": ("time", steps, {"units": "hours since 2000-01-01"})},
    )


SMOOTH = (1000 + 500 * np.sin(np.indices((4, 60, 60)).sum(axis=0) / 20)).astype("i4")


@pytest.mark.parametrize(
    ("name", "attrs", "what"),
    [
        ("nodes_of", {"cf_role": "face_node_connectivity"}, "cf_role"),
        ("list", {"start_index": 1}, "start_index"),
        ("rows", {"sample_dimension": "obs"}, "sample_dimension"),
        ("station", {"instance_dimension": "station"}, "instance_dimension"),
        ("landpoint", {"compress": "lat lon"}, "compress"),
        ("cell_labels", {}, "labels"),
        ("nucleiSegmentation", {}, "segmentation"),
        ("a", {"long_name": "QA bits of the pixel"}, "bits"),
        ("a", {"long_name": "date as YYYYMMDD"}, "date"),
        ("orbit_id", {}, "id"),
    ],
)
def test_integers_that_are_names_stay_lossless(name, attrs, what):
    """The values are those of a smooth field, so that only the names tell."""
    assert why_lossless(longer("a", SMOOTH), "a", CODEC) == ""
    reason = why_lossless(longer(name, SMOOTH, **attrs), name, MoECCodec(ratio=10))
    assert reason.startswith("identifiers")
    assert what in reason


def test_a_field_of_floats_may_be_an_index():
    index = np.sin(np.indices((4, 60, 60)).sum(axis=0) / 20).astype("f4")
    assert why_lossless(longer("vegetation_index", index), "vegetation_index", CODEC) == ""
    assert why_lossless(longer("cell_label", SMOOTH.astype("f4")), "cell_label", CODEC) != ""


def voronoi(count, shape=(40, 40, 40), radius=None):
    """Labels of cells that touch, or of balls where a radius is given; zero between them."""
    random = np.random.default_rng(1)
    seeds = random.random((count, 3)) * shape
    places = np.stack(np.indices(shape), axis=-1)
    distance = np.stack([np.linalg.norm(places - seed, axis=-1) for seed in seeds], axis=-1)
    labels = random.permutation(count)[distance.argmin(axis=-1)] + 1
    return labels if radius is None else np.where(distance.min(axis=-1) < radius, labels, 0)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("unlike their neighbours", np.random.default_rng(0).integers(0, 6000, (6000, 3))),
        ("unlike their neighbours", np.random.default_rng(0).integers(5, 500, 6000)),
        ("each greater than the one before", np.random.default_rng(0).integers(1, 500, 6000).cumsum()),
        ("constant in pieces", voronoi(150)),
        ("constant in pieces", voronoi(150, radius=4)),
    ],
    ids=["connectivity", "row sizes", "starts", "touching cells", "nuclei"],
)
def test_integers_are_known_as_names_by_their_values(kind, values):
    ds = xr.Dataset({"a": (tuple("xyz"[: values.ndim]), values.astype("i4"))})
    assert why_lossless(ds, "a", MoECCodec(ratio=10)) == f"identifiers: {kind}"


def test_noisy_counts_are_a_field():
    """A camera's: neighbours resemble one another a little."""
    signal = 100 + 30 * (np.sin(np.indices((32, 48, 48)).sum(axis=0) / 6) > 0.8)
    counts = np.random.default_rng(0).poisson(signal).astype("u2")
    assert why_lossless(xr.Dataset({"a": (DIMS, counts)}), "a", MoECCodec(ratio=10)) == ""


@pytest.mark.parametrize(
    ("name", "attrs", "reason"),
    [
        ("nav_lat", {"units": "degrees_north"}, "coordinate"),
        ("a", {"units": "degreeE"}, "coordinate"),
        ("a", {"standard_name": "grid_longitude"}, "coordinate"),
        ("XLONG", {}, "coordinate"),
        ("a", {"axis": "Z"}, "coordinate"),
        ("a", {"standard_name": "cell_area"}, "cell measure"),
    ],
)
def test_coordinates_are_known_by_their_own_attributes(name, attrs, reason):
    values = np.random.default_rng(0).random((4, 60, 60)).astype("f4")
    assert why_lossless(longer(name, values, **attrs), name, CODEC) == reason


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("cell_measures", "area: a", "cell measure"),
        ("ancillary_variables", "a other", "ancillary variable"),
        ("coordinates", "time a", "coordinate"),
        ("bounds", "a", "bounds"),
    ],
)
def test_variables_that_another_names_describe_it(key, value, reason):
    values = np.random.default_rng(0).random((4, 60, 60)).astype("f4")
    ds = longer("a", values)
    assert why_lossless(ds, "a", CODEC) == ""
    ds.temperature.attrs[key] = value
    assert why_lossless(ds, "a", CODEC) == reason


def test_vertices_are_bounds():
    values = np.random.default_rng(0).random((60, 60, 4)).astype("f4")
    for name in ("lat_vertices", "vertices_lon", "lon_bnds"):
        alone = xr.Dataset({name: (("y", "x", "v"), values)})
        assert why_lossless(alone, name, MoECCodec(ratio=10)) == "bounds"


def test_static_fields_of_a_set_that_runs_in_time_stay_lossless():
    """Unless they are named; alone they are fields like others."""
    values = np.random.default_rng(0).random((200, 200)).astype("f4")
    ds = longer("orography", values, dims=("lat", "lon"))
    assert why_lossless(ds, "orography", CODEC) == "no time axis"
    assert "orography" in moec_zarr.encoding(ds, CODEC, variables=["orography"])
    assert why_lossless(ds[["orography"]], "orography", CODEC) == ""
    # A dimension of time that only bounds have is none of a field.
    bounds = xr.Dataset({"time_bnds": (("time", "nv"), np.zeros((4, 2))), "a": (("lat", "lon"), values)})
    assert why_lossless(bounds, "a", CODEC) == ""
