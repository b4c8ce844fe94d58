"""A dataset whose variables name one another, as CF has it: a grid mapping, bounds, areas of cells."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.fields import rough

SHAPE = (4, 12, 16)
NAMES = {
    "grid_mapping": "crs",
    "cell_measures": "area: areacella",
    "ancillary_variables": "quality",
    "coordinates": "height lat2d",
}
"""Attributes of the field, each of which names a variable."""


def related(shape: tuple[int, int, int] = SHAPE) -> Any:
    """The dataset as a file holds it, with nothing decoded."""
    import xarray as xr

    times, rows, columns = shape
    lat, lon = np.linspace(-60, 60, rows), np.linspace(0, 15, columns)

    def bounds(values: Any) -> Any:
        half = (values[1] - values[0]) / 2
        return np.stack([values - half, values + half], axis=1)

    days = np.arange(float(times))
    return xr.Dataset(
        {
            "tas": (("time", "lat", "lon"), rough(shape), {"units": "K", **NAMES}),
            "quality": (("lat", "lon"), np.arange(rows * columns).reshape(rows, columns) % 3),
            "crs": ((), 0, {"grid_mapping_name": "latitude_longitude", "earth_radius": 6371229.0}),
            "areacella": (("lat", "lon"), np.ones((rows, columns)), {"units": "m2"}),
            "height": ((), 2.0, {"units": "m"}),
            "lat2d": (("lat", "lon"), np.tile(lat[:, None], columns)),
            "time_bnds": (("time", "bnds"), bounds(days)),
            "lat_bnds": (("lat", "bnds"), bounds(lat)),
            "lon_bnds": (("lon", "bnds"), bounds(lon)),
        },
        coords={
            "time": ("time", days, {"units": "days since 2000-01-01", "bounds": "time_bnds"}),
            "lat": ("lat", lat, {"units": "degrees_north", "bounds": "lat_bnds"}),
            "lon": ("lon", lon, {"units": "degrees_east", "bounds": "lon_bnds"}),
        },
    )
