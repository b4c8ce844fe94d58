"""What lies beside the variables of one group is refused by name, and the way out that is named works."""

from __future__ import annotations

import shutil

import fsspec
import numpy as np
import pytest
import zarr

from moec_zarr import MoECCodec, MoECError, convert, encoding, verify
from moec_zarr.archive.inspection import compressed_arrays
from moec_zarr.conversion.plan.source import SourceError, open_source
from moec_zarr.conversion.plan.trial import trial
from moec_zarr.report.page.gathering import write_report
from tests.conversion.conversions import FAST
from tests.support.fields import smooth

xr = pytest.importorskip("xarray")
netcdf = pytest.importorskip("netCDF4")
h5py = pytest.importorskip("h5py")

SHAPE = (4, 12, 16)
DIMS = ("time", "lat", "lon")


def refused(source, message, error=MoECError):
    with pytest.raises(error, match=message), open_source(source):
        pass


@pytest.fixture
def tree():
    def ds(name):
        return xr.Dataset({name: (DIMS, smooth(SHAPE))}, {"lat": np.arange(12.0)})

    return xr.DataTree.from_dict({"/": ds("aod"), "/science": ds("no2"), "/science/deep": ds("o3")})


@pytest.fixture
def grouped(tree, tmp_path):
    tree.to_netcdf(tmp_path / "tree.nc", engine="netcdf4")
    return tmp_path / "tree.nc"


def test_groups_of_a_file_are_named(grouped, tmp_path):
    words = r"tree\.nc has groups.*'science', 'science/deep' would be left out.*group='science'"
    plain = tmp_path / "plain.nc"
    xr.open_dataset(grouped).load().drop_encoding().to_netcdf(plain)
    for source in (grouped, str(grouped), f"file://{grouped}", [plain, grouped], f"{tmp_path}/tr*.nc"):
        refused(source, words)
    with open_source(plain) as ds:
        assert "aod" in ds


def test_groups_of_a_file_on_remote_storage_are_named(grouped):
    fs = fsspec.filesystem("memory")
    fs.pipe("/there/tree.nc", grouped.read_bytes())
    refused("memory://there/tree.nc", r"memory://there/tree\.nc has groups.*'science/deep'")


def test_a_file_with_nothing_at_its_root_is_not_called_damaged(tmp_path):
    with netcdf.Dataset(tmp_path / "a.nc", "w") as file:
        group = file.createGroup("science")
        group.createDimension("x", 3)
        group.createVariable("no2", "f4", ("x",))
    refused(tmp_path / "a.nc", "has groups.*'science'")


def test_what_a_group_of_hdf5_holds_counts(tmp_path):
    for name, fill, message in (
        ("deep.h5", lambda file: file.create_dataset("a/b/c/values", data=np.zeros(3)), "'a/b/c'"),
        ("attributes.h5", lambda file: file.create_group("about").attrs.update(by="me"), "'about'"),
    ):
        with h5py.File(tmp_path / name, "w", userblock_size=512) as file:
            file.create_dataset("root", data=np.zeros(3))
            fill(file)
        refused(tmp_path / name, f"{name} has groups.*{message}")


def test_an_empty_group_takes_nothing_away(tmp_path):
    with netcdf.Dataset(tmp_path / "a.nc", "w") as file:
        file.createDimension("x", 3)
        file.createVariable("v", "f4", ("x",))[:] = 1
        file.createGroup("empty").createGroup("deep")
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("v", shape=(3,), dtype="f4", dimension_names=["x"])
    group.create_group("empty/deep")
    for name in ("a.nc", "a.zarr"):
        with open_source(tmp_path / name) as ds:
            assert list(ds.variables) == ["v"]


def test_files_of_formats_without_groups_are_opened_as_ever(tmp_path):
    for form in ("NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4_CLASSIC"):
        xr.Dataset({"v": ("x", np.arange(3.0))}).to_netcdf(tmp_path / f"{form}.nc", format=form)
        with open_source(tmp_path / f"{form}.nc") as ds:
            np.testing.assert_array_equal(ds.v, [0, 1, 2])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
def test_groups_of_a_store_are_named(tree, tmp_path, zarr_format, consolidated):
    store = tmp_path / "tree.zarr"
    tree.to_zarr(store, zarr_format=zarr_format, consolidated=consolidated)
    refused(store, r"has groups.*'science', 'science/deep' would be left out.*tree\.zarr/science;")
    with open_source(store / "science/deep") as ds:  # as the message says
        np.testing.assert_array_equal(ds.o3, smooth(SHAPE))
    shutil.rmtree(store / "science/deep")
    tree["/science"].to_dataset().to_zarr(store / "science", mode="w", zarr_format=zarr_format)
    with open_source(store / "science") as ds:
        assert "no2" in ds


