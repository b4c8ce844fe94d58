"""The entry for the registry of zarr extensions says what the code does."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from moec_zarr import MoECError, MoECSerializer
from moec_zarr.settings import Settings

jsonschema = pytest.importorskip("jsonschema")

FOLDER = Path(__file__).parent.parent / "docs" / "zarr-extension"
SCHEMA = json.loads((FOLDER / "schema.json").read_text())
PROPERTIES = SCHEMA["properties"]["configuration"]["properties"]

TAKEN: list[dict[str, Any]] = [
    {"ratio": 1}, {"ratio": 1e9}, {"psnr": 0}, {"psnr": 400}, {"max_error": 0}, {"max_error": 1e300},
    {"max_relative_error": 0}, {"max_relative_error": 0.99}, {"max_relative_error": 0.01, "max_error": 0.5},
    {"ratio": 10, "scale": "log"}, {"psnr": 60, "scale": "log"}, {"max_error": 1, "scale": "linear"},
    {"ratio": 10, "exact": [0]}, {"max_error": 1, "exact": [0, 100, -1.5, 3]},
    {"ratio": 10, "missing": -9999}, {"psnr": 60.5, "missing": 1e20},
    *({"ratio": 10, "effort": effort} for effort in ("fast", "balanced", "best")),
    *({"ratio": 10, "model": model} for model in ("auto", "transform", "network")),
    {"ratio": 10, "experts": 1}, {"ratio": 10, "experts": 256, "model": "network"},
    {"ratio": 10, "dictionary": "AAA="}, {"ratio": 10, "dictionary": "AQAGAQBh"},
    {"ratio": 10, "seed": 0}, {"ratio": 10, "seed": 2**63 - 1},
]  # fmt: skip
REFUSED: list[dict[str, Any]] = [
    {}, {"ratio": 10, "psnr": 40}, {"psnr": 40, "max_error": 1}, {"effort": "fast"},
    {"ratio": 0.99}, {"ratio": 1.1e9}, {"ratio": "10"}, {"ratio": True}, {"psnr": -1}, {"psnr": 401},
    {"max_relative_error": 1}, {"max_relative_error": -0.1}, {"max_relative_error": 0.1, "psnr": 40},
    {"max_relative_error": 0.1, "max_error": 1, "ratio": 10}, {"max_error": 1, "scale": "log"},
    {"max_relative_error": 0.1, "scale": "log"}, {"ratio": 10, "scale": "sqrt"},
    {"ratio": 10, "exact": []}, {"ratio": 10, "exact": [1, 2, 3, 4, 5]}, {"ratio": 10, "exact": [0, 0]},
    {"max_error": -0.1}, {"ratio": 10, "missing": "none"}, {"ratio": 10, "effort": "slow"},
    {"ratio": 10, "model": "both"}, {"ratio": 10, "experts": 0}, {"ratio": 10, "experts": 257},
    {"ratio": 10, "experts": 2.5}, {"ratio": 10, "experts": 2, "model": "transform"},
    {"ratio": 10, "dictionary": ""}, {"ratio": 10, "dictionary": "!"}, {"ratio": 10, "dictionary": 3},
    {"ratio": 10, "seed": -1}, {"ratio": 10, "seed": 2**63}, {"ratio": 10, "max_eror": 1},
]  # fmt: skip


def follows_schema(entry: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(entry))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["name"]["const"] == MoECSerializer.codec_name


def test_parameters_and_defaults_are_those_of_the_code() -> None:
    fields = {field.name: field.default for field in dataclasses.fields(Settings)}
    assert {name: each.get("default") for name, each in PROPERTIES.items()} == fields


@pytest.mark.parametrize("configuration", TAKEN, ids=str)
def test_both_take(configuration: dict[str, Any]) -> None:
    entry = {"name": "moec_zarr.moec", "configuration": configuration}
    assert follows_schema(entry)
    again = MoECSerializer.from_dict(entry).to_dict()
    assert follows_schema(again)
    assert again["configuration"].items() <= configuration.items()


@pytest.mark.parametrize("configuration", REFUSED, ids=str)
def test_both_refuse(configuration: dict[str, Any]) -> None:
    entry = {"name": "moec_zarr.moec", "configuration": configuration}
    assert not follows_schema(entry)
    with pytest.raises(MoECError):
        MoECSerializer.from_dict(entry)


@pytest.mark.parametrize(
    "entry", [{"name": "moec_zarr.moec"}, {"name": "moec", "configuration": {"ratio": 10}}]
)
def test_both_refuse_other_entries(entry: dict[str, Any]) -> None:
    assert not follows_schema(entry)
    with pytest.raises(MoECError):
        MoECSerializer.from_dict(entry)


@pytest.mark.parametrize("name", ["max_error", "dictionary"])
def test_samples_are_what_their_page_says(name: str) -> None:
    folder = FOLDER / "sample_data" / f"{name}.zarr"
    (codec,) = json.loads((folder / "zarr.json").read_text())["codecs"]
    assert follows_schema(codec)
    page = (FOLDER / "README.md").read_text()
    example = json.loads(page.partition("```json\n")[2].partition("```")[0])
    assert codec["configuration"].items() >= example["configuration"].items()
    assert ("dictionary" in codec["configuration"]) == (name == "dictionary")
    array = zarr.open_array(folder, mode="r")
    values = array[:]
    i, j, k = np.indices(array.shape)
    land = (j + k < 9) if name == "dictionary" else np.zeros(array.shape, bool)
    np.testing.assert_array_equal(np.isnan(values), land)
    error = np.abs(values - 100 * np.sin((i + 2 * j + 3 * k) / 12))[~land].max()
    assert array.shape == ((16 if land.any() else 4), 12, 16)
    assert 0 < error <= 0.25 + 1e-5  # its original was in single precision


def test_the_page_lists_all_parameters() -> None:
    page = (FOLDER / "README.md").read_text()
    assert [name for name in PROPERTIES if f"| `{name}` |" not in page] == []
