# SPDX-License-Identifier: Apache-2.0
"""Run the training scripts, the quickest first, and publish every sample model.

With --if-missing, a script whose models are there already, made from the same code, package versions and options, is
passed over without importing it.
"""

from __future__ import annotations

import importlib

from training.catalogue import SCRIPTS
from training.command import Reporter, Train, clear_errors, make_parser, make_progress, report
from training.provenance import Options, is_published, origin_of
from training.publish import PublishedVersion


def main() -> None:
    """Run from the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, metavar="NAME", help=f"of {', '.join(SCRIPTS)}")
    arguments = parser.parse_args()
    options = Options(arguments.repository, arguments.seed, arguments.quick)
    wanted = [script for name, script in SCRIPTS.items() if name in (arguments.only or SCRIPTS)]
    with clear_errors():
        if arguments.if_missing:
            wanted = [script for script in wanted if not is_published(script, options)]
        for script in wanted:
            origin_of(script, options)  # a missing package ends this before, not after, minutes of training
        if not wanted:
            return
        published: list[PublishedVersion] = []
        with make_progress() as progress:
            for script in progress.track(wanted, description="all scripts"):
                reporter = Reporter(progress, script.name)
                with reporter.stage("import"):
                    train: Train = importlib.import_module(f"training.{script.name}").train
                published += train(options, reporter)
        report(published)


if __name__ == "__main__":
    main()
