"""Python with what is installed here, but for this package: no module, and no entry point of it."""

from __future__ import annotations

import sys
from pathlib import Path

import zarr


def python_without_package(folder: Path, code: str) -> list[str]:
    """A command that runs code there; `folder` is filled with links first."""
    folder.mkdir()
    for path in Path(zarr.__file__).parents[1].iterdir():
        if "moec" not in path.name:
            (folder / path.name).symlink_to(path)
    # Neither PYTHONPATH nor .pth files, which an editable installation uses, are read.
    return [sys.executable, "-I", "-S", "-B", "-c", f"import sys; sys.path.append({str(folder)!r}); {code}"]
