# SPDX-License-Identifier: Apache-2.0
"""What a server says of itself and of its models, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from gristmill_protos import inference_pb2 as pb


@dataclass(frozen=True)
class ServerMetadata:
    """The server's name, its version and the protocol extensions it serves."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class TensorMetadata:
    """An input or output. shape: with the batch dimension where there is one; -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """As in `tokens INT32[-1, 2048]`."""
        return f"{self.name} {self.datatype}{list(self.shape)}"


@dataclass(frozen=True)
class ModelMetadata:
    """A model's versions that are served, its platform, and its tensors."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]

    @classmethod
    def of(cls, message: pb.ModelMetadataResponse) -> ModelMetadata:
        """From the server's answer."""
        inputs, outputs = (
            tuple(TensorMetadata(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in tensors)
            for tensors in (message.inputs, message.outputs)
        )
        return cls(message.name, tuple(message.versions), message.platform, inputs, outputs)


@dataclass(frozen=True)
class RepositoryEntry:
    """One version of a model in the repository. state: READY, LOADING, UNLOADING, UNAVAILABLE or ""; reason: why."""

    name: str
    version: str
    state: str
    reason: str
