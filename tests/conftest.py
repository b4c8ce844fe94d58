"""Settings of the whole suite, and the devices of torch that it runs on."""

import os
from importlib.util import find_spec
from typing import Any

import pytest

# One thread for the linear algebra: with more, each small step waits for whichever thread a busy
# machine has put aside, and the suite takes several times as long.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that are marked `torch` where it is not installed, as beside the newest dependencies."""
    if find_spec("torch") is None:
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(pytest.mark.skip(reason="torch is not installed"))


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """A device of torch: the same code is tested on the CPU, and on a GPU where there is one."""
    torch = pytest.importorskip("torch")
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    return str(request.param)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of networks that are trained together, as they are."""
    from moec_zarr.fit.network import train

    sizes: list[int] = []
    original = train.fit_networks

    def counted(fits: Any, device: str) -> Any:
        sizes.append(len(fits))
        return original(fits, device)

    monkeypatch.setattr(train, "fit_networks", counted)
    return sizes
