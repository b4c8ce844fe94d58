import pytest

import moec_zarr


def test_every_public_name_exists():
    for name in moec_zarr.__all__:
        assert getattr(moec_zarr, name) is not None
    assert dir(moec_zarr) == sorted(moec_zarr.__all__)


def test_any_other_name_does_not():
    with pytest.raises(AttributeError, match="compres"):
        moec_zarr.compres  # noqa: B018
