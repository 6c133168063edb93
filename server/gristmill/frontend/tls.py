# SPDX-License-Identifier: Apache-2.0
"""The certificate of a server's port, read from files and replaced while the server runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from gristmill._core import CoreError
    from gristmill.options import TlsFiles


class TlsError(Exception):
    """Certificates that cannot be used."""


@dataclass(frozen=True)
class _Certificates:
    """What the files hold. `client_roots`: b"" where clients are not asked for certificates."""

    certificate_chain: bytes
    private_key: bytes
    client_roots: bytes


class ServerTls:
    """TLS for any number of ports of both front ends."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises TlsError if `files` cannot be read, or do not belong together."""
        from gristmill import _core

        self._files = files
        self._certificates = self._read()
        try:
            self.context = _core.TlsContext(**vars(self._certificates))
        except _core.CoreError as error:
            raise self._refusal(error) from error

    def reload(self) -> bool:
        """Use what the files hold now, for new connections; whether that is something new.

        Raises TlsError, and then goes on with what it had.
        """
        from gristmill import _core

        certificates = self._read()
        if certificates == self._certificates:
            return False
        try:
            self.context.update(**vars(certificates))
        except _core.CoreError as error:
            raise self._refusal(error) from error
        self._certificates = certificates
        return True

    def credentials(self) -> grpc.ServerCredentials:
        """The same for a server of gRPC's own, which asks again at every connection."""
        configured = self._certificates

        def configuration() -> grpc.ServerCertificateConfiguration:
            return grpc.ssl_server_certificate_configuration(
                [(configured.private_key, configured.certificate_chain)], configured.client_roots or None
            )

        def new_configuration() -> Any:
            nonlocal configured
            if self._certificates == configured:
                return None  # which gRPC understands, though its types do not say so
            configured = self._certificates
            return configuration()

        return grpc.dynamic_ssl_server_credentials(configuration(), new_configuration, bool(configured.client_roots))

    def _read(self) -> _Certificates:
        def read(path: Path, what: str) -> bytes:
            try:
                return path.read_bytes()
            except OSError as error:
                raise TlsError(f"{what} {path}: {error.strerror}") from error

        files = self._files
        return _Certificates(
            read(files.certificate, "certificate"),
            read(files.key, "private key"),
            read(files.client_ca, "certificates of client authorities") if files.client_ca else b"",
        )

    def _refusal(self, error: CoreError) -> TlsError:
        return TlsError(f"{error.message}: {self._files}")
