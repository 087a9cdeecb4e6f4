"""`headrace check`: the checklist of a deployment, for these settings on this machine. Starts and changes nothing."""

import asyncio
import resource
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from headrace.config import Config, CoreSettings, Features
from headrace.gateway.auth.settings import AuthSettings
from headrace.gateway.server import Gateway
from headrace.gateway.settings import AdmissionSettings, GatewaySettings, TlsSettings
from headrace.model.errors import ConfigError
from headrace.orders.settings import ExecutionSettings
from headrace.service.preflight import find_errors
from headrace.service.settings import Registers
from headrace.sources.settings import NodeSourceSettings

Grade: TypeAlias = Literal["fine", "careful", "fails"]

REACH_S: Final = 3.0
"""Longest wait for a connection in seconds."""

SPARE_FILES: Final = 256
"""Open files of a server besides its clients': databases, nodes, logs."""

PUBLIC_NODES: Final = ("api.mainnet-beta.solana.com", "api.devnet.solana.com", "api.testnet.solana.com")
PORTS: Final[Mapping[str, int]] = {
    "ws": 80, "wss": 443, "http": 80, "https": 443,
    "redis": 6379, "rediss": 6379, "postgres": 5432, "postgresql": 5432,
}  # fmt: skip


class Finding(NamedTuple):
    """One line of the checklist. `fails`: do not let others in like this; `careful`: perhaps not what is wanted."""

    grade: Grade
    text: str


def check(config: Config, registers: Registers) -> int:
    """Print the checklist; return 1 if something fails, else 0."""
    soft_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    found = [*of_settings(config, registers), of_files(config, soft_limit)]
    found += asyncio.run(of_servers(config, registers))
    for grade, text in found:
        print(f"{grade:<8} {text}")
    return 1 if any(each.grade == "fails" for each in found) else 0


def of_settings(config: Config, registers: Registers) -> Iterator[Finding]:
    """Yield what the settings alone show."""
    errors = find_errors(config, registers)
    for error in errors:
        yield Finding("fails", str(error))
    if not errors:
        yield Finding("fine", "all settings are accepted")
    for warning in config.warnings:
        yield Finding("careful", warning)
    if config.section(Features).gateway:
        yield from _of_access(config)
        yield from _of_address(config)
    core, orders = config.section(CoreSettings), config.section(ExecutionSettings)
    if core.redis_url and not core.database_url:
        text = "REDIS_URL joins servers, but without DATABASE_URL each has orders and messages to users of its own"
        yield Finding("careful", text)
    if orders.enabled and orders.chain == "mock":
        yield Finding("careful", "ORDER_CHAIN is mock: orders are executed on no chain, and no money moves")
    if config.section(Features).stream:
        for host in sorted({urlsplit(url).hostname or "" for url in _nodes(config, registers)} & {*PUBLIC_NODES}):
            yield Finding("careful", f"{host} is a public node, which limits and drops: name one of your own")


def of_files(config: Config, soft_limit: int) -> Finding:
    """Return whether the open files of a process suffice for the WebSockets that the server takes."""
    needed = config.section(GatewaySettings).connections_max + SPARE_FILES
    if soft_limit in (resource.RLIM_INFINITY, -1) or soft_limit >= needed:
        return Finding("fine", f"open files: {needed} are needed at most")
    return Finding(
        "fails", f"open files: the limit is {soft_limit}, WEBSOCKET_MAX_CONNECTIONS needs {needed} (ulimit -n)"
    )


async def of_servers(config: Config, registers: Registers) -> list[Finding]:
    """Return whether the database, Redis and the nodes take connections. Nothing is sent to them."""
    core = config.section(CoreSettings)
    urls = {"DATABASE_URL": core.database_url, "REDIS_URL": core.redis_url}
    if config.section(Features).stream:
        urls |= {f"node {urlsplit(url).hostname}": url for url in _nodes(config, registers)}
    asked = [(name, *place) for name, url in urls.items() if url and (place := _place(url))]
    return await asyncio.gather(*(_reach(*each) for each in asked))


def _place(url: str) -> tuple[str, int] | None:
    """Return host and port of a URL, whose scheme may be missing; None for a socket in the file system."""
    parts = urlsplit(url if "://" in url else f"//{url}")
    port = parts.port or PORTS.get(parts.scheme)
    return None if not parts.hostname or port is None else (parts.hostname, port)


async def _reach(name: str, host: str, port: int) -> Finding:
    try:
        async with asyncio.timeout(REACH_S):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Finding("fails", f"{name}: {host}:{port} does not answer within {REACH_S:g} s")
    except OSError as error:
        return Finding("fails", f"{name}: {host}:{port} can't be reached: {error.strerror or error}")
    writer.close()
    return Finding("fine", f"{name}: {host}:{port} takes connections")


def _of_access(config: Config) -> Iterator[Finding]:
    """Yield who can come in, and whether they can be told apart."""
    host, auth = config.section(GatewaySettings).host, config.section(AuthSettings)
    admission = config.section(AdmissionSettings)
    if _is_loopback(host):
        yield Finding("fine", f"SERVER_HOST {host} lets only this machine in")
        return
    if auth.mode == "off":
        text = "AUTH_MODE is off: everybody who reaches the port may read all topics and place orders"
        yield Finding("fails", text)
    if not config.section(TlsSettings).cert_file and not admission.trusted_proxies:
        yield Finding("careful", "neither TLS_CERT_FILE nor TRUSTED_PROXIES: who encrypts, and whose address counts?")
    if "*" in admission.origins:
        yield Finding("careful", "ALLOWED_ORIGINS is *: pages of every site may act for their visitors")
    if auth.mode != "off" and auth.metrics_open:
        yield Finding("careful", "/metrics answers everybody: AUTH_METRICS_OPEN=false, or close it at the proxy")


def _of_address(config: Config) -> Iterator[Finding]:
    """Yield whether the server could have its address now. A port that is taken may be its own, so `careful`."""
    try:
        Gateway.bind(config.section(GatewaySettings)).close()
    except ConfigError as error:
        yield Finding("fails" if error.key == "SERVER_HOST" else "careful", str(error))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _nodes(config: Config, registers: Registers) -> list[str]:
    """Return the endpoints of the chosen sources, each once."""
    found: dict[str, None] = {}
    for settings in registers.subscribed(config):
        if isinstance(settings, NodeSourceSettings) and settings.ENDPOINTS:
            found |= dict.fromkeys(getattr(settings, settings.ENDPOINTS))
    return list(found)
