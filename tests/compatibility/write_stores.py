"""Write small stores that all later versions must read: ``python -m tests.compatibility.write_stores``.

They stand in a folder of this version, with what they decode to now. It is done once for each release, before
its tag.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import zarr

import moec_zarr
from tests.compatibility.fields import FIELDS, SHAPE

FOLDER = Path(__file__).parent
CHUNKS = (4, 12, 16)


def find_arrays(folder: Path) -> dict[str, zarr.Array[Any]]:
    """All arrays of the stores of a version, by store and path."""
    found = {}
    for store in sorted(folder.glob("*.zarr")):
        group = zarr.open_group(store, mode="r", use_consolidated=False)
        for path, member in sorted(group.members(max_depth=None), key=lambda each: each[0]):
            if isinstance(member, zarr.Array):
                found[f"{store.name}/{path}"] = member
    return found


def _codec(name: str) -> moec_zarr.MoECCodec:
    return moec_zarr.MoECCodec(effort="fast", **FIELDS[name].settings)


def write_formats(folder: Path) -> None:
    """Write every field in both formats of zarr."""
    for zarr_format in 2, 3:
        group = zarr.create_group(folder / f"format_{zarr_format}.zarr", zarr_format=zarr_format)
        for name, field in FIELDS.items():
            data, codec = field.make(), _codec(name)
            layout: dict[str, Any] = {"shape": SHAPE, "chunks": CHUNKS, "dtype": data.dtype}
            if zarr_format == 2:
                layout["compressors"] = codec
            else:
                layout |= {"serializer": codec.serializer(), "compressors": None}
            group.create_array(name, **layout)[:] = data


def write_shards(folder: Path) -> None:
    """Write one array in shards of two chunks."""
    group = zarr.create_group(folder / "shards.zarr")
    array = group.create_array(
        "land", shape=SHAPE, chunks=(4, 6, 16), shards=(4, 12, 16), dtype="f4",
        serializer=_codec("land").serializer(), compressors=None,
    )  # fmt: skip
    array[:] = FIELDS["land"].make()


def write_dictionary(folder: Path) -> None:
    """Write one array whose chunks take entries of a dictionary, in both formats of zarr."""
    data = FIELDS["land"].make()
    codec = moec_zarr.train_dictionary(_codec("land"), data.reshape(4, 2, 12, 16))
    assert codec.dictionary is not None
    group = zarr.create_group(folder / "dictionary_2.zarr", zarr_format=2)
    layout: dict[str, Any] = {"shape": SHAPE, "chunks": (2, 12, 16), "dtype": "f4"}
    group.create_array("land", compressors=codec, **layout)[:] = data
    group = zarr.create_group(folder / "dictionary_3.zarr")
    group.create_array("land", serializer=codec.serializer(), compressors=None, **layout)[:] = data


def write_tree(folder: Path) -> None:
    """Write a tree of datasets through xarray."""
    import xarray as xr  # which those that read need not have

    codecs = {f"/level/{name}": _codec(name) for name in ("land", "relative")}
    axes = ("time", "y", "x")
    data = xr.Dataset({name: (axes, FIELDS[name].make()) for name in ("land", "relative")})
    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs={"title": "waves"}), "/level": data})
    tree.to_zarr(folder / "tree.zarr", encoding=moec_zarr.encoding(tree, codecs), consolidated=False)


def main() -> None:
    version = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())["project"]["version"]
    if "dev" in version:
        sys.exit(f"{version} is no release: its stores need not be read")
    tags = subprocess.run(["git", "tag", "--list", f"v{version}"], capture_output=True, text=True, cwd=FOLDER)
    if tags.stdout:
        sys.exit(f"{version} is released: its stores stay as they are")
    folder = FOLDER / version
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for write in write_formats, write_shards, write_dictionary, write_tree:
        write(folder)
    values = {name: array[:] for name, array in find_arrays(folder).items()}
    np.savez_compressed(folder / "values.npz", **values)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size} bytes, {len(values)} arrays")


if __name__ == "__main__":
    main()
