"""All that this package takes from zarr's private modules: zarr has no public names for it so far."""

from zarr.core.array_spec import ArraySpec
from zarr.core.metadata import ArrayV2Metadata, ArrayV3Metadata
from zarr.core.sync import sync

__all__ = ["ArraySpec", "ArrayV2Metadata", "ArrayV3Metadata", "sync"]
