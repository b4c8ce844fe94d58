"""Fields that the fits of several modules share, and fits of them."""

import pytest

from moec_zarr.demo.simulate import simulate
from tests.support.fields import normalised


@pytest.fixture(scope="session")
def field():
    """A small simulated temperature, from -1 to 1; read-only."""
    values = normalised(simulate((3, 1, 32, 40), seed=2)["temperature"].values[:, 0])
    values.setflags(write=False)
    return values


@pytest.fixture(scope="session")
def fitted(field):
    """The transform of `field` in 500 bytes."""
    from moec_zarr.fit.transform.rate_control import fit_transform

    transform = fit_transform(field.copy(), None, 500)
    assert transform is not None
    return transform
