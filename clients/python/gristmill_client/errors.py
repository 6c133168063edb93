# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, as exceptions: one class per gRPC status, all derived from GristmillError."""

from __future__ import annotations

from typing import ClassVar

import grpc


class GristmillError(Exception):
    """A call failed. `str(error)` is the whole story; the attributes are for programs.

    code: the gRPC status. message: the server's own words, or the client's where it refused to send. model: the model
    that was asked for, or "" where the call concerned none.
    """

    default_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, *, code: grpc.StatusCode | None = None, model: str = "") -> None:
        """`code` defaults to the status that the class stands for."""
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.model = model

    def __str__(self) -> str:
        """The status, the model and the message."""
        where = f" (model {self.model!r})" if self.model and self.model not in self.message else ""
        return f"{self.code.name}: {self.message}{where}"


class InvalidArgument(GristmillError):
    """The request does not fit the model. Raised by the client as well, before it sends what cannot succeed."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class ModelNotFound(GristmillError):
    """The server does not know the model, the version or the alias."""

    default_code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(GristmillError):
    """What was to be made is there already."""

    default_code = grpc.StatusCode.ALREADY_EXISTS


class Unavailable(GristmillError):
    """No server at that address, or the model is known but not ready. Retried before it is raised."""

    default_code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(GristmillError):
    """There was no answer in time, or the server saw that there could be none."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class ResourceExhausted(GristmillError):
    """The model's queue is full, or a message is larger than allowed."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Cancelled(GristmillError):
    """The call was cancelled."""

    default_code = grpc.StatusCode.CANCELLED


class FailedPrecondition(GristmillError):
    """The server is not in a state in which it can do this."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class Unimplemented(GristmillError):
    """The server does not offer this method."""

    default_code = grpc.StatusCode.UNIMPLEMENTED


class PermissionDenied(GristmillError):
    """The caller is known but may not do this."""

    default_code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(GristmillError):
    """The call carries no valid credentials: see ClientOptions.headers and ClientOptions.tls."""

    default_code = grpc.StatusCode.UNAUTHENTICATED


class Internal(GristmillError):
    """The model or the server failed on a request that it had accepted."""

    default_code = grpc.StatusCode.INTERNAL


_BY_CODE = {cls.default_code: cls for cls in GristmillError.__subclasses__()}


def error_of(code: grpc.StatusCode, message: str, model: str = "") -> GristmillError:
    """Make the exception for a status; one without a class of its own becomes a plain GristmillError."""
    return _BY_CODE.get(code, GristmillError)(message, code=code, model=model)
