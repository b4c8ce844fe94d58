"""Figures as the tables show them."""

import pytest

pytest.importorskip("typer")

from moec_zarr.cli.tables import bytes_text, counted, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (0.2, "0s"), (59, "59s"), (61, "1m 1s"), (3661, "1h 1m"), (90000, "1d 1h"), (-1, "0s")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "?"), (0, "0 B"), (999, "999 B"), (999.9, "1 kB"), (1.5e9, "1.5 GB"), (3e15, "3 PB")],
)
def test_bytes(count, text):
    assert bytes_text(count) == text


def test_quality_of_several_chunks_is_pooled():
    """Bias and power by their shares, percentiles and errors by their worst."""
    np, xr = pytest.importorskip("numpy"), pytest.importorskip("xarray")
    from moec_zarr.cli.quality import quality_tables

    ds = xr.Dataset(
        {
            "n_valid": ("task", [100, 300]),
            "bias": ("task", [1.0, -1.0]),
            "max_error": ("task", [3.0, 2.0]),
            "error_percentile": (("task", "percentile"), [[0.1, 0.2], [0.3, 0.1]]),
            "power": (("task", "wavelength"), [[1.0, 0.0], [3.0, 0.0]]),
            "power_ratio": (("task", "wavelength"), [[1.0, np.nan], [0.5, np.nan]]),
            "rmse_by_index": ("time", [0.1, 0.5, np.nan, 0.2]),
            **{
                f"seconds_{step}": ("task", [60.0, 5.0])
                for step in ("reading", "fitting", "writing", "checking")
            },
        },
        {"percentile": [50.0, 99.0], "wavelength": [2, 4]},
    )
    errors, power, time = (
        [list(column.cells) for column in each.columns] for each in quality_tables({"a": ds})
    )
    assert [cell for (cell,) in errors] == ["a", "2", "-0.5", "0.3", "0.2", "3", "time 1"]
    assert [cell for (cell,) in power] == ["a", "0.625", "-"]
    assert [cell for (cell,) in time] == ["a", *["1m 5s"] * 4]


def test_counts():
    assert [counted(n, "attempt") for n in (0, 1, 2)] == ["0 attempts", "1 attempt", "2 attempts"]
