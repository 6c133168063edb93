# SPDX-License-Identifier: Apache-2.0
"""The command line that all training scripts share: options, progress bars, and a line per published version."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from training.catalogue import SCRIPTS
from training.provenance import MissingPackageError, Options, is_published
from training.publish.errors import PublishError
from training.publish.publisher import PublishedVersion

Item = TypeVar("Item")


class Reporter:
    """Shows one script's progress, below that of others if it is one of several."""

    def __init__(self, progress: Progress, script: str) -> None:
        """Report under the script's name."""
        self._progress = progress
        self._script = script

    def track(self, items: Sequence[Item], description: str) -> Iterable[Item]:
        """Yield the items and move a bar."""
        return self._progress.track(items, description=f"{self._script}: {description}")

    @contextlib.contextmanager
    def stage(self, description: str) -> Iterator[None]:
        """Show that a step of unknown length is under way."""
        task = self._progress.add_task(f"{self._script}: {description}", total=None)
        yield
        self._progress.update(task, total=1, completed=1)


#: What each script's `train` is: trains, evaluates, publishes, and returns what it has published.
Train = Callable[[Options, Reporter], Sequence[PublishedVersion]]


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """The options of all scripts."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repository", type=Path, required=True, metavar="DIR", help="model repository to publish into"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--quick", action="store_true", help="train on less, for a test of the whole way")
    parser.add_argument(
        "--if-missing",
        action="store_true",
        help="do nothing if the newest version came from the same code, package versions and options",
    )
    return parser


def make_progress() -> Progress:
    """Progress bars on the standard error stream, so that the standard output has results alone."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


def report(versions: Sequence[PublishedVersion]) -> None:
    """Print one line per version: model, number and directory."""
    for published in versions:
        sys.stdout.write(f"published {published.model} version {published.version} in {published.path}\n")


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Turn what a user can mend into one line on the standard error stream and exit status 1."""
    try:
        yield
    except (PublishError, MissingPackageError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


def main(script: str, train: Train, description: str | None) -> None:
    """Run one script from the command line."""
    arguments = make_parser(description).parse_args()
    options = Options(arguments.repository, arguments.seed, arguments.quick)
    with clear_errors():
        if arguments.if_missing and is_published(SCRIPTS[script], options):
            return
        with make_progress() as progress:
            versions = train(options, Reporter(progress, script))
        report(versions)
