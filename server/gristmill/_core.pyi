# SPDX-License-Identifier: Apache-2.0
"""The compiled core: engine, backends, and the bridge that carries requests into it."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

__version__: str

class CoreError(Exception):
    """A Status from the core. `args` is (grpc status code as int, message)."""

    @property
    def code(self) -> int: ...
    @property
    def message(self) -> str: ...

class TensorSpec:
    """A tensor as declared: `datatype` is the protocol's name ("FP32"), -1 in `dims` is any size."""

    def __init__(self, name: str, datatype: str, dims: Sequence[int]) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def datatype(self) -> str: ...
    @property
    def dims(self) -> list[int]: ...

class QueueLevel:
    """What becomes of the requests of one priority while they wait. 0: no limit, no timeout."""

    def __init__(
        self,
        *,
        max_queue_size: int = 0,
        default_timeout_us: int = 0,
        allow_timeout_override: bool = True,
        delays_timed_out: bool = False,
    ) -> None: ...

class ControlInput:
    """An input that tells the model where in its sequence a row stands: "start", "end", "ready" or "corrid"."""

    def __init__(self, *, kind: str, tensor: TensorSpec, off: float = 0.0, on: float = 1.0) -> None: ...

class StateTensor:
    """What the server keeps of a sequence: an output that is the input of the next request.

    `initial_dims` are without the batch dimension; `initial_data` is of one row.
    """

    def __init__(
        self, *, input: TensorSpec, output_name: str, initial_dims: Sequence[int], initial_data: bytes
    ) -> None: ...

class SequenceOptions:
    """How a model of sequences is served (csrc/core/model_config.h)."""

    def __init__(
        self,
        *,
        max_idle_us: int,
        max_sequences_per_instance: int,
        controls: Sequence[ControlInput],
        states: Sequence[StateTensor],
    ) -> None: ...

class CacheOptions:
    """A model's answers are kept, `ttl_us` long (0: for ever); they depend on `key_inputs`, or on all if empty."""

    def __init__(self, *, ttl_us: int = 0, key_inputs: Sequence[str] = ()) -> None: ...

class EnsembleStep:
    """One model of an ensemble; `inputs` and `outputs` name the ensemble's tensors by the model's names."""

    def __init__(
        self, *, model: str, version: str = "", inputs: Mapping[str, str], outputs: Mapping[str, str]
    ) -> None: ...

class ModelOptions:
    """How one model version is served; the arguments mirror csrc/core/model_config.h.

    Raises CoreError if inconsistent.
    """

    def __init__(
        self,
        *,
        name: str,
        version: int,
        max_batch_size: int,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        dynamic_batching: bool = False,
        max_queue_delay_us: int = 0,
        preferred_batch_sizes: Sequence[int] = (),
        queue_levels: Sequence[QueueLevel] = ...,
        default_queue_level: int = 0,
        preserve_ordering: bool = False,
        sequence: SequenceOptions | None = None,
        decoupled: bool = False,
        cache: CacheOptions | None = None,
        steps: Sequence[EnsembleStep] = (),
        resources: Mapping[str, int] = ...,
        weight: int = 1,
        has_own_cpus: bool = False,
        instance_count: int = 1,
    ) -> None: ...

class OpenedModel:
    """A model file opened by a backend, not yet served. dims of inputs and outputs are those of the file."""

    @property
    def inputs(self) -> list[TensorSpec]: ...
    @property
    def outputs(self) -> list[TensorSpec]: ...

class Duration(TypedDict):
    count: int
    ns: int

class BatchStatistics(TypedDict):
    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration

class Statistics(TypedDict):
    """Totals since the version was loaded. `inference_count` counts rows, `execution_count` runs of the model.

    `dropped` counts the requests that were not run, by reason: queue_full, unattainable (refused since they could not
    be answered in time), expired, hopeless (given up before they expired, for the same reason), timeout, cancelled.
    """

    last_inference_ms: int
    inference_count: int
    execution_count: int
    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration
    dropped: dict[str, int]
    batch_stats: list[BatchStatistics]