def test_every_way_to_give_a_source_refuses_groups(grouped, tmp_path, client):
    one = xr.open_dataset(grouped, group="science")  # as the message says
    archive = tmp_path / "archive.zarr"
    convert(one, archive, FAST, client=client)
    assert verify(archive, one).ok
    for call in (
        lambda: convert(grouped, tmp_path / "refused.zarr", FAST, client=client),
        lambda: convert(grouped, archive, append="time", client=client),
        lambda: verify(archive, grouped),
        lambda: trial(grouped, FAST),
        lambda: write_report(archive, tmp_path / "r.html", against=grouped),
    ):
        with pytest.raises(MoECError, match="has groups"):
            call()
    assert not (tmp_path / "refused.zarr").exists()


def test_a_tree_or_an_array_without_names_is_no_source(tree):
    refused(tree, r"got a DataTree of '/', '/science', '/science/deep'.*to_dataset\(\)")
    for source in (smooth(SHAPE), [smooth(SHAPE)], 5, [xr.Dataset()]):
        refused(source, "a source is a Dataset, .* got ")


def test_streams_in_groups_are_inspected_and_verified(tree, tmp_path):
    store = tmp_path / "tree.zarr"
    tree.to_zarr(store, encoding=encoding(tree, MoECCodec(ratio=5, effort="fast")))
    assert list(compressed_arrays(store)) == ["aod", "science/deep/o3", "science/no2"]
    assert verify(store).ok
    chunk = store / "science/deep/o3/c/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-5])
    assert [problem.variable for problem in verify(store).problems] == ["science/deep/o3"]


# ------------------------------------------------------------------------------- zarr without names


def image(path, zarr_format, dimension_names=None, version="0.4"):
    """Two levels of an image, as OME-Zarr has them."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    for level, shape in enumerate([(4, 12, 16), (4, 6, 8)]):
        options = {} if dimension_names is None else {"dimension_names": dimension_names}
        array = group.create_array(str(level), shape=shape, dtype="u2", chunks=shape, **options)
        array[:] = (smooth(shape) * 100 + 1000).astype("u2")
    scales = [{"version": version, "datasets": [{"path": "0"}, {"path": "1"}]}]
    group.attrs.update({"ome": {"multiscales": scales}} if version == "0.5" else {"multiscales": scales})
    return group


@pytest.mark.parametrize(
    "options",
    [{"zarr_format": 2}, {"zarr_format": 3, "version": "0.5", "dimension_names": list("zyx")}],
)
def test_an_image_of_several_levels_is_called_one(tmp_path, options):
    group = image(tmp_path / "image", **options)
    words = r"is an OME-Zarr image, whose resolution levels '0', '1'.*image/0'\), dims=\['z', 'y', 'x'\]"
    refused(tmp_path / "image", words)
    group.create_group("labels/cells")
    refused(tmp_path / "image", words)
    # The way that the message names.
    da = pytest.importorskip("dask.array")
    level = xr.DataArray(da.from_zarr(f"{tmp_path}/image/0"), dims=["z", "y", "x"], name="image")
    with open_source(level) as ds:
        assert ds.image.shape == (4, 12, 16)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_single_array_is_called_one(tmp_path, zarr_format):
    array = zarr.create_array(tmp_path / "a", shape=(4, 6), dtype="f4", zarr_format=zarr_format)
    array[:] = 1
    for source in (tmp_path / "a", f"file://{tmp_path}/a"):
        refused(source, r"a is a single zarr array.*xarray\.DataArray\(.*dims=\['y', 'x'\]")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arrays_without_names_of_dimensions_are_named(tmp_path, zarr_format):
    group = zarr.open_group(tmp_path / "g", mode="w", zarr_format=zarr_format)
    group.create_array("scalar", shape=(), dtype="f4")
    for name, shape in (("p", (2, 3)), ("q", (1, 1, 1, 2, 3))):
        group.create_array(name, shape=shape, dtype="f4")
    refused(tmp_path / "g", r"arrays without names of their dimensions, .*: 'p', 'q'; .*dims=\['y', 'x'\]")


def test_arrays_that_share_names_but_no_grid_are_named(tmp_path):
    image(tmp_path / "g", 3, list("zyx")).attrs.clear()
    zarr.open_group(tmp_path / "g").attrs.put({})
    refused(tmp_path / "g", r"the dimension 'y' has (12|6) voxels in '(0|1)' and (12|6) in '(0|1)'")


def test_a_store_that_is_damaged_is_still_called_so(tmp_path):
    xr.Dataset({"v": ("x", np.arange(3.0))}).to_zarr(tmp_path / "d.zarr", consolidated=False)
    (tmp_path / "d.zarr/v/zarr.json").write_text('{"zarr_format": 3, "node_')
    refused(tmp_path / "d.zarr", "may be truncated, damaged", SourceError)
