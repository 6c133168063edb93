# SPDX-License-Identifier: Apache-2.0
"""Ask the sample model `magika` what kinds of files these are.

python clients/python/examples/identify_file.py FILE...
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gristmill_client import Client, GristmillError

# The model sees the first and the last bytes of a file, without the white space around its content.
ENDS = 1024
PADDING = 256
# What the package magika reads from either end to find those bytes in.
BLOCK = 4096


def features(content: bytes) -> npt.NDArray[np.int32]:
    """The model's input for a file's bytes, of shape [2048]: the beginning, padded behind; the end, padded before."""
    row = np.full(2 * ENDS, PADDING, np.int32)
    first = content[:BLOCK].lstrip()[:ENDS]
    last = content[-BLOCK:].rstrip()[-ENDS:]
    row[: len(first)] = list(first)
    if last:
        row[-len(last) :] = list(last)
    return row


def newest_labels(model: Path) -> list[str]:
    """The labels beside the newest version of the model, in the order of its output."""
    versions = [path for path in model.iterdir() if path.name.isdigit()]
    return (max(versions, key=lambda path: int(path.name)) / "labels.txt").read_text().split()


def main() -> int:
    """Print a line per file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--url", default="localhost:8001", help="address of the server (%(default)s)")
    parser.add_argument(
        "--model-directory", type=Path, default=Path("model_repo/magika"), help="where the labels are (%(default)s)"
    )
    arguments = parser.parse_args()
    try:
        labels = newest_labels(arguments.model_directory)
        rows = np.stack([features(path.read_bytes()) for path in arguments.files])
        with Client(arguments.url) as client:
            (probabilities,) = client.infer("magika", rows).values()
    except (OSError, ValueError, GristmillError) as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 1
    for path, row in zip(arguments.files, probabilities, strict=True):
        print(f"{path}: {labels[row.argmax()]} ({row.max():.1%})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
