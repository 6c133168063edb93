# SPDX-License-Identifier: Apache-2.0
"""The error of everything that concerns models in the repository."""

from __future__ import annotations

import grpc


class RepositoryError(Exception):
    """A model or version that cannot be served as asked. `code` is what a caller over gRPC gets."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        """`message` says what was expected, what came, and what to do."""
        super().__init__(message)
        self.code = code
        self.message = message


class ConfigError(RepositoryError):
    """A model configuration that is malformed, not supported, or at odds with the model file."""

    def __init__(self, message: str) -> None:
        """`message` begins with where the configuration was written."""
        super().__init__(grpc.StatusCode.INVALID_ARGUMENT, message)