class Servable:
    """One loaded model version with its executors."""

    @property
    def version(self) -> int: ...
    @property
    def pending(self) -> int:
        """Requests admitted and not yet answered."""
    def statistics(self) -> Statistics: ...
    def drain(self) -> None:
        """Take no new request, answer all that were taken, stop the executors. Blocks; releases the GIL."""

class Engine:
    """Everything between decoded requests and answers.

    All methods are thread-safe and release the GIL when they block.
    """

    def __init__(
        self,
        *,
        plugin_directory: str,
        backend_parameters: Mapping[str, Mapping[str, str]] = ...,
        max_answer_bytes: int = 0,
        response_cache_bytes: int = 0,
        resources: Mapping[str, int] = ...,
    ) -> None:
        """`max_answer_bytes`: of all answers that are not sent yet; 0 is no limit.

        `response_cache_bytes`: of all answers that are kept; 0 keeps none. `resources`: what there is of what models
        need for a run; of others there is what the model that needs most of them needs.
        """
    def cache_usage(self) -> dict[str, int]:
        """Of the response cache: "entries", "bytes", and "evictions" for want of room."""
    def backend_version(self, backend: str) -> str:
        """Load the backend's plugin if need be and name its runtime's version.

        CoreError(UNAVAILABLE) says why it cannot be.
        """
    def open_model(self, *, backend: str, path: str, parameters: Mapping[str, str] = ...) -> OpenedModel: ...
    def load(self, model: OpenedModel, options: ModelOptions) -> Servable:
        """Create the executors of a version and start them. Nothing reaches it before `publish`."""
    def load_ensemble(self, options: ModelOptions) -> Servable:
        """The same for an ensemble, whose `steps` each come after those that they take from."""
    def publish(
        self, name: str, servables: Sequence[Servable], *, aliases: Mapping[str, int] = ..., reason: str = ""
    ) -> None:
        """Replace, in one step, the versions of a model that requests can reach.

        With none, requests are answered UNAVAILABLE with `reason`. What is no longer reachable still answers what it
        admitted; call `Servable.drain` on it to end it.
        """
    def forget(self, name: str) -> None:
        """Answer NOT_FOUND for this model from now on."""

class AioBridge:
    """Carries ModelInfer calls between one asyncio loop and the engine. Used by that loop's thread only.

    `tag` is any object, handed back by `drain`; the request's bytes are viewed, not copied, until then.
    """

    def __init__(self, engine: Engine) -> None: ...
    def fileno(self) -> int:
        """An eventfd, readable when `drain` has something; signalled once per batch."""
    def submit(
        self,
        request: bytes,
        tag: Any,
        timeout_s: float | None = None,
        *,
        in_stream: bool = False,
        errors_end_stream: bool = False,
    ) -> int:
        """Take one request in; returns a ticket for `cancel`. The engine gets it at the next `flush`.

        Every submit is answered through `drain`, errors included. With `in_stream` the answer is a serialized
        ModelStreamInferResponse, for errors too unless `errors_end_stream`.
        """
    def flush(self) -> None:
        """Hand all calls submitted so far to the engine, which wakes each model's executor once for them."""
    def cancel(self, ticket: int) -> None:
        """Give up on a call; it is answered CANCELLED unless it is already running. Unknown tickets are ignored."""
    def drain(self) -> list[tuple[Any, int | None, bytes | str | None]]:
        """The finished calls: (tag, 0, serialized ModelInferResponse) or (tag, status code, message).

        In streams also (tag, None, an answer of a decoupled model to a call that is not finished), and (tag, 0, None)
        for a finished one that has sent all its answers.
        """
    @property
    def in_flight(self) -> int: ...

