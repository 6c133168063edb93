# SPDX-License-Identifier: Apache-2.0
"""ModelInferRequest to bytes and bytes to InferResult.

Tensors are the last field of both messages, so protobuf handles what comes before them and the tensors themselves are
written from and viewed in the message's own bytes: one copy to send, none to receive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from gristmill_protos import inference_pb2 as pb

from gristmill_client import datatypes
from gristmill_client.datatypes import Array
from gristmill_client.errors import Internal, InvalidArgument

Parameter = bool | int | float | str
Parameters = Mapping[str, Parameter]

_LENGTH_DELIMITED = 2
_FIXED_BYTES = {1: 8, 5: 4}
_RAW_INPUT_KEY = bytes([pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | _LENGTH_DELIMITED])
_RAW_OUTPUT_KEY = pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3 | _LENGTH_DELIMITED
_TYPED_FIELDS = (
    "bool_contents",
    "int_contents",
    "int64_contents",
    "uint_contents",
    "uint64_contents",
    "fp32_contents",
    "fp64_contents",
)


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """What a request says besides its inputs. version: a number, an alias, or "". outputs: None means all."""

    version: str = ""
    outputs: Sequence[str] | None = None
    parameters: Parameters | None = None
    request_id: str = ""


class InferResult(Mapping[str, Array]):
    """The outputs by name, in the server's order; read-only arrays that share the memory of the answer.

    BYTES outputs are object arrays of bytes. `array.copy()` makes one that may be written to.
    """

    def __init__(self, message: pb.ModelInferResponse, arrays: dict[str, Array]) -> None:
        """Made by `decode_response`."""
        self.model_name = message.model_name
        self.model_version = message.model_version
        self.id = message.id
        self.parameters: dict[str, Parameter] = {
            name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
            for name, value in message.parameters.items()
        }
        self._arrays = arrays

    def __getitem__(self, name: str) -> Array:
        """The output of that name. Raises KeyError with the names there are."""
        try:
            return self._arrays[name]
        except KeyError:
            raise KeyError(f"no output {name!r}; the answer has {', '.join(self._arrays) or 'none'}") from None

    def __contains__(self, name: object) -> bool:
        """Whether there is an output of that name."""
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        """The names of the outputs."""
        return iter(self._arrays)

    def __len__(self) -> int:
        """How many outputs there are."""
        return len(self._arrays)

    def __repr__(self) -> str:
        """Model, version, and the type and shape of each output."""
        outputs = ", ".join(f"{name}: {array.dtype}{list(array.shape)}" for name, array in self.items())
        return f"InferResult({self.model_name!r} version {self.model_version!r}, {outputs})"


def encode_request(model: str, inputs: Mapping[str, Array], options: RequestOptions) -> bytes:
    """The serialised ModelInferRequest, tensors as raw contents.

    Raises InvalidArgument for what is not an array, and for an element type the protocol lacks.
    """
    message = pb.ModelInferRequest(model_name=model, model_version=options.version, id=options.request_id)
    for name, value in (options.parameters or {}).items():
        _set_parameter(message.parameters[name], name, value, model)
    raw: list[datatypes.Bytes] = []
    for name, array in inputs.items():
        if not isinstance(array, np.ndarray):
            raise InvalidArgument(
                f"input {name!r} of model {model!r}: expected a numpy array, got {type(array).__name__}; "
                "wrap it as numpy.asarray(value, dtype)",
                model=model,
            )
        try:
            datatype, content = datatypes.datatype_of(array.dtype), datatypes.encode(array)
        except ValueError as error:
            raise InvalidArgument(f"input {name!r} of model {model!r}: {error}", model=model) from None
        message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        raw += (_RAW_INPUT_KEY, _varint(len(content)), content)
    for name in options.outputs or ():
        message.outputs.add(name=name)
    return b"".join((message.SerializeToString(), *raw))


def decode_response(data: bytes, model: str) -> InferResult:
    """The outputs as views on `data`. Raises Internal if it is not a whole ModelInferResponse."""
    try:
        header, raw = _split_raw_outputs(data)
        message = pb.ModelInferResponse.FromString(header)
        if raw and len(raw) != len(message.outputs):
            raise ValueError(f"{len(message.outputs)} outputs but {len(raw)} raw contents")
        arrays = {
            output.name: datatypes.decode(raw[index], output.datatype, output.shape) if raw else _typed(output)
            for index, output in enumerate(message.outputs)
        }
    except (DecodeError, ValueError, IndexError) as error:
        raise Internal(f"the answer of model {model!r} cannot be read: {error}", model=model) from error
    return InferResult(message, arrays)


def _set_parameter(target: pb.InferParameter, name: str, value: object, model: str) -> None:
    # bool first: it is an int, too.
    for kind, field in ((bool, "bool_param"), (int, "int64_param"), (float, "double_param"), (str, "string_param")):
        if isinstance(value, kind):
            try:
                setattr(target, field, value)
            except ValueError:
                raise InvalidArgument(f"parameter {name!r}: {value} does not fit in 64 bits", model=model) from None
            return
    raise InvalidArgument(
        f"parameter {name!r}: expected bool, int, float or str, got {type(value).__name__}", model=model
    )


def _split_raw_outputs(data: bytes) -> tuple[bytes, list[memoryview]]:
    """The message without its raw_output_contents, and those as views. Raises IndexError or ValueError if cut short."""
    view = memoryview(data)
    header: list[memoryview] = []
    raw: list[memoryview] = []
    offset = 0
    while offset < len(data):
        start = offset
        key, offset = _read_varint(data, offset)
        wire_type = key & 7
        if wire_type == _LENGTH_DELIMITED:
            length, offset = _read_varint(data, offset)
            end = offset + length
        elif wire_type in _FIXED_BYTES:
            end = offset + _FIXED_BYTES[wire_type]
        elif wire_type == 0:
            end = _read_varint(data, offset)[1]
        else:
            raise ValueError(f"wire type {wire_type} at byte {start}")
        if end > len(data):
            raise ValueError(f"it ends at byte {len(data)} of at least {end}")
        if key == _RAW_OUTPUT_KEY:
            raw.append(view[offset:end])
        else:
            header.append(view[start:end])
        offset = end
    return b"".join(header), raw


def _typed(output: pb.ModelInferResponse.InferOutputTensor) -> Array:
    """An output that carries its elements as typed contents."""
    if output.datatype == datatypes.BYTES:
        elements = list(output.contents.bytes_contents)
        array = np.empty(len(elements), object)
        array[:] = elements
    else:
        values: Sequence[Any] = next(filter(len, (getattr(output.contents, field) for field in _TYPED_FIELDS)), ())
        array = np.array(values, datatypes.dtype_of(output.datatype))
    array = array.reshape(tuple(output.shape))
    array.flags.writeable = False
    return array


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, offset: int) -> tuple[int, int]:
    """The number and the offset behind it. Raises IndexError at the end of the data."""
    value = shift = 0
    while True:
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
        shift += 7
        if shift > 63:
            raise ValueError(f"a varint of more than 10 bytes at byte {offset}")
