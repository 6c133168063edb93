# SPDX-License-Identifier: Apache-2.0
"""Worker: a model's class between the server's messages.

One thread, the main one, runs the model. It receives messages itself, also while it waits for another model's answer;
a decoupled model has a thread for that, since its own threads may ask others after execute has returned.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import queue
import select
import sys
import threading
import traceback
import types
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TextIO

from gristmill_worker import backend_utils
from gristmill_worker.backend_utils import (
    InferenceRequest,
    InferenceResponse,
    InferenceResponseSender,
    ModelConfig,
    Tensor,
    TritonError,
    TritonModelException,
)
from gristmill_worker.channel import Channel, ServerGoneError
from gristmill_worker.messages import Kind, NoRoomError, Reader, Writer

_SOCKET, _INCOMING, _OUTGOING = 3, 4, 5

# The server must not be kept waiting for room in the socket.
_MOST_CALLS = 128

_OK, _INVALID_ARGUMENT, _RESOURCE_EXHAUSTED, _INTERNAL = 0, 3, 8, 13

_TRACEBACK_LINES = 6


class Call:
    """A call of another model, until it is answered."""

    def __init__(self, worker: Worker) -> None:
        """Not sent yet."""
        self._worker = worker
        self.answer: Future[InferenceResponse] = Future()

    def wait(self) -> InferenceResponse:
        """By the thread that has made it."""
        self._worker.receive_until(self.answer)
        return self.answer.result()

    async def wait_async(self) -> InferenceResponse:
        """In the loop that runs execute."""
        return await asyncio.wrap_future(self.answer)


class Worker:
    """See the module's text."""

    def __init__(self, channel: Channel, properties: dict[str, str]) -> None:
        """Raises whatever the model's module and its initialize raise."""
        self._channel = channel
        self.directory = Path(properties.pop("model_path")).parent
        config = json.loads(properties["model_config"])
        self._inputs = [tensor["name"] for tensor in config.get("input", ())]
        self._outputs = [tensor["name"] for tensor in config.get("output", ())]
        self._is_decoupled = backend_utils.using_decoupled_model_transaction_policy(config)
        channel.copies = self._is_decoupled
        self._name = properties["model_name"]
        self._calls: dict[int, Call] = {}
        self._next_call = 1
        self._call_room = threading.Semaphore(_MOST_CALLS)
        self._receiving = threading.Lock()
        self._lock = threading.Lock()
        self._streams: dict[int, bool] = {}  # open ones, and whether each is cancelled
        self._inbox: queue.SimpleQueue[list[InferenceRequest] | None] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        backend_utils._worker = self
        self._model = load_model_class(self.directory / "model.py")()
        self._is_finalized = self._is_gone = False
        self._is_async = inspect.iscoroutinefunction(getattr(self._model, "execute", None))
        if not callable(getattr(self._model, "execute", None)):
            raise TritonModelException("class TritonPythonModel has no method execute(self, requests)")
        if hasattr(self._model, "initialize"):
            self._model.initialize(properties)

    # ---- what the server sends ----

    def serve(self) -> None:
        """Run batches until the server has enough. Raises ServerGoneError."""
        if self._is_decoupled:
            _in_thread(self._receive_for_ever)
        while not self._is_finalized:
            requests = self._inbox.get() if self._is_decoupled else self._handle(*self._channel.receive())
            if requests is not None:
                self._execute(requests)
            elif self._is_gone:
                raise ServerGoneError
        if hasattr(self._model, "finalize"):
            self._model.finalize()

    def _receive_for_ever(self) -> None:
        try:
            while not self._is_finalized:
                requests = self._handle(*self._channel.receive())
                if requests is not None:
                    self._inbox.put(requests)
        except ServerGoneError:
            self._is_gone = True
        self._inbox.put(None)

    def receive_until(self, answer: Future[InferenceResponse]) -> None:
        """Take what the server sends until this is answered."""
        while not self._is_decoupled and not answer.done():
            with self._receiving:  # whoever has it receives for all
                if not answer.done():
                    self._handle(*self._channel.receive())

    def _handle(self, kind: Kind, body: Reader) -> list[InferenceRequest] | None:
        """Do what a message says; returns the requests that are to be executed."""
        requests = None
        if kind is Kind.EXECUTE:
            requests = self._read_requests(body)
        elif kind is Kind.FINALIZE:
            self._is_finalized = True
        elif kind is Kind.CANCEL:
            with self._lock:
                ticket = body.number("Q")
                if ticket in self._streams:
                    self._streams[ticket] = True
        elif kind is Kind.REPLY:
            number = body.number("Q")
            code, message = body.number("I"), body.text()
            outputs = [Tensor(body.text(), *body.tensor()) for _ in range(body.number("I"))]
            error = TritonError(message, code) if code else None
            self._call_room.release()
            self._calls.pop(number).answer.set_result(InferenceResponse(outputs, error))
        self._channel.have_read()
        return requests

    def _read_requests(self, body: Reader) -> list[InferenceRequest]:
        requests = []
        for _ in range(body.number("I")):
            ticket, request_id = body.number("Q"), body.text()
            sequence, sequence_name = body.number("Q"), body.text()
            flags, timeout, priority = body.get("BqQ")
            outputs = [self._outputs[body.number("I")] for _ in range(body.number("I"))]
            count = body.number("I")
            inputs = [Tensor(self._inputs[index], *body.tensor()) for index in range(count)]
            request = InferenceRequest(
                self._name, outputs, inputs, request_id, sequence_name or sequence, -1, flags, timeout, priority
            )
            if self._is_decoupled:
                with self._lock:
                    self._streams[ticket] = False
                request._sender = InferenceResponseSender(self, ticket)
            requests.append(request)
        return requests

    # ---- the model ----

    def _execute(self, requests: list[InferenceRequest]) -> None:
        try:
            if self._is_async:
                responses = self._loop.run_until_complete(self._execute_async(requests))
            else:
                responses = self._model.execute(requests)
            if self._is_decoupled:
                self._channel.send(Kind.ANSWERS, lambda writer: _put_status(writer, _OK, ""), releases=True)
            else:
                self._check(responses, len(requests))
                self._channel.send(Kind.ANSWERS, lambda writer: self._put_answers(writer, responses), releases=True)
        except ServerGoneError:
            raise
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            traceback.print_exc()
            code = _RESOURCE_EXHAUSTED if isinstance(error, (NoRoomError, MemoryError)) else _INTERNAL
            message = f"model '{self._name}' failed: {type(error).__name__}: {error}"
            self._channel.send(Kind.ANSWERS, lambda writer: _put_status(writer, code, message), releases=True)

    async def _execute_async(self, requests: list[InferenceRequest]) -> Any:
        if self._is_decoupled:
            return await self._model.execute(requests)
        self._loop.add_reader(self._channel.fileno(), lambda: self._handle(*self._channel.receive()))
        try:
            return await self._model.execute(requests)
        finally:
            self._loop.remove_reader(self._channel.fileno())

    def _check(self, responses: Any, expected: int) -> None:
        if not isinstance(responses, (list, tuple)) or len(responses) != expected:
            got = f"{len(responses)}" if isinstance(responses, (list, tuple)) else f"a {type(responses).__name__}"
            raise TritonModelException(
                f"execute was given {expected} requests and returned {got}, not as many responses"
            )
        for response in responses:
            if not isinstance(response, InferenceResponse):
                raise TritonModelException(f"execute returned a {type(response).__name__}, not an InferenceResponse")

    def _put_answers(self, writer: Writer, responses: list[InferenceResponse]) -> None:
        _put_status(writer, _OK, "")
        writer.put("I", len(responses))
        for response in responses:
            self._put_answer(writer, response)

    def _put_answer(self, writer: Writer, response: InferenceResponse | None) -> None:
        error = response.error() if response is not None else None
        if error is not None:
            _put_status(writer, error.code(), error.message())
            writer.put("I", 0)
            return
        outputs = response.output_tensors() if response is not None else []
        known = [tensor for tensor in outputs if tensor.name() in self._outputs]
        if len(known) < len(outputs):
            strange = next(tensor.name() for tensor in outputs if tensor.name() not in self._outputs)
            raise TritonModelException(f"an output '{strange}' is not in the configuration; it has {self._outputs}")
        _put_status(writer, _OK, "")
        writer.put("I", len(known))
        for tensor in known:
            writer.put("I", self._outputs.index(tensor.name()))
            writer.put_tensor(tensor.as_numpy())

    # ---- what the model sends ----

    def stream(self, ticket: int, response: InferenceResponse | None, is_last: bool) -> None:
        """An answer of a decoupled model."""

        def write(writer: Writer) -> None:
            writer.put("QB", ticket, is_last)
            self._put_answer(writer, response)

        self._channel.send(Kind.STREAM, write)
        if is_last:
            with self._lock:
                self._streams.pop(ticket, None)

    def is_cancelled(self, ticket: int) -> bool:
        """Whether nobody waits for the answers to a request any more."""
        with self._lock:
            return self._streams.get(ticket, True)

    def call(self, request: InferenceRequest) -> Call:
        """Ask another model."""
        while not self._call_room.acquire(blocking=self._is_decoupled):
            with self._receiving:
                self._handle(*self._channel.receive())
        call = Call(self)
        with self._lock:
            number, self._next_call = self._next_call, self._next_call + 1
            self._calls[number] = call

        def write(writer: Writer) -> None:
            sequence = request.correlation_id()
            writer.put("Q", number)
            writer.put_text(request.model_name())
            writer.put_text(str(request.model_version()) if request.model_version() > 0 else "")
            writer.put_text(request.request_id())
            writer.put("Q", 0 if isinstance(sequence, str) else sequence)
            writer.put_text(sequence if isinstance(sequence, str) else "")
            writer.put("BqQ", request.flags() & 3, request.timeout(), request.priority())
            writer.put("I", len(request.requested_output_names()))
            for name in request.requested_output_names():
                writer.put_text(name)
            writer.put("I", len(request.inputs()))
            for tensor in request.inputs():
                writer.put_text(tensor.name())
                writer.put_tensor(tensor.as_numpy())

        try:
            self._channel.send(Kind.CALL, write)
        except BaseException:
            with self._lock:
                self._calls.pop(number, None)
            self._call_room.release()
            raise
        return call