class TlsContext:
    """A server's certificate, its key, and whom its clients' certificates must come from (b"": not asked for). All PEM.

    Thread-safe. CoreError(INVALID_ARGUMENT) says what is wrong with them.
    """

    def __init__(self, *, certificate_chain: bytes, private_key: bytes, client_roots: bytes) -> None: ...
    def update(self, *, certificate_chain: bytes, private_key: bytes, client_roots: bytes) -> None:
        """For connections from now on. After an error everything stays as it was."""

class NativeTransport:
    """HTTP/2 in C++. ModelInfer goes to the engine; every other call is an exchange of events and commands.

    Belongs to one event loop. Each call named by a `call` event has to be finished once, whatever becomes of it;
    commands for a finished call are ignored.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        io_threads: int,
        max_message_bytes: int,
        max_received_bytes: int = 0,
        max_connection_bytes: int = 0,
        response_encoding: int = 0,
        reuse_port: bool,
        keepalive_time_s: float,
        keepalive_timeout_s: float,
        max_connection_idle_s: float,
        max_connection_age_s: float,
        max_connection_age_grace_s: float,
    ) -> None:
        """0 is no limit, of bytes and of seconds. Encodings are numbered as in grpc.Compression."""
    def listen(self, address: str, tls: TlsContext | None = None) -> int: ...
    def start(self) -> None: ...
    def drain(self) -> None:
        """Take no new connection, and ask clients to take new calls elsewhere."""
    def stop(self) -> None:
        """Close all connections. Blocks until every call is finished; releases the GIL."""
    @property
    def connections(self) -> int: ...
    @property
    def calls(self) -> int:
        """Calls not yet finished, those of ModelInfer included."""
    @property
    def infer_calls(self) -> int: ...
    def fileno(self) -> int:
        """An eventfd, readable when `take_events` has something."""
    def take_events(self) -> list[tuple[int, int, Any]]:
        """(kind, call, payload) in order. Payload by kind: 0, a new call: (path, metadata, peer, seconds left or None,
        auth); 1, a message: bytes; 2, the client sends no more; 3, all messages have been sent; 4, the client has gone.
        """
    def set_encoding(self, call: int, encoding: int) -> None: ...
    def send_initial_metadata(self, call: int, metadata: list[tuple[str, bytes]]) -> None: ...
    def send_message(self, call: int, message: bytes, may_compress: bool) -> None: ...
    def finish(self, call: int, code: int, details: str, trailing_metadata: list[tuple[str, bytes]]) -> None: ...
    def read_more(self, call: int) -> None:
        """Let the client send on: after a message its window is all that it may send."""

NEVER: int

def simulate(
    *,
    policy: str,
    arrivals_ns: np.ndarray,
    run_ns: np.ndarray,
    objective_ns: int,
    executors: int = 1,
    spread: float = 0.0,
    max_queue_delay_ns: int = 0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Send requests of one row through the scheduler in simulated time (csrc/simulation/simulation.h).

    `policy`: "gristmill", or a peer: "fixed_delay" (with `max_queue_delay_ns`), "clipper", "nexus", "clockwork".
    `arrivals_ns` ascends; `run_ns` is what a run takes, by rows - 1, times a random factor of `spread`.
    `objective_ns`: from a request's arrival to its deadline. Returns int64: when each request was answered, NEVER if it
    was not run; and the rows of each run. Raises CoreError.
    """

class BatchDecision(TypedDict):
    """Of csrc/core/batch_policy.h."""

    group: int
    count: int
    give_up_before_ns: int
    wait_until_ns: int

def decide(
    *,
    groups: Sequence[Sequence[tuple[int, int, int, int]]],
    latency: Sequence[tuple[int, int, int, int]],
    max_rows: int,
    max_queue_delay_ns: int = -1,
    preferred_rows: Sequence[int] = (),
    gap_ns: int = ...,
    last_arrival_ns: int = 0,
    now_ns: int = 0,
) -> BatchDecision:
    """What the batch policy decides (csrc/core/batch_policy.h).

    A request is (rows, enqueue_ns, deadline_ns, start_by_ns); an entry of `latency` (rows, floor_ns, typical_ns,
    tail_ns).
    """
