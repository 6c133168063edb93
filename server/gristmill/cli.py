# SPDX-License-Identifier: Apache-2.0
"""The `gristmill` command: `serve` here, everything that talks to a running server from the client package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer
import uvloop
from gristmill_client.cli import register

from gristmill.core import CoreMissingError
from gristmill.frontend.tls import TlsError
from gristmill.logs import configure_logging
from gristmill.options import Compression, Frontend, LogFormat, LogLevel, ServerOptions, TlsFiles
from gristmill.repository.errors import RepositoryError
from gristmill.repository.host_policy import parse_cpus
from gristmill.repository.manager import ModelControlMode
from gristmill.serve import run

EXIT_FAILURE = 1
EXIT_USAGE = 2

app = typer.Typer(name="gristmill", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
register(app)


@app.callback()
def gristmill() -> None:
    """Serve models over gRPC, and talk to servers that do."""


@app.command()
def serve(
    model_repository: Annotated[list[Path], typer.Option(help="Directory of models; may be repeated.")],
    host: Annotated[str, typer.Option(help="Address to listen on, or unix:path.")] = "0.0.0.0",
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0 lets the system choose.")] = 8001,
    frontend: Annotated[Frontend, typer.Option(help="What takes requests from the network.")] = Frontend.NATIVE,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file of the server's certificate chain; then the port speaks TLS only.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's private key.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="PEM file of authorities; then every client needs a certificate of theirs.")
    ] = None,
    tls_reload_secs: Annotated[
        float, typer.Option(min=0.1, help="Between two looks at whether the TLS files have changed.")
    ] = 10.0,
    response_compression: Annotated[
        Compression, typer.Option(help="Of answers, for clients that accept it.")
    ] = Compression.NONE,
    reuse_port: Annotated[bool, typer.Option(help="Share the port with other servers.")] = False,
    keepalive_time_secs: Annotated[
        float, typer.Option(min=0.001, help="A client not heard of for so long is sent a ping.")
    ] = 7200.0,
    keepalive_timeout_secs: Annotated[float, typer.Option(min=0.001, help="Within which it must answer.")] = 20.0,
    max_connection_idle_secs: Annotated[
        float, typer.Option(min=0, help="Without calls, before a connection is told to go; 0: never.")
    ] = 0.0,
    max_connection_age_secs: Annotated[
        float, typer.Option(min=0, help="Before a connection is told to go; 0: never.")
    ] = 0.0,
    max_connection_age_grace_secs: Annotated[
        float, typer.Option(min=0, help="For the calls on a connection of age; 0: no limit.")
    ] = 0.0,
    io_threads: Annotated[
        int, typer.Option(min=0, help="Event loops of the native front end; 0: one for every two cores.")
    ] = 0,
    max_message_bytes: Annotated[int, typer.Option(min=-1, help="Of one request or answer; -1: no limit.")] = -1,
    max_buffered_bytes: Annotated[
        int,
        typer.Option(min=0, help="Requests and answers that the native front end may hold; 0: half of the memory."),
    ] = 0,
    model_control_mode: Annotated[
        ModelControlMode,
        typer.Option(help="none: what is there at start; poll: follow the repository; explicit: load on request."),
    ] = ModelControlMode.NONE,
    load_model: Annotated[
        list[str] | None, typer.Option(help="Model to load at start in explicit mode; may be repeated; '*': all.")
    ] = None,
    repository_poll_secs: Annotated[float, typer.Option(min=0.1, help="Between two scans in poll mode.")] = 15.0,
    exit_timeout_secs: Annotated[float, typer.Option(min=0, help="Grace for requests in flight at the end.")] = 30.0,
    intra_op_threads: Annotated[int, typer.Option(min=0, help="Threads per run of a model; 0: all cores.")] = 0,
    load_threads: Annotated[int, typer.Option(min=1, help="Models loaded at the same time.")] = 4,
    default_max_batch_size: Annotated[
        int, typer.Option(min=0, help="For models that can be batched and do not say; 0: do not batch them.")
    ] = 64,
    response_cache_bytes: Annotated[
        int, typer.Option(min=0, help="For answers of models whose configuration says response_cache; 0 keeps none.")
    ] = 64 << 20,
    rate_limit_resource: Annotated[
        list[str] | None,
        typer.Option(help="NAME=COUNT of a resource that models' rate_limiter names; may be repeated."),
    ] = None,
    host_policy: Annotated[
        list[str] | None, typer.Option(help="NAME=CPUS, 0-3,8 say, that models' host_policy names; may be repeated.")
    ] = None,
    strict_readiness: Annotated[bool, typer.Option(help="Ready only while every model is.")] = False,
    log_level: Annotated[LogLevel, typer.Option(help="Least severe line to write.")] = LogLevel.INFO,
    log_format: Annotated[LogFormat, typer.Option(help="Form of log lines on standard error.")] = LogFormat.TEXT,
) -> None:
    """Serve the models of a repository until SIGTERM or SIGINT.

    Exit status: 0 after an orderly end, 1 if the server cannot start, 2 on wrong usage.
    """
    configure_logging(log_level, log_format)
    for repository in model_repository:
        if not repository.is_dir():
            _fail(EXIT_USAGE, f"--model-repository {repository}: no such directory; create it or correct the path")
    if (tls_certificate is None) != (tls_key is None):
        _fail(EXIT_USAGE, "--tls-certificate and --tls-key belong together: give both or neither")
    if tls_client_ca and not tls_certificate:
        _fail(EXIT_USAGE, "--tls-client-ca needs --tls-certificate and --tls-key")
    if load_model and model_control_mode is not ModelControlMode.EXPLICIT:
        _fail(EXIT_USAGE, f"--load-model needs --model-control-mode explicit, not {model_control_mode}")
    options = ServerOptions(
        model_repositories=[repository.resolve() for repository in model_repository],
        host=host,
        grpc_port=grpc_port,
        frontend=frontend,
        reuse_port=reuse_port,
        tls=TlsFiles(tls_certificate, tls_key, tls_client_ca) if tls_certificate and tls_key else None,
        tls_reload_s=tls_reload_secs,
        response_compression=response_compression,
        max_buffered_bytes=max_buffered_bytes,
        keepalive_time_s=keepalive_time_secs,
        keepalive_timeout_s=keepalive_timeout_secs,
        max_connection_idle_s=max_connection_idle_secs,
        max_connection_age_s=max_connection_age_secs,
        max_connection_age_grace_s=max_connection_age_grace_secs,
        io_threads=io_threads,
        max_message_bytes=max_message_bytes,
        model_control_mode=model_control_mode,
        load_models=load_model or [],
        repository_poll_s=repository_poll_secs,
        exit_timeout_s=exit_timeout_secs,
        intra_op_threads=intra_op_threads,
        load_threads=load_threads,
        default_max_batch_size=default_max_batch_size,
        response_cache_bytes=response_cache_bytes,
        resources=dict(_resource(text) for text in rate_limit_resource or []),
        host_policies=dict(_host_policy(text) for text in host_policy or []),
        strict_readiness=strict_readiness,
    )
    try:
        uvloop.run(run(options))
    except (OSError, RepositoryError, CoreMissingError, TlsError) as error:
        _fail(EXIT_FAILURE, str(error))


def _resource(text: str) -> tuple[str, int]:
    name, _, count = text.rpartition("=")
    if not name or not count.isdecimal() or int(count) == 0:
        _fail(EXIT_USAGE, f"--rate-limit-resource {text}: expected NAME=COUNT with a count of 1 or more")
    return name, int(count)


def _host_policy(text: str) -> tuple[str, frozenset[int]]:
    name, _, cpus = text.rpartition("=")
    if not name:
        _fail(EXIT_USAGE, f"--host-policy {text}: expected NAME=CPUS")
    try:
        return name, parse_cpus(cpus)
    except ValueError as error:
        _fail(EXIT_USAGE, f"--host-policy {text}: {error}")


def _fail(status: int, message: str) -> NoReturn:
    typer.echo(f"gristmill serve: {message}", err=True)
    raise typer.Exit(status)


def main() -> None:
    """The console script."""
    app()
