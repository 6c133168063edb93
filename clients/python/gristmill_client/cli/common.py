# SPDX-License-Identifier: Apache-2.0
"""What the commands share: options, output forms, and exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console

from gristmill_client.errors import GristmillError, InvalidArgument, Unavailable

#: The server refused or failed.
EXIT_FAILED = 1
#: The command itself was wrong; also what typer uses.
EXIT_USAGE = 2
#: No connection, or a server or model that is not ready.
EXIT_UNAVAILABLE = 3


class OutputForm(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


Url = Annotated[str, typer.Option(help="Address of the server, host:port.")]
Output = Annotated[OutputForm, typer.Option("--output", "-o", help="Form of the result on standard output.")]
Version = Annotated[str, typer.Option("--version", help="Number or alias of the version; the newest if not given.")]
Timeout = Annotated[float, typer.Option(min=0.001, help="Seconds that a call may take.")]

DEFAULT_TIMEOUT_S = 30.0

#: Results; everything else goes to standard error.
console = Console(highlight=False)
progress_console = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Print a result for programs."""
    typer.echo(json.dumps(value, indent=2))


def fail(message: str, code: int) -> typer.Exit:
    """Write one line to standard error; raise what is returned."""
    typer.echo(f"gristmill: {message}", err=True)
    return typer.Exit(code)


@contextmanager
def errors_to_exit_codes() -> Iterator[None]:
    """Turn a client's error into one line and the exit code that stands for it."""
    try:
        yield
    except Unavailable as error:
        raise fail(str(error), EXIT_UNAVAILABLE) from None
    except InvalidArgument as error:
        raise fail(str(error), EXIT_USAGE) from None
    except GristmillError as error:
        raise fail(str(error), EXIT_FAILED) from None
