# SPDX-License-Identifier: Apache-2.0
"""The commands that talk to a running server: `models`, `infer` and `bench`. The server's command mounts them."""

from __future__ import annotations

import typer

from gristmill_client.cli.bench import bench
from gristmill_client.cli.infer import infer
from gristmill_client.cli.models import models


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.add_typer(models, name="models")
    app.command()(infer)
    app.command()(bench)
