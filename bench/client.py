# SPDX-License-Identifier: Apache-2.0
"""A gRPC client for what h2load cannot see: whether calls succeed, and what the server counted."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from gristmill_protos.inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ModelStatisticsRequest,
    ModelStatisticsResponse,
)

_SERVICE = "/inference.GRPCInferenceService/"
_LIMIT_S = 30.0


class WrongAnswerError(Exception):
    """A server under load does not answer as it should."""


@dataclass(frozen=True)
class Counts:
    """What a server has counted of one model since it was loaded. `compute_ns`: of its executions."""

    rows: int
    executions: int
    failures: int
    compute_ns: int = 0


class BenchClient:
    """One connection to one server; a context manager. Its calls raise grpc.RpcError."""

    def __init__(self, port: int) -> None:
        """Connect to 127.0.0.1:`port`."""
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        )

    def __enter__(self) -> BenchClient:  # noqa: D105
        return self

    def __exit__(self, *_: object) -> None:  # noqa: D105
        self._channel.close()

    def infer(self, request: bytes) -> bytes:
        """Send a serialized ModelInferRequest; the serialized ModelInferResponse."""
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(_SERVICE + "ModelInfer")
        return method(request, timeout=_LIMIT_S, wait_for_ready=True)

    def require_ready(self, model: str) -> None:
        """Raise WrongAnswerError unless `model` is ready."""
        method: grpc.UnaryUnaryMultiCallable[ModelReadyRequest, ModelReadyResponse] = self._channel.unary_unary(
            _SERVICE + "ModelReady", ModelReadyRequest.SerializeToString, ModelReadyResponse.FromString
        )
        if not method(ModelReadyRequest(name=model), timeout=_LIMIT_S, wait_for_ready=True).ready:
            raise WrongAnswerError(f"the server did not load {model}; start it by hand to see why")

    def counts(self, model: str) -> Counts:
        """The server's statistics of `model`, all versions together."""
        method: grpc.UnaryUnaryMultiCallable[ModelStatisticsRequest, ModelStatisticsResponse] = (
            self._channel.unary_unary(
                _SERVICE + "ModelStatistics",
                ModelStatisticsRequest.SerializeToString,
                ModelStatisticsResponse.FromString,
            )
        )
        models = method(ModelStatisticsRequest(name=model), timeout=_LIMIT_S).model_stats
        return Counts(
            sum(entry.inference_count for entry in models),
            sum(entry.execution_count for entry in models),
            sum(entry.inference_stats.fail.count for entry in models),
            sum(batch.compute_infer.ns for entry in models for batch in entry.batch_stats),
        )


def mean_batch(before: Counts, after: Counts) -> float:
    """Rows per execution between the two. Raises WrongAnswerError if a request failed or none was executed."""
    if after.failures != before.failures:
        raise WrongAnswerError(f"{after.failures - before.failures} requests failed under load")
    if after.executions == before.executions:
        raise WrongAnswerError("the server executed nothing under load")
    return (after.rows - before.rows) / (after.executions - before.executions)


def input_bytes(request: bytes) -> list[bytes]:
    """The raw contents of a serialized ModelInferRequest."""
    return list(ModelInferRequest.FromString(request).raw_input_contents)


def output_bytes(response: bytes) -> list[bytes]:
    """The raw contents of a serialized ModelInferResponse."""
    return list(ModelInferResponse.FromString(response).raw_output_contents)
