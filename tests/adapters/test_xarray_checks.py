"""What xarray holds and no store can is refused, and the way out that the message names works."""

from __future__ import annotations

import datetime as dt
import decimal
import re

import numpy as np
import pytest

from moec_zarr import MoECCodec, MoECError, UnsupportedArrayError, encoding
from moec_zarr.archive.stored import hide_expected_warnings
from tests.support.fields import smooth

xr = pytest.importorskip("xarray")
pd = pytest.importorskip("pandas")

SHAPE = (4, 6, 8)
DIMS = ("time", "lat", "lon")
CODEC = MoECCodec(ratio=2, effort="fast")


def dataset(**variables):
    return xr.Dataset({"t": (DIMS, smooth(SHAPE)), **variables}, {"lat": np.arange(6.0)})


def column(values, dtype=object):
    """One variable along lat."""
    return dataset(o=("lat", np.array(values, dtype)))


def refused(ds, message, error=MoECError):
    with pytest.raises(error, match=message) as caught:
        encoding(ds, CODEC)
    return str(caught.value)


def accepted(ds, tmp_path):
    """Write and read it again: what xarray writes of an accepted dataset is the dataset."""
    entries = encoding(ds, {"*": None})
    with hide_expected_warnings():
        ds.to_zarr(tmp_path / "a.zarr", encoding=entries, mode="w", consolidated=False)
        back = xr.open_zarr(tmp_path / "a.zarr", consolidated=False).load()
    for name, var in ds.variables.items():
        np.testing.assert_array_equal(back.variables[name].values, var.values)


def test_a_multi_index_is_named_and_can_be_reset(tmp_path):
    index = pd.MultiIndex.from_product([[0, 1], ["a", "b"]], names=["run", "member"])
    ds = dataset().assign_coords(xr.Coordinates.from_pandas_multiindex(index, "time"))
    refused(ds, r"'time' has a multi-index of 'run', 'member'.*ds\.reset_index\('time'\)")
    reset = ds.reset_index("time")
    accepted(reset, tmp_path)
    np.testing.assert_array_equal(reset.run, [0, 0, 1, 1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (5, "are text, got 5 of type int"),
        (("a", "b"), "of type tuple"),
        (None, "got None of type NoneType"),
        (np.str_("ok").__class__, "of type type"),
        ("a/b", "takes a name with / or .* for a path, got 'a/b'"),
        ("a\\b", "for a path"),
        ("", "got ''"),
        ("a\0b", "can be one of a file"),
        (".", "that zarr keeps"),
        ("..", "that zarr keeps"),
        ("zarr.json", "that zarr keeps"),
        (".zattrs", "that zarr keeps"),
    ],
)
def test_names_that_a_store_cannot_have(name, message, tmp_path):
    ds = dataset().assign({name: ("lat", np.arange(6.0))})
    text = refused(ds, message)
    if name is not None and not isinstance(name, type):
        renaming = re.search(r"ds\.rename\((\{.*\})\)", text)[1]
        accepted(ds.rename({name: next(iter(eval(renaming).values()))}), tmp_path)  # as it says


def test_names_of_dimensions_are_text():
    refused(
        xr.Dataset({"t": ((0, 1, 2), smooth(SHAPE))}), r"dimensions are text, got 0.*rename\(\{0: '0'\}\)"
    )


@pytest.mark.parametrize("name", ["a b", "a.b", ".hidden", "température", "温度", "c", "T", "a:b", "$x", "0"])
def test_odd_names_that_a_store_can_have(name, tmp_path):
    accepted(dataset().assign({name: ("lat", np.arange(6.0))}), tmp_path)


@pytest.mark.parametrize(
    ("values", "found", "remedy"),
    [
        ([1, "a"] * 3, "int, str", str),
        ([1.5, 2] * 3, "float, int", float),
        ([{}] * 6, "dict", str),
        ([dt.date(2000, 1, 1)] * 6, "date", str),
        ([decimal.Decimal("1.5")] * 6, "Decimal", float),
        ([b"a", "b"] * 3, "bytes, str", str),
    ],
)
def test_mixed_and_foreign_objects_are_named(values, found, remedy, tmp_path):
    array = np.empty(6, object)
    array[:] = values
    ds = dataset(o=("lat", array))
    for each in (ds, ds.chunk()):
        refused(each, f"'o' holds Python objects of type {found}, and", UnsupportedArrayError)
    accepted(ds.assign(o=ds.o.astype(remedy)), tmp_path)


def test_arrays_of_any_length_are_named():
    array = np.empty(6, object)
    array[:] = [np.arange(n) for n in range(6)]
    refused(dataset(o=("lat", array)), r"'o' holds Python objects of type ndarray, of any .*drop_vars\('o'\)")


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_text_is_not_made_empty_text_without_a_word(missing, tmp_path):
    ds = column(["a", missing] * 3)
    refused(ds, r"objects of type str, of which 3 are missing.*fillna\(''\)", UnsupportedArrayError)
    accepted(ds.assign(o=ds.o.fillna("")), tmp_path)


