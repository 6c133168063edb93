# SPDX-License-Identifier: Apache-2.0
"""The server's options, as the command line gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gristmill.repository.manager import ModelControlMode


class Frontend(StrEnum):
    """What takes requests from the network."""

    AIO = "aio"
    NATIVE = "native"


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
class ServerOptions:
    """Everything a server is started with.

    grpc_port: 0 lets the system choose. reuse_port: lets several servers share it.
    keepalive_time_s: a client not heard of for so long is sent a ping, which it must answer within keepalive_timeout_s.
    max_connection_idle_s, max_connection_age_s: after which a connection is told to go; 0 is never.
    max_connection_age_grace_s: after which one of age is closed with the calls on it; 0 is never.
    io_threads: event loops of the native front end; 0 is one for every two cores.
    max_message_bytes: of one request or answer; -1 is no limit.
    repository_poll_s: between two scans in poll mode.
    exit_timeout_s: how long requests in flight may take to finish after a signal to end.
    intra_op_threads: threads a backend runs one batch on; 0 leaves the choice to the backend.
    strict_readiness: the server is ready only while every model that it should serve is.
    """

    model_repositories: Sequence[Path]
    host: str = "0.0.0.0"
    grpc_port: int = 8001
    frontend: Frontend = Frontend.AIO
    reuse_port: bool = False
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
    strict_readiness: bool = False
