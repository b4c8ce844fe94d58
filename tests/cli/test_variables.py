"""Settings for each variable, from the command line and from a file."""

from __future__ import annotations

import dataclasses
import json

import pytest

pytest.importorskip("typer")

from moec_zarr import MoECCodec, MoECError
from moec_zarr.cli import variables
from moec_zarr.cli.variables import codecs_of
from tests.cli.conftest import QUICK

R = MoECCodec


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "settings.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("options", "var", "expected"),
    [
        ({"ratio": 9}, [], R(ratio=9)),
        ({"ratio": 9}, ["a", "b"], {"a": R(ratio=9), "b": R(ratio=9)}),
        ({}, ["a:ratio=2e2", "b:psnr=60"], {"a": R(ratio=200), "b": R(psnr=60)}),
        ({"ratio": 9, "effort": "fast"}, ["a:psnr=60"], {"a": R(psnr=60, effort="fast")}),
        ({"ratio": 9, "effort": "fast"}, ["a:effort=best"], {"a": R(ratio=9, effort="best")}),
        ({}, ["a:ratio=5,missing=-9999, seed=3"], {"a": R(ratio=5, missing=-9999, seed=3)}),
        ({}, ["group:a:ratio=5"], {"group:a": R(ratio=5)}),
        ({"ratio": 9}, ["group:a"], {"group:a": R(ratio=9)}),
        (
            {"ratio": 9},
            ["q:max_relative_error=0.01", "w:max_relative_error=0.01,max_error=2"],
            {"q": R(max_relative_error=0.01), "w": R(max_relative_error=0.01, max_error=2)},
        ),
        ({"ratio": 9}, ["q:scale=log"], {"q": R(ratio=9, scale="log")}),
        ({"max_error": 1, "max_relative_error": 0.1}, ["q:psnr=60"], {"q": R(psnr=60)}),
        ({"ratio": 9}, ["a:lossless"], {"a": None, "*": R(ratio=9)}),
        ({"ratio": 9}, ["a:lossless", "b"], {"a": None, "b": R(ratio=9)}),
    ],
)
def test_options(options, var, expected):
    assert codecs_of(options, var) == expected


FILE = """
ratio = 1000
effort = "fast"

[variables]
mask = "lossless"

[variables.t2m]
ratio = 200
missing = -1e20

[variables."sea level"]
psnr = 60.5
"""


def test_a_file(file):
    assert codecs_of({}, None, file(FILE)) == {
        "mask": None,
        "t2m": R(ratio=200, effort="fast", missing=-1e20),
        "sea level": R(psnr=60.5, effort="fast"),
        "*": R(ratio=1000, effort="fast"),
    }


def test_a_file_without_a_target_for_all_names_the_variables(file):
    assert codecs_of({}, None, file("effort = 'fast'\n[variables.a]\nratio = 5")) == {
        "a": R(ratio=5, effort="fast")
    }
    assert codecs_of({}, None, file("ratio = 5")) == R(ratio=5)


def test_several_values_are_kept_exactly():
    assert codecs_of({}, ["a:max_error=0.1,exact=0,exact=100"], None) == {
        "a": R(max_error=0.1, exact=[0, 100])
    }
    assert codecs_of({}, ["a:max_error=0.1,exact=0"], None) == {"a": R(max_error=0.1, exact=0)}


def test_the_command_line_goes_before_the_file(file):
    path = file(FILE)
    found = codecs_of({"psnr": 50, "effort": "best"}, None, path)
    assert found["*"] == R(psnr=50, effort="best")
    assert found["t2m"] == R(ratio=200, effort="best", missing=-1e20)
    assert codecs_of({}, ["t2m:psnr=70", "mask", "other"], path) == {
        "t2m": R(psnr=70, effort="fast", missing=-1e20),
        "mask": R(ratio=1000, effort="fast"),
        "other": R(ratio=1000, effort="fast"),
    }


def test_every_field_of_the_settings_is_one(monkeypatch):
    """Also one that is added later."""
    names = {field.name for field in dataclasses.fields(R)}
    assert names == set(variables._NAMES)
    assert {"ratio", "psnr"} <= variables._TARGETS <= names


@pytest.mark.parametrize(
    ("options", "var", "text", "message"),
    [
        ({}, None, None, "exactly one target"),
        ({"ratio": 2, "psnr": 3}, None, None, "exactly one target"),
        ({}, ["a"], None, "'a': exactly one target"),
        ({}, ["a:ratio=2,psnr=3"], None, "psnr and ratio are both targets"),
        ({}, ["a:rati=2"], None, "no setting 'rati'; there are ratio"),
        ({}, ["a:max_error=1,max_error=2"], None, "'?-*max.error'? is given twice"),
        ({}, ["a:max_error=1,exact=[0,1]"], None, "'1\\]' has no value"),
        ({}, ["a:ratio="], None, "'ratio' has no value"),
        ({}, ["a:ratio=x"], None, "'a': ratio must be a number, got 'x'"),
        ({}, ["a:ratio=5", "a:seed=1"], None, "names 'a' twice"),
        ({}, ["ratio=5"], None, "NAME:SETTING=VALUE"),
        ({}, [":ratio=5"], None, "NAME:SETTING=VALUE"),
        ({}, None, "ratio = ", "is no TOML file"),
        ({}, None, "rati = 5", "no setting 'rati'"),
        ({}, None, "ratio = 5\npsnr = 5", "both targets"),
        ({}, None, "[variables.a]\nrati = 5", "variable 'a': there is no setting"),
        ({}, None, "[variables.a]\nratio = 0.5", "'a': ratio must lie in"),
        ({}, None, "[variables]\na = 'lossy'", "a takes settings or 'lossless'"),
        ({}, None, "variables = 3", "a table for each variable"),
    ],
)
def test_what_is_refused(file, options, var, text, message):
    with pytest.raises(MoECError, match=message):
        codecs_of(options, var, text and file(text))


def test_conversion_with_settings_of_each(run, source, tmp_path, scheduler, file):
    path = file("effort = 'fast'\nratio = 2\n[variables.b]\nratio = 1.5")
    arguments = ("convert", source, tmp_path / "d.zarr", "--settings", path, *QUICK[-2:])
    code, out, _ = run(*arguments, "--dry-run", "--json")
    planned = json.loads(out)["variables"]
    assert code == 0
    assert {name: each["codec"] for name, each in planned.items()} == {
        "a": {"ratio": 2, "effort": "fast"},
        "b": {"ratio": 1.5, "effort": "fast"},
        "quality": None,
    }
    code, out, _ = run(*arguments, "--scheduler", scheduler, "--var", "b:ratio=1.25", "--json")
    assert code == 0
    assert {name: each["codec"]["ratio"] for name, each in json.loads(out)["variables"].items()} == {
        "b": 1.25
    }
    code, _, err = run(*arguments, "--var", "wind:ratio=3")
    assert code == 2
    assert "'wind' is not a data variable" in err.splitlines()[-1]
    code, _, err = run(*arguments[:4], tmp_path / "absent.toml")
    assert code == 2
    assert "absent.toml" in err
