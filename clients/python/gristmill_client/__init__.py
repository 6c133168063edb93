# SPDX-License-Identifier: Apache-2.0
"""The Python client of Gristmill and of any other server of the KServe v2 protocol.

from gristmill_client import Client

with Client("localhost:8001") as client:
    result = client.infer("magika", numpy.zeros((1, 2048), numpy.int32))
"""

from gristmill_client.async_client import AsyncClient
from gristmill_client.codec import InferResult
from gristmill_client.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    GristmillError,
    Internal,
    InvalidArgument,
    ModelNotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from gristmill_client.models import ModelMetadata, RepositoryEntry, ServerMetadata, TensorMetadata
from gristmill_client.options import ClientOptions, Keepalive, RetryPolicy, Tls
from gristmill_client.sync_client import Client

__all__ = [
    "AlreadyExists",
    "AsyncClient",
    "Cancelled",
    "Client",
    "ClientOptions",
    "DeadlineExceeded",
    "FailedPrecondition",
    "GristmillError",
    "InferResult",
    "Internal",
    "InvalidArgument",
    "Keepalive",
    "ModelMetadata",
    "ModelNotFound",
    "PermissionDenied",
    "RepositoryEntry",
    "ResourceExhausted",
    "RetryPolicy",
    "ServerMetadata",
    "TensorMetadata",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
]
