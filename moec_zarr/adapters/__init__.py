"""The codec in numcodecs, zarr and xarray."""
