"""What of the pages mkdocs has to ask the code for."""

from __future__ import annotations

from typing import Any

import typer
from typer.cli import get_docs_for_click

_COMMANDS = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the help of every command in the place of its mark."""
    return markdown.replace(_COMMANDS, _help_of_commands()) if _COMMANDS in markdown else markdown


def _help_of_commands() -> str:
    from moec_zarr.cli.commands import app

    command = typer.main.get_command(app)
    with typer.Context(command, info_name="moec-zarr") as context:
        text = get_docs_for_click(obj=command, ctx=context, name="moec-zarr")
    return text.partition("\n")[2]  # the page has a title of its own
