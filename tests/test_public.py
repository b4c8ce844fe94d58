"""The names of the package: all exist, no others do, and what few need is imported late."""

import pytest

import moec_zarr
from tests.support.processes import run_python

LAZY = {
    "Comparison": "report.comparison.metrics",
    "ConversionError": "archive.status",
    "Judgement": "report.verdict.verdict",
    "Plan": "archive.plan",
    "Progress": "archive.status",
    "StreamInfo": "archive.inspection",
    "Trial": "conversion.plan.trial",
    "Verdict": "report.verdict.verdict",
    "Verification": "conversion.verify",
    "compare": "report.comparison.metrics",
    "convert": "conversion.work.run",
    "inspect": "archive.inspection",
    "judge": "report.verdict.judge",
    "migrate": "archive.migration",
    "train_dictionary": "codec.train",
    "trial": "conversion.plan.trial",
    "verify": "conversion.verify",
    "write_report": "report.page.gathering",
}


def test_every_public_name_exists():
    for name in moec_zarr.__all__:
        assert getattr(moec_zarr, name) is not None
    assert dir(moec_zarr) == sorted(moec_zarr.__all__)


def test_names_are_as_documented():
    assert set(moec_zarr.__all__) == {
        *LAZY, "BudgetError", "CorruptStreamError", "DictionaryError", "MoECCodec", "MoECError",
        "MoECSerializer", "UnsupportedArrayError", "UnsupportedVersionError", "__version__",
        "config", "encoding", "open",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "module"), LAZY.items())
def test_late_names_are_those_of_their_modules(name, module):
    value = getattr(moec_zarr, name)
    assert value.__name__ == name
    assert value.__module__ == f"moec_zarr.{module}"


def test_errors_have_one_base():
    for name in moec_zarr.__all__:
        if name.endswith("Error"):
            assert issubclass(getattr(moec_zarr, name), moec_zarr.MoECError)


def test_any_other_name_does_not_exist():
    with pytest.raises(AttributeError, match="compres"):
        moec_zarr.compres  # noqa: B018


def test_listing_the_names_imports_none():
    code = """
import sys
import moec_zarr
dir(moec_zarr)
print(*sorted(set(sys.argv[1:]) & set(sys.modules)))
"""
    heavy = ("torch", "xarray", "dask", "matplotlib", "scipy")
    assert run_python(code, *heavy, *(f"moec_zarr.{module}" for module in LAZY.values())) == []
