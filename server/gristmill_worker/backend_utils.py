# SPDX-License-Identifier: Apache-2.0
"""What model.py imports as `triton_python_backend_utils`: the names that models written for Triton use."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill_worker.tensors import BF16, BYTES, DATATYPES, Array, datatype_of, encode_elements

if TYPE_CHECKING:
    from gristmill_worker.worker import Worker

TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2
TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
TRITONSERVER_REQUEST_RELEASE_ALL = 1

_TYPES = {f"TYPE_{name}": dtype for name, dtype in DATATYPES if dtype is not None and name != "BF16"}
_TYPES["TYPE_STRING"] = _TYPES.pop("TYPE_BYTES")

# The one worker of this process, for requests that a model makes.
_worker: Worker | None = None


class TritonModelException(Exception):
    """Raised by a model, or for it."""


class TritonError:
    """Why a request has failed. `code` is one of the class's constants, which are gRPC's numbers."""

    UNKNOWN = 2
    INTERNAL = 13
    NOT_FOUND = 5
    INVALID_ARG = 3
    UNAVAILABLE = 14
    UNSUPPORTED = 12
    ALREADY_EXISTS = 6
    CANCELLED = 1

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        """`message` is for the caller."""
        self._message = str(message)
        self._code = code

    def message(self) -> str:
        """What to tell the caller."""
        return self._message

    def code(self) -> int:
        """As given."""
        return self._code

    def __str__(self) -> str:
        """The message."""
        return self._message


class Tensor:
    """A named array."""

    def __init__(self, name: str, array: Array, datatype: int | None = None) -> None:
        """Raises TypeError for an array that cannot be a tensor. `datatype` is only for what the server sends."""
        if not isinstance(array, np.ndarray):
            raise TypeError(f"tensor '{name}': expected a numpy array, got {type(array).__name__}")
        self._name = name
        self._array = array
        self._datatype = datatype_of(array) if datatype is None else datatype

    def name(self) -> str:
        """The tensor's name."""
        return self._name

    def as_numpy(self) -> Array:
        """The array. What a request brings is valid until execute returns (not so for decoupled models): copy to keep.

        BF16 tensors are the bits of their elements, as uint16.
        """
        return self._array

    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return tuple(self._array.shape)

    def triton_dtype(self) -> str:
        """E.g. "TYPE_FP32"."""
        return "TYPE_STRING" if self._datatype == BYTES else f"TYPE_{DATATYPES[self._datatype][0]}"

    def is_cpu(self) -> bool:
        """Always."""
        return True

    def __dlpack__(self, **arguments: Any) -> Any:
        """As numpy's."""
        if self._datatype == BF16:
            raise TypeError(f"tensor '{self._name}': BF16 has no DLPack form here")
        return self._array.__dlpack__(**arguments)

    def __dlpack_device__(self) -> Any:
        """As numpy's."""
        return self._array.__dlpack_device__()

    def to_dlpack(self) -> Any:
        """A capsule."""
        return self.__dlpack__()

    @staticmethod
    def from_dlpack(name: str, tensor: Any) -> Tensor:
        """From anything that has __dlpack__."""
        return Tensor(name, np.from_dlpack(tensor))


