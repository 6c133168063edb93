# SPDX-License-Identifier: Apache-2.0
"""Models in Python for the tests, in the style that Triton's users write."""

from __future__ import annotations

from pathlib import Path

#: What most of them begin with.
HEAD = """
import asyncio
import json
import os
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils
"""


def write_python(repository: Path, name: str, body: str, config: str = "", version: int = 1) -> Path:
    """Publish a model.py by renaming it into place; returns the version's directory."""
    model = repository / name
    staging = model / f".staging-{version}"
    staging.mkdir(parents=True)
    (staging / "model.py").write_text(HEAD + body)
    if config:
        (model / "config.pbtxt").write_text(config)
    return staging.rename(model / str(version))


def config(inputs: str, outputs: str, more: str = "", max_batch_size: int = 8) -> str:
    """`inputs` and `outputs` as "NAME TYPE DIMS; …"."""

    def tensors(kind: str, text: str) -> str:
        parts = [part.split() for part in text.split(";") if part.strip()]
        return " ".join(
            f'{kind} {{ name: "{name}" data_type: TYPE_{data_type} dims: [ {", ".join(dims)} ] }}'
            for name, data_type, *dims in parts
        )

    return (
        f'backend: "python" max_batch_size: {max_batch_size} {tensors("input", inputs)} {tensors("output", outputs)} '
        + more
    )
