from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

from moec_zarr.demo.run import demo, main
from moec_zarr.demo.simulate import simulate

SHAPE = (2, 2, 16, 16)


def test_demo_stores_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo(tmp_path / "new" / "out", shape=SHAPE, ratio=5)
    table = capsys.readouterr().out
    stored = xr.open_zarr(tmp_path / "new" / "out" / "simulation.zarr", consolidated=False)
    original = simulate(SHAPE)
    assert set(stored.data_vars) == set(original.data_vars)
    assert set(stored.coords) == set(original.coords)
    for name, variable in original.data_vars.items():
        assert str(name) in table
        assert stored[name].attrs == variable.attrs
        assert (stored[name].isnull() == variable.isnull()).all()
        assert (tmp_path / "new" / "out" / f"{name}.png").stat().st_size > 1000
    for name, coordinate in original.coords.items():
        assert (stored[name] == coordinate).all()


def test_help_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "--out" in capsys.readouterr().out
