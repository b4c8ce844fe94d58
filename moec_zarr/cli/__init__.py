"""The command ``moec-zarr``."""

try:
    import rich  # noqa: F401
    import typer  # noqa: F401
except ModuleNotFoundError as error:
    raise SystemExit(
        f"error: the command line needs {error.name}, which the extra moec-zarr[all] brings; install it"
    ) from error
