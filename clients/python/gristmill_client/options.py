# SPDX-License-Identifier: Apache-2.0
"""How a client connects, waits and tries again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc

SERVICE = "inference.GRPCInferenceService"
DEFAULT_URL = "localhost:8001"
#: The most attempts per call that gRPC makes, whatever its configuration says.
MAX_ATTEMPTS = 5
#: gRPC 1.81 can lose a call, deadline and all, that it retries within a few milliseconds.
MIN_BACKOFF_S = 0.01
_UNLIMITED = -1
# gRPC gives up the right to retry a call once its message outgrows this buffer (256 KB unless told), and tensors do.
_RETRY_BUFFER_BYTES = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Retries of UNAVAILABLE by gRPC itself: exponential backoff with jitter, within the call's deadline.

    max_attempts: 2 to 5, the first try included. Backoffs are in seconds.
    """

    max_attempts: int = 4
    initial_backoff_s: float = 0.1
    max_backoff_s: float = 2.0
    backoff_multiplier: float = 2.0

    def __post_init__(self) -> None:
        """Raises ValueError for what gRPC would silently ignore."""
        if not 2 <= self.max_attempts <= MAX_ATTEMPTS:
            raise ValueError(
                f"max_attempts must be 2 to {MAX_ATTEMPTS}, got {self.max_attempts}; for no retries use retry=None"
            )
        if min(self.initial_backoff_s, self.max_backoff_s) < MIN_BACKOFF_S or self.backoff_multiplier <= 0:
            raise ValueError(f"backoffs must be at least {MIN_BACKOFF_S} s and the multiplier positive, got {self}")

    def service_config(self) -> str:
        """The policy as a gRPC service config (JSON)."""
        policy = {
            "maxAttempts": self.max_attempts,
            "initialBackoff": f"{self.initial_backoff_s:.9f}s",
            "maxBackoff": f"{self.max_backoff_s:.9f}s",
            "backoffMultiplier": self.backoff_multiplier,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        return json.dumps({"methodConfig": [{"name": [{"service": SERVICE}], "retryPolicy": policy}]})


@dataclass(frozen=True, kw_only=True)
class Tls:
    """TLS by PEM-encoded certificates.

    root_certificates: whom to trust; None means gRPC's defaults. certificate_chain and private_key: this client's own,
    where the server asks for one (mutual TLS); both or neither. server_name: the name in the server's certificate where
    it differs from the host in the address; "" means it does not.
    """

    root_certificates: bytes | None = None
    certificate_chain: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    server_name: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for half a key pair."""
        if (self.certificate_chain is None) != (self.private_key is None):
            raise ValueError("certificate_chain and private_key belong together: give both or neither")

    def credentials(self) -> grpc.ChannelCredentials:
        """The same as gRPC credentials."""
        return grpc.ssl_channel_credentials(self.root_certificates, self.private_key, self.certificate_chain)


@dataclass(frozen=True, kw_only=True)
class Keepalive:
    """HTTP/2 pings that notice a dead connection. Servers close connections that ping more often than they allow.

    time_s: ping after so long without traffic. timeout_s: how long the answer may take. without_calls: ping idle
    connections too.
    """

    time_s: float = 60.0
    timeout_s: float = 20.0
    without_calls: bool = False


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """Everything about a client except the address.

    timeout: seconds for a call that names none; math.inf means no deadline. retry: None means no retries.
    wait_for_ready: wait for a connection until the deadline rather than fail with Unavailable. tls: None means plain
    text. headers: sent with every call. max_message_bytes: the largest message in either direction; None means no
    limit. keepalive: None means no pings.
    """

    timeout: float = 30.0
    retry: RetryPolicy | None = field(default_factory=RetryPolicy)
    wait_for_ready: bool = False
    tls: Tls | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    max_message_bytes: int | None = None
    keepalive: Keepalive | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a deadline or a limit that no call could meet."""
        if not self.timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds (math.inf for none), got {self.timeout}")
        if self.max_message_bytes is not None and self.max_message_bytes <= 0:
            raise ValueError(f"max_message_bytes must be positive (None for no limit), got {self.max_message_bytes}")

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The headers as gRPC metadata, whose keys are lower case."""
        return tuple((name.lower(), value) for name, value in self.headers.items())

    def channel_arguments(self) -> list[tuple[str, Any]]:
        """The options that gRPC takes when the channel is made."""
        limit = _UNLIMITED if self.max_message_bytes is None else self.max_message_bytes
        arguments: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", limit),
            ("grpc.max_receive_message_length", limit),
            ("grpc.enable_retries", int(self.retry is not None)),
        ]
        if self.retry is not None:
            arguments += [
                ("grpc.service_config", self.retry.service_config()),
                ("grpc.per_rpc_retry_buffer_size", _RETRY_BUFFER_BYTES),
            ]
        if self.tls is not None and self.tls.server_name:
            arguments.append(("grpc.ssl_target_name_override", self.tls.server_name))
        if self.keepalive is not None:
            arguments += [
                ("grpc.keepalive_time_ms", round(self.keepalive.time_s * 1000)),
                ("grpc.keepalive_timeout_ms", round(self.keepalive.timeout_s * 1000)),
                ("grpc.keepalive_permit_without_calls", int(self.keepalive.without_calls)),
            ]
        return arguments
