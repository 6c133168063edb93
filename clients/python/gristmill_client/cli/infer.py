# SPDX-License-Identifier: Apache-2.0
"""`gristmill infer`: one prediction."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from gristmill_client import datatypes
from gristmill_client.cli.arrays import make_inputs, parse_inputs, parse_shapes
from gristmill_client.cli.common import (
    DEFAULT_TIMEOUT_S,
    Output,
    OutputForm,
    Timeout,
    Url,
    Version,
    console,
    errors_to_exit_codes,
    print_json,
)
from gristmill_client.codec import InferResult
from gristmill_client.datatypes import Array
from gristmill_client.errors import InvalidArgument
from gristmill_client.options import DEFAULT_URL
from gristmill_client.sync_client import Client


def infer(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="NAME=VALUE (JSON) or NAME=@FILE.npy; once for each input.")
    ] = None,
    random: Annotated[bool, typer.Option("--random", help="Make up the inputs that are not given.")] = False,
    shape: Annotated[
        list[str] | None, typer.Option(help="NAME:DIM,... of an input with open dimensions, for --random.")
    ] = None,
    version: Version = "",
    url: Url = DEFAULT_URL,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    output: Output = OutputForm.TABLE,
) -> None:
    """Ask a model for one prediction and print its outputs."""
    with errors_to_exit_codes(), Client(url) as client:
        metadata = client.model_metadata(model, version, timeout=timeout)
        arrays = parse_inputs(inputs or (), metadata)
        if random:
            arrays = make_inputs(metadata, 1, parse_shapes(shape or ())) | arrays
        missing = [str(tensor) for tensor in metadata.inputs if tensor.name not in arrays]
        if missing:
            raise InvalidArgument(f"no value for {', '.join(missing)}; give --input for each, or --random", model=model)
        result = client.infer(model, arrays, version=version, timeout=timeout)
    if output is OutputForm.JSON:
        print_json(_as_json(result))
    else:
        _print_table(result)


def _as_json(result: InferResult) -> dict[str, object]:
    return {
        "model": result.model_name,
        "version": result.model_version,
        "outputs": {
            name: {
                "datatype": datatypes.datatype_of(array.dtype),
                "shape": list(array.shape),
                "data": _texts(array).tolist(),
            }
            for name, array in result.items()
        },
    }


def _texts(array: Array) -> Array:
    """BYTES as text, which JSON and people can read."""
    if array.dtype != object:
        return array
    texts = np.empty(array.shape, object)
    texts.reshape(-1)[:] = [element.decode(errors="backslashreplace") for element in array.reshape(-1)]
    return texts


def _print_table(result: InferResult) -> None:
    table = Table("Output", "Datatype", "Shape", "Values", title=f"{result.model_name} version {result.model_version}")
    for name, array in result.items():
        values = np.array2string(_texts(array), threshold=8, edgeitems=3, precision=5)
        table.add_row(name, datatypes.datatype_of(array.dtype), str(list(array.shape)), values)
    console.print(table)
