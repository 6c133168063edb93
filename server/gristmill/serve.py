# SPDX-License-Identifier: Apache-2.0
"""Run a server from its options to its end: bind, load, report, serve, drain."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gristmill.control.inference_service import InferenceService, ServiceOptions
from gristmill.control.services import HealthReporter, add_services
from gristmill.core import create_engine
from gristmill.frontend import BufferLimits, create_frontend
from gristmill.frontend.tls import ServerTls, TlsError
from gristmill.options import ServerOptions
from gristmill.repository.loader import VersionLoader, core_options
from gristmill.repository.manager import ManagerOptions, ModelControlMode, ModelManager
from gristmill.repository.model_record import IndexEntry

if TYPE_CHECKING:
    from gristmill._core import Engine

# For the table of models when no terminal says how wide it is.
_PIPE_COLUMNS = 160
# For the answer of a call that came in just before the end to reach its client.
_STREAM_GRACE_S = 0.5
_UNIX = "unix:"

_log = logging.getLogger(__name__)


class Server:
    """One server in the running loop. bind -> start -> wait for the end -> stop."""

    def __init__(self, options: ServerOptions, engine: Engine) -> None:
        """`engine` serves nobody else."""
        from gristmill import _core

        self.options = options
        self._reporter = HealthReporter()
        loader = VersionLoader(engine, core_options, options.default_max_batch_size, options.host_policies)
        self.manager = ModelManager(
            ManagerOptions(
                options.model_repositories, options.model_control_mode, options.load_models, options.load_threads
            ),
            engine,
            loader,
            self._report,
        )
        self._service = InferenceService(self.manager, ServiceOptions(_core.__version__, options.strict_readiness))
        self._frontend = create_frontend(options, engine)
        add_services(self._frontend.server, self._service, self._reporter)
        self._background: list[asyncio.Task[None]] = []
        self._tls: ServerTls | None = None
        self.port = options.grpc_port

    @property
    def calls(self) -> int:
        """Calls of ModelInfer not yet answered."""
        return self._frontend.calls

    @property
    def address(self) -> str:
        """Where it listens, once it is bound, in gRPC's words."""
        host = self.options.host
        if host.startswith(_UNIX):
            return host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def bind(self) -> None:
        """Open the port. Raises OSError, or TlsError if its certificate cannot be used."""
        if self.options.tls is not None:
            self._tls = ServerTls(self.options.tls)
        self.port = self._frontend.bind(self.address, self._tls)

    async def start(self) -> None:
        """Answer calls, load the models, and begin to poll. Raises RepositoryError if a repository cannot be read."""
        await self._reporter.set_server(False)
        await self._frontend.start()
        await self.manager.start()
        await self._report_server()
        if self.options.model_control_mode is ModelControlMode.POLL:
            self._background.append(asyncio.create_task(self.manager.run_polling(self._wait_for_poll)))
        if self._tls is not None:
            self._background.append(asyncio.create_task(self._follow_tls_files(self._tls)))

    async def stop(self) -> bool:
        """Take no new call, let those in flight finish within the grace period, and say whether all did."""
        await self._reporter.shut_down()
        for task in self._background:
            task.cancel()
        grace_s = self.options.exit_timeout_s
        _log.info("waiting for %d requests, for at most %g s", self.calls, grace_s)
        stopping = asyncio.create_task(self._frontend.server.stop(grace_s))
        try:
            async with asyncio.timeout(grace_s):
                await self._frontend.wait_idle()
                await self.manager.close()
        except TimeoutError:
            _log.warning("%d requests were not answered within the grace period", self.calls)
            return False
        # Only streams that nobody ends, such as health watches, are left.
        await self._frontend.server.stop(min(grace_s, _STREAM_GRACE_S))
        await stopping
        self._frontend.close()
        return True

    async def _wait_for_poll(self) -> None:
        await asyncio.sleep(self.options.repository_poll_s)

    async def _follow_tls_files(self, tls: ServerTls) -> None:
        while True:
            await asyncio.sleep(self.options.tls_reload_s)
            try:
                if await asyncio.to_thread(tls.reload):
                    _log.info("new connections get the certificate that is in %s now", self.options.tls)
            except TlsError as error:
                _log.warning("the TLS files have changed and are not used: %s", error)

    async def _report(self, model: str, ready: bool) -> None:
        await self._reporter.set_model(model, ready)
        await self._report_server()

    async def _report_server(self) -> None:
        await self._reporter.set_server(self._service.ready)


def index_table(entries: list[IndexEntry]) -> Table:
    """What is served and what is not, for people."""
    table = Table("Model", "Version", "Status", "Backend", "Reason")
    for entry in entries:
        style = "green" if entry.ready else "red"
        table.add_row(entry.name, entry.version, f"[{style}]{entry.state}[/]", entry.backend, escape(entry.reason))
    return table


async def run(options: ServerOptions) -> None:
    """Serve until a signal to end. A second signal ends the process at once.

    So does the end of the grace period, with status 0, since executors that are still busy would hold up an ordinary
    end. Raises OSError, RepositoryError, TlsError or CoreMissingError if the server cannot start.
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _signal_handler(ended, number))
    engine = create_engine(
        intra_op_threads=options.intra_op_threads,
        max_answer_bytes=BufferLimits.of(options).answer_bytes,
        response_cache_bytes=options.response_cache_bytes,
        resources=options.resources,
    )
    server = Server(options, engine)
    server.bind()
    starting = asyncio.create_task(server.start())
    ending = asyncio.create_task(ended.wait())
    await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        await starting
        await _announce(server)
    await ending
    starting.cancel()
    if not await server.stop():
        _exit_now(0)


async def _announce(server: Server) -> None:
    console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    console.print(index_table(await server.manager.index()))
    protocol = "gRPC over TLS" if server.options.tls else "gRPC"
    console.print(f"{protocol} ({server.options.frontend}) listening on {server.address}", highlight=False)
    sys.stdout.flush()


def _signal_handler(ended: asyncio.Event, number: signal.Signals) -> Callable[[], None]:
    def handle() -> None:
        if ended.is_set():
            _log.warning("ending at once on a second signal, %s", number.name)
            _exit_now(128 + number)
        _log.info("ending on %s", number.name)
        ended.set()

    return handle


def _exit_now(status: int) -> NoReturn:
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)
