"""The commands that run the service: serve, worker, demo and replay."""

import asyncio
import os
import socket
import sys
import webbrowser
from collections.abc import Callable, Coroutine
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from headrace.adapters import Context
from headrace.cli.arguments import SERVER_URL
from headrace.cli.listening import print_values
from headrace.config import Config, CoreSettings
from headrace.gateway.auth.settings import AuthSettings
from headrace.gateway.settings import GatewaySettings, TlsSettings
from headrace.model.errors import BadInputError, FencedError
from headrace.runtime import garbage
from headrace.runtime.clock import SystemClock
from headrace.runtime.log import configure
from headrace.runtime.metrics import Metrics
from headrace.runtime.signals import stopped_by_signals
from headrace.runtime.supervise import Supervisor
from headrace.service.migrate import migrate as update_databases
from headrace.service.server import Service
from headrace.service.worker import run_worker
from headrace.sources import Source
from headrace.sources.recording import Recording, header_of

DEMO: Final = "demo.hrec"

_log = structlog.get_logger("serve")

Greeting = Callable[[Service, str], Coroutine[Any, Any, None]]


def serve(config: Config, *, record: Path | None) -> int:
    """Stream from the configured nodes until a signal ends the process.

    A server that was stopped for so long that another took over its work begins again, as one of the others.
    """
    while True:
        try:
            run(_serve_until_signal(Service(config, record=record)))
        except FencedError as error:
            _log.warning("begins_again", error=str(error))
        else:
            return 0


def migrate(config: Config) -> int:
    """Bring the databases up to date."""

    async def print_lines() -> None:
        async for line in update_databases(config, SystemClock()):
            print(line)

    run(print_lines())
    return 0


def work(config: Config) -> int:
    """Execute orders of the shared database until a signal ends the process."""

    async def until_signal() -> None:
        stop = asyncio.Event()
        with stopped_by_signals(stop):
            _log.info("working", concurrency=config.section(CoreSettings).queue_max_concurrency)
            await run_worker(config, SystemClock(), Metrics(), stop)

    run(until_signal())
    return 0


def replay(config: Config, file: Path, *, speed: float | None, loop: bool) -> int:
    """Serve a recording as if it happened now."""
    run(_serve_until_signal(_player(config, file, speed=speed, loop=loop, orders=False)))
    return 0


def demo(config: Config, *, speed: float | None, follow_here: bool, browser: bool) -> int:
    """Play the included recording in a loop, open it in a browser, print its trades, and accept orders."""
    configure("warning", config.section(CoreSettings).log_format)

    async def greet(service: Service, url: str) -> None:
        print(f"\n  Headrace plays recorded mainnet trades.\n\n  page       {url}/", file=sys.stderr)
        print(f"  websocket  {url.replace('http', 'ws', 1)}/ws", file=sys.stderr)
        place = f"headrace orders place SOL USDC 1.5 --watch{'' if url == SERVER_URL else f' --url {url}'}"
        print(f"  orders     {place}\n\n  Ctrl-C ends it.\n", file=sys.stderr)
        if browser and (sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            await asyncio.to_thread(webbrowser.open, f"{url}/")
        if follow_here and service.config.section(AuthSettings).mode == "off":
            topics = [f"trades:{program}" for program in sorted(service.programs.by_name)]
            await print_values(f"{url.replace('http', 'ws', 1)}/ws", [*topics, "token_updates"])

    with resources.as_file(resources.files("headrace.data") / DEMO) as file:
        run(_serve_until_signal(_player(config, file, speed=speed, loop=True, orders=True), greet))
    return 0


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop, which delivers a third more frames than asyncio's own loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(_report_unless_lookup)
        runner.run(work)


def _report_unless_lookup(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report an exception of the event loop, unless it is the failure of a name look-up.

    uvloop also reports the failure of a look-up that was cancelled, as an exception that was never retrieved.
    """
    if not isinstance(context.get("exception"), socket.gaierror):
        loop.default_exception_handler(context)


def generation_of(file: Path) -> str:
    """Return a recording's id, with which its epochs begin.

    Raises BadInputError naming the file if it is not a recording.
    """
    try:
        return header_of(file).id
    except BadInputError as error:
        raise BadInputError(f"{file}: {error.reason}", error.detail) from error


def _player(config: Config, file: Path, *, speed: float | None, loop: bool, orders: bool) -> Service:
    async def open_recording(context: Context) -> Source:
        return Recording(file, context.clock, speed=speed, loop=loop)

    return Service(
        config,
        source=open_recording,
        generation=generation_of(file),
        play=True,
        orders=orders,
    )


async def _serve_until_signal(service: Service, greet: Greeting | None = None) -> None:
    garbage.settle()
    stop = asyncio.Event()
    with stopped_by_signals(stop):
        async with Supervisor(service.clock) as tasks:
            serving = tasks.start("serve", "service", partial(service.run, stop))
            greeting = tasks.start("serve", "greeting", partial(_greet, service, greet))
            stopping = tasks.start("serve", "stopping", stop.wait)
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                _log.info("stopping", reason="a signal")
            greeting.cancel()  # before the gateway ends, because the greeting would report a lost connection
            await asyncio.wait([serving])
            stopping.cancel()
    _log.info("stopped")


async def _greet(service: Service, greet: Greeting | None) -> None:
    """Log the URL once the port is open, then run `greet`."""
    await service.started.wait()
    if service.gateway is None:
        return
    host = service.config.section(GatewaySettings).host
    scheme = "https" if service.config.section(TlsSettings).cert_file else "http"
    url = f"{scheme}://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{service.gateway.port}"  # noqa: S104
    if greet is not None:
        await greet(service, url)
    else:
        _log.info("serving", url=url, programs=len(service.programs.by_name))
