# SPDX-License-Identifier: Apache-2.0
"""TLS as a deployment uses it: certificates in files, clients of gRPC, and files that change while the server runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import trustme
from gristmill_client import Client, ClientOptions, Tls
from gristmill_protos import inference_pb2, inference_pb2_grpc

from .conftest import ECHO
from .harness import inputs_of, run_gristmill, serve, wait_until, write_sim

ROWS = np.ones((1, 4), dtype=np.float32)
RELOAD = ("--tls-reload-secs", "0.1")


@dataclass
class Files:
    """PEM files in a directory: those of the server, and of a client."""

    directory: Path
    authority: trustme.CA

    def __post_init__(self) -> None:
        self.authority.cert_pem.write_to_path(str(self.path("ca")))
        self.issue("server", "127.0.0.1", "localhost")
        self.issue("client", "client.test")

    def path(self, name: str) -> Path:
        return self.directory / f"{name}.pem"

    def issue(self, name: str, *identities: str, authority: trustme.CA | None = None) -> None:
        """Write `name` and `name`-key, as a renewal would."""
        issued = (authority or self.authority).issue_cert(*identities)
        self.path(f"{name}-key").write_bytes(issued.private_key_pem.bytes())
        self.path(name).write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    def arguments(self, *, client_ca: bool = False) -> list[str]:
        words = ["--tls-certificate", str(self.path("server")), "--tls-key", str(self.path("server-key"))]
        return [*words, *RELOAD, *(("--tls-client-ca", str(self.path("ca"))) if client_ca else ())]

    def is_live(self, url: str) -> bool:
        return is_live(url, self.credentials())

    def credentials(self, *, client: bool = False) -> grpc.ChannelCredentials:
        own = (self.path("client-key").read_bytes(), self.path("client").read_bytes()) if client else (None, None)
        return grpc.ssl_channel_credentials(self.path("ca").read_bytes(), *own)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    directory = tmp_path / "tls"
    directory.mkdir()
    return Files(directory, trustme.CA())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_sim(tmp_path / "models", "echo", 1, ECHO, "max_batch_size: 1000000\n")
    return tmp_path / "models"


def is_live(url: str, credentials: grpc.ChannelCredentials) -> bool:
    """Whether a new connection is served."""
    with grpc.secure_channel(url, credentials) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            return bool(stub.ServerLive(inference_pb2.ServerLiveRequest(), timeout=5).live)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False


def test_clients_of_all_kinds_speak_tls(repository: Path, files: Files, frontend: str) -> None:
    with serve(repository, *files.arguments(), frontend=frontend, is_ready=files.is_live) as server:
        assert any(f"gRPC over TLS ({frontend}) listening on 127.0.0.1:" in line for line in server.output)
        with triton.InferenceServerClient(server.url, ssl=True, root_certificates=str(files.path("ca"))) as client:
            assert np.array_equal(client.infer("echo", inputs_of({"X": ROWS})).as_numpy("Y"), ROWS)
        tls = Tls(root_certificates=files.path("ca").read_bytes())
        large = np.random.default_rng(0).random((1_000_000, 4), dtype=np.float32)
        with Client(server.url, ClientOptions(tls=tls)) as ours:
            for rows in (ROWS, large):
                assert np.array_equal(ours.infer("echo", {"X": rows})["Y"], rows)
        assert not is_live(server.url, grpc.ssl_channel_credentials(trustme.CA().cert_pem.bytes()))
        with grpc.insecure_channel(server.url) as channel:
            stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
            with pytest.raises(grpc.RpcError) as caught:
                stub.ServerLive(inference_pb2.ServerLiveRequest(), timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_clients_show_certificates_where_that_is_asked(repository: Path, files: Files, frontend: str) -> None:
    def is_ready(url: str) -> bool:
        return is_live(url, files.credentials(client=True))

    with serve(repository, *files.arguments(client_ca=True), frontend=frontend, is_ready=is_ready) as server:
        assert not is_live(server.url, files.credentials())
        files.issue("client", "client.test", authority=trustme.CA())
        assert not is_live(server.url, files.credentials(client=True))


def test_a_new_certificate_is_used_without_a_restart(repository: Path, files: Files, frontend: str) -> None:
    with serve(repository, *files.arguments(), frontend=frontend, is_ready=files.is_live) as server:
        before = inference_pb2_grpc.GRPCInferenceServiceStub(  # type: ignore[no-untyped-call]
            grpc.secure_channel(server.url, files.credentials())
        )
        assert before.ServerLive(inference_pb2.ServerLiveRequest()).live
        other = trustme.CA()
        files.issue("server", "127.0.0.1", authority=other)
        trusts_other = grpc.ssl_channel_credentials(other.cert_pem.bytes())
        wait_until(lambda: is_live(server.url, trusts_other), "the new certificate")
        assert not is_live(server.url, files.credentials())
        assert before.ServerLive(inference_pb2.ServerLiveRequest()).live  # on the connection that it has

        files.path("server").write_text("nonsense")
        server.wait_for_output("the server's certificate cannot be read")
        assert is_live(server.url, trusts_other)


@pytest.mark.parametrize(
    ("arguments", "expected", "status"),
    [
        (("--tls-certificate", "server"), "belong together", 2),
        (("--tls-client-ca", "ca"), "needs --tls-certificate", 2),
        (("--tls-certificate", "server", "--tls-key", "absent"), "No such file", 1),
        (("--tls-certificate", "server", "--tls-key", "client-key"), "does not belong to the certificate", 1),
        (("--tls-certificate", "server", "--tls-key", "server-key", "--tls-client-ca", "server-key"), "roots", 1),
    ],
)
def test_files_that_cannot_be_used_are_refused(
    repository: Path, files: Files, frontend: str, arguments: tuple[str, ...], expected: str, status: int
) -> None:
    words = [word if word.startswith("--") else str(files.path(word)) for word in arguments]
    common = ("serve", "--model-repository", str(repository), "--frontend", frontend, "--grpc-port", "0")
    ended = run_gristmill(*common, *words)
    assert ended.returncode == status
    assert expected.replace("roots", "root certificates cannot be read") in ended.stderr
