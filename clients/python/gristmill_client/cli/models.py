# SPDX-License-Identifier: Apache-2.0
"""`gristmill models`: what the server serves, and loading and unloading."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from gristmill_client.cli.common import (
    DEFAULT_TIMEOUT_S,
    Output,
    OutputForm,
    Timeout,
    Url,
    console,
    errors_to_exit_codes,
    print_json,
)
from gristmill_client.options import DEFAULT_URL
from gristmill_client.sync_client import Client

models = typer.Typer(no_args_is_help=True, help="List, load and unload the models of a server.")

Model = Annotated[str, typer.Argument(help="Name of the model.")]


@models.command("list")
def list_models(
    url: Url = DEFAULT_URL, timeout: Timeout = DEFAULT_TIMEOUT_S, output: Output = OutputForm.TABLE
) -> None:
    """List the models of the repository with their versions and states."""
    with errors_to_exit_codes(), Client(url) as client:
        entries = client.models(timeout=timeout)
    if output is OutputForm.JSON:
        print_json([asdict(entry) for entry in entries])
        return
    table = Table("Model", "Version", "State", "Reason")
    for entry in entries:
        style = "green" if entry.state == "READY" else "red"
        table.add_row(entry.name, entry.version, f"[{style}]{entry.state}[/]", escape(entry.reason))
    console.print(table)


@models.command()
def load(model: Model, url: Url = DEFAULT_URL, timeout: Timeout = DEFAULT_TIMEOUT_S) -> None:
    """Load a model, or load it again; for servers in explicit mode."""
    with errors_to_exit_codes(), Client(url) as client:
        client.load_model(model, timeout=timeout)
    typer.echo(f"loaded {model}")


@models.command()
def unload(model: Model, url: Url = DEFAULT_URL, timeout: Timeout = DEFAULT_TIMEOUT_S) -> None:
    """Unload a model once it has answered what it admitted; for servers in explicit mode."""
    with errors_to_exit_codes(), Client(url) as client:
        client.unload_model(model, timeout=timeout)
    typer.echo(f"unloaded {model}")
