"""A dataset with a variable of each kind, and what is to be done with each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

RATIO = 100
SHAPE = (4, 60, 60)
DIMS = ("time", "lat", "lon")

# Why each stays lossless at that ratio; the fields, which do not, have no reason.
REASONS = {
    "temperature": "",
    "packed": "",
    "counts": "",
    "time": "coordinate",
    "lat": "coordinate",
    "height": "coordinate",
    "lat_bounds": "bounds",
    "lon_bounds": "bounds",
    "observed": "time",
    "expected": "time",
    "when": "time",
    "lag": "time",
    "quality": "flags",
    "surface": "flags",
    "state": "flags",
    "land": "no number",
    "sea": "few values: 0, 1",
    "ice": "few values: 1",
    "region": "few values: 5 from 0 to 4",
    "fraction": "",
    "wet": "few values: 0, 1",
    "clear": "few values: 0, 1",
    "spectrum": "no number",
    "station": "no number",
    "ensemble": "more than 5 axes",
    "area": "small",
    "short": "small",
}


def dataset_of_kinds() -> xr.Dataset:
    """All of `REASONS`; only coordinates, integers and masks hold values of their own."""
    import xarray as xr

    def blank(dtype: str = "f4", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
        return np.broadcast_to(np.zeros((), dtype), shape)

    field = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    sea = (field % 7 > 3).astype("i4")
    # A mask as xarray hands it over that has a fill value in its file.
    wet = np.where(field < 99, np.nan, sea).astype("f4")
    ensemble = ("number", "step", "level")
    ds = xr.Dataset(
        {
            "temperature": (DIMS, blank(), {"units": "K"}),
            "packed": (DIMS, blank(), {}, {"scale_factor": 0.1, "dtype": "i2", "units": "m"}),
            "counts": (DIMS, field, {"units": "1 since"}),
            "sea": (DIMS, sea),
            "ice": (DIMS, np.ones(SHAPE, "u4")),
            "region": (DIMS, field // 3000),
            "fraction": (DIMS, field / field.max(), {"long_name": "Land-sea mask"}),
            "wet": (DIMS, wet, {}, {"dtype": "i1", "_FillValue": np.int8(-1)}),
            "clear": (DIMS, sea.astype("f4"), {"standard_name": "clear_sky_binary_mask"}),
            "lat_bounds": (("lat", "edge"), blank("f8", (60, 9000))),
            "lon_bounds": (("lon", "edge"), blank("f8", (60, 9000))),
            "observed": (DIMS, blank("i8"), {"units": "seconds since 1970-01-01"}),
            "expected": (DIMS, blank("f8"), {}, {"units": "days since 1970-01-01"}),
            "when": (DIMS, blank("M8[ns]")),
            "lag": (DIMS, blank("m8[ns]")),
            "quality": (DIMS, blank("i4"), {"flag_values": [0, 1], "flag_meanings": "bad good"}),
            "surface": (DIMS, blank("i4"), {"flag_masks": [1, 2]}),
            "state": (DIMS, blank("i4"), {}, {"flag_meanings": "off on"}),
            "land": (DIMS, blank("?")),
            "spectrum": (DIMS, blank("c16")),
            "station": (DIMS, blank("U3")),
            "ensemble": ((*ensemble, *DIMS), blank(shape=(1, 1, 1, *SHAPE))),
            "area": (("lat", "lon"), blank(shape=SHAPE[1:])),
            "short": (("lat",), blank(shape=SHAPE[1:2])),
        },
        coords={
            "time": np.arange(SHAPE[0]),
            "lat": np.linspace(-60, 60, SHAPE[1]),
            "height": (("lat", "lon"), np.zeros(SHAPE[1:])),
        },
    )
    ds.lat.attrs["bounds"] = "lat_bounds"
    ds["height"].encoding["bounds"] = "lon_bounds"
    return ds
