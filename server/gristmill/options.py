# SPDX-License-Identifier: Apache-2.0
"""The server's options, as the command line gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import grpc

from gristmill.repository.manager import ModelControlMode


class Frontend(StrEnum):
    """What takes requests from the network."""

    NATIVE = "native"
    AIO = "aio"


class Compression(StrEnum):
    """How answers are compressed for clients that accept it."""

    NONE = "none"
    DEFLATE = "deflate"
    GZIP = "gzip"

    @property
    def algorithm(self) -> grpc.Compression:
        """As gRPC calls it."""
        return _ALGORITHMS[self]


_ALGORITHMS = {
    Compression.NONE: grpc.Compression.NoCompression,
    Compression.DEFLATE: grpc.Compression.Deflate,
    Compression.GZIP: grpc.Compression.Gzip,
}


class LogFormat(StrEnum):
    """How log lines are written to standard error."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least severe log line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class TlsFiles:
    """PEM files. client_ca: whom clients' certificates must come from; None: clients need none."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def __str__(self) -> str:
        """For messages: the paths."""
        return ", ".join(str(path) for path in (self.certificate, self.key, self.client_ca) if path)


@dataclass(frozen=True)
class ServerOptions:
    """Everything a server is started with.

    host: an address, or "unix:path" for a socket, which has no port.
    grpc_port: 0 lets the system choose. reuse_port: lets several servers share it.
    tls: None is plain text. tls_reload_s: between two looks at whether its files have changed.
    response_compression: of answers, where the client accepts it.
    max_buffered_bytes: of requests and answers that the native front end holds; 0 is half of the machine's memory.
    keepalive_time_s: a client not heard of for so long is sent a ping, which it must answer within keepalive_timeout_s.
    max_connection_idle_s, max_connection_age_s: after which a connection is told to go; 0 is never.
    max_connection_age_grace_s: after which one of age is closed with the calls on it; 0 is never.
    io_threads: event loops of the native front end; 0 is one for every two cores.
    max_message_bytes: of one request or answer; -1 is no limit.
    repository_poll_s: between two scans in poll mode.
    exit_timeout_s: how long requests in flight may take to finish after a signal to end.
    intra_op_threads: threads a backend runs one batch on; 0 leaves the choice to the backend.
    response_cache_bytes: of the answers of models whose configuration says response_cache.
    resources: what there is of each resource that models' rate_limiter names; of others, what one model needs at most.
    host_policies: CPUs by the name that models' host_policy calls them.
    strict_readiness: the server is ready only while every model that it should serve is.
    """

    model_repositories: Sequence[Path]
    host: str = "0.0.0.0"
    grpc_port: int = 8001
    frontend: Frontend = Frontend.NATIVE
    reuse_port: bool = False
    tls: TlsFiles | None = None
    tls_reload_s: float = 10.0
    response_compression: Compression = Compression.NONE
    max_buffered_bytes: int = 0
    keepalive_time_s: float = 7200.0
    keepalive_timeout_s: float = 20.0
    max_connection_idle_s: float = 0.0
    max_connection_age_s: float = 0.0
    max_connection_age_grace_s: float = 0.0
    io_threads: int = 0
    max_message_bytes: int = -1
    model_control_mode: ModelControlMode = ModelControlMode.NONE
    load_models: Sequence[str] = ()
    repository_poll_s: float = 15.0
    exit_timeout_s: float = 30.0
    intra_op_threads: int = 0
    load_threads: int = 4
    default_max_batch_size: int = 64
    response_cache_bytes: int = 64 << 20
    resources: Mapping[str, int] = field(default_factory=dict)
    host_policies: Mapping[str, frozenset[int]] = field(default_factory=dict)
    strict_readiness: bool = False
