# SPDX-License-Identifier: Apache-2.0
"""Input arrays from the command line and from a model's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gristmill_client import datatypes
from gristmill_client.datatypes import Array
from gristmill_client.errors import InvalidArgument
from gristmill_client.models import ModelMetadata, TensorMetadata

Shapes = Mapping[str, tuple[int, ...]]


def parse_inputs(words: Sequence[str], metadata: ModelMetadata) -> dict[str, Array]:
    """Arrays from NAME=VALUE (JSON, or plain text for BYTES) and NAME=@FILE.npy.

    A value with one dimension less than the input is taken as one row. Raises InvalidArgument.
    """
    tensors = {tensor.name: tensor for tensor in metadata.inputs}
    arrays = {}
    for word in words:
        name, separator, text = word.partition("=")
        if not separator:
            raise InvalidArgument(f"--input {word!r}: expected NAME=VALUE or NAME=@FILE.npy", model=metadata.name)
        if name not in tensors:
            inputs = ", ".join(map(str, metadata.inputs))
            raise InvalidArgument(f"--input {name!r}: the inputs are {inputs}", model=metadata.name)
        arrays[name] = _load(text[1:], name) if text.startswith("@") else _parse(text, tensors[name])
    return arrays


def make_inputs(metadata: ModelMetadata, batch_size: int, shapes: Shapes, *, zero: bool = False) -> dict[str, Array]:
    """Random (seeded) or zero arrays of `batch_size` rows for every input.

    shapes: without the batch dimension, for inputs with open dimensions. Raises InvalidArgument if one is wanting.
    """
    random = np.random.default_rng(0)
    arrays = {}
    for tensor in metadata.inputs:
        shape = _full_shape(tensor, batch_size, shapes.get(tensor.name))
        dtype = datatypes.dtype_of(tensor.datatype)
        if tensor.datatype == datatypes.BYTES:
            arrays[tensor.name] = np.full(shape, b"" if zero else b"gristmill", object)
        elif zero:
            arrays[tensor.name] = np.zeros(shape, dtype)
        elif dtype.kind in "iu":
            # Small numbers are valid indices and bytes for most models.
            arrays[tensor.name] = random.integers(1, 100, shape).astype(dtype)
        elif dtype.kind == "b":
            arrays[tensor.name] = random.integers(0, 2, shape).astype(dtype)
        else:
            arrays[tensor.name] = random.random(shape).astype(dtype)
    return arrays


def parse_shapes(words: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes from NAME:2,3. Raises InvalidArgument."""
    shapes = {}
    for word in words:
        name, _, dims = word.rpartition(":")
        try:
            shapes[name] = tuple(int(dim) for dim in dims.split(","))
        except ValueError:
            raise InvalidArgument(f"--shape {word!r}: expected NAME:DIM,DIM,... as in image:3,224,224") from None
    return shapes


def load_npz(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file by input name; also of the expected.npz that published versions have."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive}
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{path}: cannot be read as .npz: {error}") from None
    prefix = "input."
    return {key.removeprefix(prefix): array for key, array in arrays.items() if not key.startswith("output.")}


def _load(path: str, name: str) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"--input {name!r}: {path} cannot be read as .npy: {error}") from None
    return array


def _parse(text: str, tensor: TensorMetadata) -> Array:
    is_text = tensor.datatype == datatypes.BYTES
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        if not is_text:
            raise InvalidArgument(f"--input {tensor.name!r}: expected JSON such as [[1, 2]], got {text!r}") from None
        value = text
    try:
        array = np.array(value, datatypes.dtype_of(tensor.datatype))
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidArgument(f"--input {tensor.name!r}: {text!r} is no array for {tensor}: {error}") from None
    while array.ndim < len(tensor.shape):
        array = array[np.newaxis]
    return array


def _full_shape(tensor: TensorMetadata, batch_size: int, given: tuple[int, ...] | None) -> tuple[int, ...]:
    has_batch = bool(tensor.shape) and tensor.shape[0] == -1
    declared = tensor.shape[1:] if has_batch else tensor.shape
    shape = declared if given is None else given
    fits = len(shape) == len(declared) and all(d in (-1, s) for d, s in zip(declared, shape, strict=True))
    if not fits or min(shape, default=0) < 0:
        raise InvalidArgument(
            f"input {tensor}: expected a shape for the dimensions that are -1, got {list(shape)}; "
            f"give one as --shape {tensor.name}:{','.join('8' if dim < 0 else str(dim) for dim in declared)}"
        )
    return (batch_size, *shape) if has_batch else shape