class InferenceResponse:
    """An answer to one request: tensors, or an error."""

    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None) -> None:
        """With an `error` the tensors are not sent."""
        self._outputs = list(output_tensors)
        if error is not None and not isinstance(error, TritonError):
            error = TritonError(str(error))
        self._error = error

    def output_tensors(self) -> list[Tensor]:
        """As given."""
        return self._outputs

    def has_error(self) -> bool:
        """Whether it is an error."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """The error."""
        return self._error


class InferenceRequest:
    """A request: one that execute is given, or one that a model makes of another."""

    def __init__(
        self,
        model_name: str = "",
        requested_output_names: Sequence[str] = (),
        inputs: Sequence[Tensor] = (),
        request_id: str = "",
        correlation_id: int | str = 0,
        model_version: int = -1,
        flags: int = 0,
        timeout: int = 0,
        priority: int = 0,
    ) -> None:
        """`timeout` is in microseconds. As in Triton, `model_version` -1 is the newest."""
        self._model_name = model_name
        self._outputs = list(requested_output_names)
        self._inputs = list(inputs)
        self._id = request_id
        self._correlation_id = correlation_id
        self._version = model_version
        self._flags = flags
        self._timeout = timeout
        self._priority = priority
        self._sender: InferenceResponseSender | None = None

    def inputs(self) -> list[Tensor]:
        """All tensors."""
        return self._inputs

    def request_id(self) -> str:
        """As the caller has set it."""
        return self._id

    def correlation_id(self) -> int | str:
        """Of the sequence; 0 for none."""
        return self._correlation_id

    def requested_output_names(self) -> list[str]:
        """What the caller wants."""
        return self._outputs

    def model_name(self) -> str:
        """Of the model that is asked."""
        return self._model_name

    def model_version(self) -> int:
        """Of the model that is asked."""
        return self._version

    def flags(self) -> int:
        """Of the sequence: TRITONSERVER_REQUEST_FLAG_SEQUENCE_START and …_END."""
        return self._flags

    def set_flags(self, flags: int) -> None:
        """See flags."""
        self._flags = flags

    def timeout(self) -> int:
        """In microseconds; 0 for none."""
        return self._timeout

    def priority(self) -> int:
        """1 is the most urgent; 0 is the model's default."""
        return self._priority

    def is_cancelled(self) -> bool:
        """Whether nobody waits for answers any more. Only of requests of decoupled models."""
        return self._sender is not None and self._sender.is_cancelled()

    def get_response_sender(self) -> InferenceResponseSender:
        """Where a decoupled model sends its answers."""
        if self._sender is None:
            raise TritonModelException("only requests of decoupled models have a response sender")
        return self._sender

    def exec(self, decoupled: bool = False) -> InferenceResponse:
        """Ask the model and wait. Failures are in the response."""
        return _the_worker().call(self._refuse_decoupled(decoupled)).wait()

    async def async_exec(self, decoupled: bool = False) -> InferenceResponse:
        """The same for `async def execute`."""
        return await _the_worker().call(self._refuse_decoupled(decoupled)).wait_async()

    def _refuse_decoupled(self, decoupled: bool) -> InferenceRequest:
        if decoupled:
            raise TritonModelException("models that answer any number of times cannot be called from a model")
        return self