def test_text_of_numpy_may_be_missing_or_not(tmp_path):
    accepted(column(["a", "", "é"] * 2, np.dtypes.StringDType()), tmp_path)
    ds = column(["a", np.nan, "é"] * 2, np.dtypes.StringDType(na_object=np.nan))
    refused(ds, r"of which 2 are missing, and text is never", UnsupportedArrayError)


@pytest.mark.parametrize(
    "values",
    [
        ["a", "bb", "é"] * 2,
        [b"a", b"bb", b"c"] * 2,
        [1, 2, 3] * 2,
        [1.5, None, 2.5] * 2,
        [True, False, True] * 2,
        [dt.datetime(2000, 1, day + 1) for day in range(6)],
        xr.date_range("2000-01-01", periods=6, calendar="noleap", use_cftime=True),
    ],
)
def test_objects_of_one_type_are_accepted(values):
    assert "t" in encoding(column(values), CODEC)


@pytest.mark.parametrize(
    "dtype", ["c8", "c16", "f2", "b1", "S3", "U3", "M8[ns]", "m8[s]", "i1", "u8", [("a", "f4"), ("b", "i4")]]
)
def test_types_that_zarr_has_are_accepted(dtype, tmp_path):
    accepted(column([0, 1, 1, 0, 1, 0] if isinstance(dtype, str) else [(0, 1)] * 6, dtype), tmp_path)


@pytest.mark.skipif(np.dtype("g").itemsize == 8, reason="long doubles are doubles here")
@pytest.mark.parametrize(("dtype", "other"), [("g", "f8"), ("G", "c16")])
def test_longer_floats_are_refused(dtype, other):
    refused(column(np.arange(6), dtype), rf"zarr has not; .*\.astype\('{other}'\)", UnsupportedArrayError)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (lambda: pd.Categorical(["a", "b", "c"] * 2), "category"),
        (lambda: pd.array([1, None, 3] * 2, dtype="Int64"), "Int64"),
        (lambda: pd.date_range("2000", periods=6, tz="UTC"), "UTC"),
        (lambda: pd.interval_range(0, 6), "interval"),
        (lambda: pd.period_range("2000", periods=6, freq="M"), "period"),
    ],
)
def test_types_of_pandas_alone_are_refused(values, kind, tmp_path):
    for ds in (dataset(o=("lat", values())), dataset().assign_coords(lat=values())):
        refused(ds, f"holds .*{kind}.*, a type of pandas alone", UnsupportedArrayError)
    ds = dataset(o=("lat", values()))
    if kind != "Int64":  # of which one is missing
        accepted(ds.assign(o=ds.o.astype(str)), tmp_path)


class Held(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that is no NumPy array and does not let itself be made one, as those of cupy and sparse."""

    def __init__(self, array):
        self.array = array

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)
    ndim = property(lambda self: self.array.ndim)

    def __getitem__(self, key):
        return Held(self.array[key])

    def __array__(self, dtype=None, copy=None):
        raise TypeError("implicit conversion is not allowed")

    def __array_function__(self, function, types, args, kwargs):
        return Held(function(*(each.array if isinstance(each, Held) else each for each in args), **kwargs))

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return Held(ufunc(*(each.array if isinstance(each, Held) else each for each in inputs), **kwargs))


def test_values_that_are_no_numpy_array_are_refused():
    words = r"'(t|o)' is held by .*test_xarray_checks\.Held, expected NumPy or dask; ds\.as_numpy\(\)"
    refused(xr.Dataset({"t": (DIMS, Held(smooth(SHAPE)))}), words, UnsupportedArrayError)
    refused(dataset(o=("lat", Held(np.arange(6.0)))), words, UnsupportedArrayError)
    da = pytest.importorskip("dask.array")
    array = da.from_array(Held(smooth(SHAPE)), chunks=-1, asarray=False)
    refused(xr.Dataset({"t": (DIMS, array)}), words, UnsupportedArrayError)


def test_nothing_is_read_of_what_has_a_type():
    da = pytest.importorskip("dask.array")

    def fail(block):
        raise AssertionError("it was read")

    zeros = da.zeros((4, 600, 800), dtype="f4", chunks=-1)
    array = zeros.map_blocks(fail, dtype="f4", meta=np.zeros((0, 0, 0), "f4"))
    assert "t" in encoding(xr.Dataset({"t": (DIMS, array)}), CODEC)


def test_a_tree_is_checked_group_by_group():
    tree = xr.DataTree.from_dict({"/": dataset(), "/in": column([1, "a"] * 3)})
    refused(tree, "'o' holds Python objects of type int, str", UnsupportedArrayError)
