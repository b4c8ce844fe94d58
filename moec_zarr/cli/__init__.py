"""The command ``moec-zarr``."""
