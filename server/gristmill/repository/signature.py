# SPDX-License-Identifier: Apache-2.0
"""Tensors as a model file declares them, and the two names of their types: the protocol's and the configuration's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gristmill_protos.model_config_pb2 import DataType

from gristmill.repository.errors import ConfigError

PROTOCOL_NAMES = {
    DataType.TYPE_BOOL: "BOOL",
    DataType.TYPE_UINT8: "UINT8",
    DataType.TYPE_UINT16: "UINT16",
    DataType.TYPE_UINT32: "UINT32",
    DataType.TYPE_UINT64: "UINT64",
    DataType.TYPE_INT8: "INT8",
    DataType.TYPE_INT16: "INT16",
    DataType.TYPE_INT32: "INT32",
    DataType.TYPE_INT64: "INT64",
    DataType.TYPE_FP16: "FP16",
    DataType.TYPE_FP32: "FP32",
    DataType.TYPE_FP64: "FP64",
    DataType.TYPE_STRING: "BYTES",
    DataType.TYPE_BF16: "BF16",
}
DATA_TYPES = {name: data_type for data_type, name in PROTOCOL_NAMES.items()}


class Tensor(Protocol):
    """A tensor as declared: `datatype` is the protocol's name ("FP32"), -1 in `dims` is any size."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def datatype(self) -> str: ...  # noqa: D102
    @property
    def dims(self) -> Sequence[int]: ...  # noqa: D102


class Signature(Protocol):
    """What an opened model file says of itself; dims as in the file."""

    @property
    def inputs(self) -> Sequence[Tensor]: ...  # noqa: D102
    @property
    def outputs(self) -> Sequence[Tensor]: ...  # noqa: D102


def protocol_datatype(data_type: DataType) -> str:
    """The protocol's name of a DataType: "FP32" for TYPE_FP32, "BYTES" for TYPE_STRING."""
    return PROTOCOL_NAMES[data_type]


def config_datatype(datatype: str) -> DataType:
    """The DataType of a protocol's name. Raises ConfigError for one that the protocol cannot carry."""
    if datatype not in DATA_TYPES:
        raise ConfigError(f"the model file has a tensor of datatype {datatype}, which the protocol cannot carry")
    return DATA_TYPES[datatype]