def load_model_class(path: Path) -> Any:
    """The class in model.py. Its directory is where its own imports are found first."""
    sys.modules["triton_python_backend_utils"] = backend_utils
    sys.path.insert(0, str(path.parent))
    module = types.ModuleType("model")
    module.__file__ = str(path)
    sys.modules["model"] = module
    exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    if not hasattr(module, "TritonPythonModel"):
        raise TritonModelException("model.py has no class TritonPythonModel")
    return module.TritonPythonModel


def complete_config(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as the class's auto_complete_config has it."""
    model = load_model_class(path)
    if not hasattr(model, "auto_complete_config"):
        return config
    completed = model.auto_complete_config(ModelConfig(config))
    if not isinstance(completed, ModelConfig):
        raise TritonModelException("auto_complete_config has not returned the configuration that it was given")
    return completed.as_dict()


def last_lines() -> str:
    """Of the traceback of what is being handled, for people who cannot see the log."""
    return "\n".join(traceback.format_exc().strip().splitlines()[-_TRACEBACK_LINES:])


class _NamedLines:
    """A text stream whose lines begin with the model's name."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        if lines:
            self._stream.write("".join(f"model {self._name}: {line}\n" for line in lines))
            self._stream.flush()
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _put_status(writer: Writer, code: int, message: str) -> None:
    writer.put("I", code)
    writer.put_text(message)


def _end_with_the_server(fd: int) -> None:
    """Also while the model computes."""
    waiter = select.poll()
    waiter.register(fd, 0)  # nothing but that the other end is closed
    waiter.poll()
    os._exit(1)


def _in_thread(work: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


def main(arguments: list[str]) -> None:
    """Serve the model that the first message names; with `--complete`, complete a configuration instead."""
    if arguments == ["--complete"]:
        task = json.load(sys.stdin)
        answer_to, sys.stdout = sys.stdout, sys.stderr
        try:
            answer: dict[str, Any] = {"config": complete_config(Path(task["path"]), task["config"])}
        except BaseException:
            answer = {"error": last_lines()}
        json.dump(answer, answer_to)
        return
    os.closerange(_OUTGOING + 1, 1 << 12)
    channel = Channel(_SOCKET, _INCOMING, _OUTGOING)
    _in_thread(_end_with_the_server, channel.fileno())
    kind, body = channel.receive()
    assert kind is Kind.INITIALIZE
    properties = {body.text(): body.text() for _ in range(body.number("I"))}
    channel.have_read()
    name = properties["model_name"]
    sys.stdout = sys.stderr = _NamedLines(sys.stderr, name)
    try:
        worker = Worker(channel, properties)
    except BaseException:
        message = f"model '{name}' cannot be initialized:\n{last_lines()}"
        channel.send(Kind.READY, lambda writer: _put_status(writer, _INVALID_ARGUMENT, message), releases=True)
        return
    try:
        channel.send(Kind.READY, lambda writer: _put_status(writer, _OK, ""), releases=True)
        worker.serve()
    except ServerGoneError:
        os._exit(1)
