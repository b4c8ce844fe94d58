"""Archives: from a dataset to a compressed store, on dask."""
