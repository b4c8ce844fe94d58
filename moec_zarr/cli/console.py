"""What all commands share: where they print, how they speak of errors, and common options."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

__all__ = [
    "AsJson",
    "Criteria",
    "Run",
    "StorageOption",
    "Variables",
    "Verbose",
    "complain",
    "err",
    "on_command_line",
    "out",
    "print_json",
    "say",
    "zarr_formats",
]

# A log or a pipe has no width of its own; tables there are never broken.
out, err = (
    Console(stderr=stderr, width=None if stream.isatty() else 200)
    for stderr, stream in ((False, sys.stdout), (True, sys.stderr))
)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for scripts.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more, and show tracebacks.")]
Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--var", metavar="NAME", help="Only this variable, or those that match, as '*/t2m'; may be repeated."
    ),
]

Criteria = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.TOML", help="Limits of the verdict, and those of some variables, as a TOML file."
    ),
]


def zarr_formats() -> list[str]:
    """List the values of --zarr-format, for the completion of a shell."""
    return ["2", "3"]


StorageOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Option of fsspec for URLs, such as endpoint_url=http://host:9000; may be repeated, or JSON.",
    ),
]

# Arguments in Python, and their options where these have other names.
_SPOKEN = {"variables": "--var", "client": "--scheduler"}
_ARGUMENTS = (
    "ratio psnr max_error max_relative_error scale exact missing effort model experts seed chunks shards "
    "workers zarr_format device"
)
_IN_PYTHON = re.compile(
    r"\w+\([^()]*\)"  # a call, such as the repr of a codec, is left as it is
    rf"|(?<![\w.:])(?P<name>{'|'.join([*_ARGUMENTS.split(), *_SPOKEN])})="
    r"(?:(?P<none>None\b)|(?P<value>(?=[^\s,;.)])))?"
)


class Run:
    """How much the running command says, beyond its result."""

    verbose = False


def say(verbose: bool) -> None:
    """Let the package's log be seen, and more of it where asked for."""
    Run.verbose = verbose
    logger = logging.getLogger("moec_zarr")
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False


def print_json(data: Any) -> None:
    """Print one JSON document on stdout; what no JSON number can be is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): plain(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(each) for each in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)

    print(json.dumps(plain(data), indent=1))


def complain(text: str) -> None:
    """Print one line of an error."""
    print(f"error: {text}", file=sys.stderr)


def on_command_line(text: str) -> str:
    """Return a message that was written for Python, in the words of the command line.

    ``ratio=200`` becomes ``--ratio 200``, ``psnr=`` becomes ``--psnr``, ``psnr=None`` becomes ``no --psnr``.
    """
    text = text.replace("--overwrite (resume=False)", "--overwrite").replace("resume=False", "--overwrite")

    def option(match: re.Match[str]) -> str:
        if match["name"] is None:
            return match[0]
        spoken = _SPOKEN.get(match["name"], f"--{match['name'].replace('_', '-')}")
        if match["none"]:
            return f"no {spoken}"
        return spoken if match["value"] is None else f"{spoken} "

    return _IN_PYTHON.sub(option, text)