class InferenceResponseSender:
    """Sends the answers to one request of a decoupled model, by any thread, also after execute has returned."""

    def __init__(self, worker: Worker, ticket: int) -> None:
        """Of one request."""
        self._worker = worker
        self._ticket = ticket
        self._is_closed = False

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """An answer, with TRITONSERVER_RESPONSE_COMPLETE_FINAL if it is the last; or this alone, after the last."""
        if self._is_closed:
            raise TritonModelException("nothing can be sent after the final response")
        if response is None and not flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL:
            raise TritonModelException("expected a response, or TRITONSERVER_RESPONSE_COMPLETE_FINAL in flags")
        is_last = bool(flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        self._worker.stream(self._ticket, response, is_last)
        self._is_closed = is_last

    def is_cancelled(self) -> bool:
        """Whether nobody waits for answers any more."""
        return self._worker.is_cancelled(self._ticket)


class ModelConfig:
    """What auto_complete_config is given and returns. Texts of types as in config.pbtxt: "TYPE_FP32"."""

    def __init__(self, config: dict[str, Any]) -> None:
        """As `as_dict`."""
        self._config = config

    def as_dict(self) -> dict[str, Any]:
        """The whole configuration."""
        return self._config

    def add_input(self, tensor: dict[str, Any]) -> None:
        """{"name", "data_type", "dims"}; completes one of this name."""
        self._add("input", tensor)

    def add_output(self, tensor: dict[str, Any]) -> None:
        """As add_input."""
        self._add("output", tensor)

    def set_max_batch_size(self, size: int) -> None:
        """0 is a model without a batch dimension."""
        self._config["max_batch_size"] = size

    def set_dynamic_batching(self) -> None:
        """Have the server combine requests."""
        self._config.setdefault("dynamic_batching", {})

    def set_model_transaction_policy(self, policy: dict[str, Any]) -> None:
        """{"decoupled": bool}."""
        self._config["model_transaction_policy"] = policy

    def _add(self, kind: str, tensor: dict[str, Any]) -> None:
        missing = {"name", "data_type", "dims"} - tensor.keys()
        if missing:
            raise ValueError(f"{kind} {tensor}: expected name, data_type and dims")
        tensors = self._config.setdefault(kind, [])
        for known in tensors:
            if known["name"] == tensor["name"]:
                known.update(tensor)
                return
        tensors.append(dict(tensor))


class Logger:
    """Lines in the server's log, with the model's name."""

    INFO, WARNING, ERROR, VERBOSE = "INFO", "WARNING", "ERROR", "VERBOSE"

    @staticmethod
    def log(message: object, level: str = INFO) -> None:
        """One line."""
        print(f"{level}: {message}", file=sys.stderr, flush=True)

    @staticmethod
    def log_info(message: object) -> None:
        """One line."""
        Logger.log(message, Logger.INFO)

    @staticmethod
    def log_warn(message: object) -> None:
        """One line."""
        Logger.log(message, Logger.WARNING)

    @staticmethod
    def log_error(message: object) -> None:
        """One line."""
        Logger.log(message, Logger.ERROR)

    @staticmethod
    def log_verbose(message: object) -> None:
        """One line."""
        Logger.log(message, Logger.VERBOSE)


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    """None if there is none."""
    return next((tensor for tensor in request.inputs() if tensor.name() == name), None)


def get_output_tensor_by_name(response: InferenceResponse, name: str) -> Tensor | None:
    """None if there is none."""
    return next((tensor for tensor in response.output_tensors() if tensor.name() == name), None)


def get_input_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """From json.loads(args["model_config"]); None if there is none."""
    return next((tensor for tensor in model_config.get("input", ()) if tensor["name"] == name), None)


def get_output_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """As get_input_config_by_name."""
    return next((tensor for tensor in model_config.get("output", ()) if tensor["name"] == name), None)


def using_decoupled_model_transaction_policy(model_config: dict[str, Any]) -> bool:
    """From json.loads(args["model_config"])."""
    return bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))


def triton_string_to_numpy(data_type: str) -> Any:
    """numpy's type of "TYPE_FP32" and the like; None for one that numpy has not."""
    return _TYPES.get(data_type)


def numpy_to_triton_type(data_type: Any) -> int:
    """The number of a type of numpy."""
    return datatype_of(np.empty(0, data_type))


def triton_to_numpy_type(number: int) -> Any:
    """The reverse."""
    return DATATYPES[number][1]


def get_model_dir() -> str:
    """The version's directory."""
    return str(_the_worker().directory)


def serialize_byte_tensor(array: Array) -> Array:
    """As tritonclient.utils has it: the elements with their lengths, as one object."""
    return np.asarray(encode_elements(array), dtype=np.object_)


def deserialize_bytes_tensor(encoded: bytes) -> Array:
    """The reverse, flat."""
    elements = []
    at = 0
    while at < len(encoded):
        length = int.from_bytes(encoded[at : at + 4], "little")
        elements.append(encoded[at + 4 : at + 4 + length])
        at += 4 + length
    array = np.empty(len(elements), dtype=np.object_)
    array[:] = elements
    return array


def _the_worker() -> Worker:
    if _worker is None:
        raise TritonModelException("this works only while the model is being served")
    return _worker
