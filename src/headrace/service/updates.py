"""Parts before and next to the pipeline: the layouts for decoding, the node's RPC, the recorder, the market."""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from headrace.config import Config, CoreSettings
from headrace.cores import UNREADABLE
from headrace.decoders.registry import Programs
from headrace.ingest.known import pair_of_pool
from headrace.market import MarketSettings
from headrace.market.metrics import MarketMetrics
from headrace.market.stats import Stats
from headrace.model.updates import AnyUpdate, weight_of
from headrace.runtime.breaker import Breaker
from headrace.runtime.channel import Channel
from headrace.runtime.clock import Clock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.service.settings import REGISTERS, ProgramSettings, Registers
from headrace.solana.rpc import Rpc, RpcSettings
from headrace.sources import Outlet
from headrace.sources.pools import PoolLookup, PoolSettings
from headrace.sources.recording import Recorder, RecorderSettings
from headrace.sources.recording_file import RecordingHeader

COMMCOIN: Final = "commcoin"
OUTLET_CAPACITY: Final = 16_384
"""Maximum number of updates in the queue: as many as the pipeline takes in two seconds. A stop waits no longer."""
OUTLET_BYTES: Final = 32 * 1024 * 1024


def new_outlet(name: str) -> Outlet:
    """Return the queue after a source. If it is full, the source waits, and nothing is dropped."""
    return Channel[AnyUpdate](OUTLET_CAPACITY, "block", name=name, weigh=weight_of, weight_max=OUTLET_BYTES)


def load_programs(config: Config) -> Programs:
    """Return the shipped layouts and those of the IDL folder. Raises ConfigError naming a wrong file."""
    folder = config.section(ProgramSettings).idl_folder
    addresses = {COMMCOIN: config.section(CoreSettings).commcoin_program_id}
    return Programs.load(*([Path(folder)] if folder else []), addresses=addresses)


def new_resolver(config: Config, programs: Callable[[], Programs]) -> Callable[[str], str]:
    """Return a function that returns a program's id by name, and raises KeyError for an unknown name."""

    def resolve(name: str) -> str:
        known = programs().by_name
        if name not in known and name == COMMCOIN:
            return config.section(CoreSettings).commcoin_program_id
        return known[name].program_id

    return resolve


def open_rpc(config: Config, clock: Clock, registers: Registers = REGISTERS) -> Rpc:
    """Return the HTTP client for the configured nodes. The caller closes it."""
    urls = registers.rpc_urls(config)
    return Rpc(urls, clock=clock, settings=config.section(RpcSettings), breakers=[Breaker() for _ in urls])


def open_market(config: Config, metrics: Metrics) -> Stats | None:
    """Return the market statistics; None if they are switched off."""
    settings = config.section(MarketSettings)
    if not settings.enabled:
        return None
    stats = Stats(settings)
    metrics.registry.register(MarketMetrics(stats))
    return stats


def open_pools(
    config: Config, rpc: Rpc, programs: Programs, outlet: Outlet, clock: Clock, metrics: Metrics
) -> PoolLookup:
    """Return the look-up of pools, which puts its answers on `outlet`."""

    def read(owner: str, data: bytes) -> tuple[str, str] | None:
        try:
            account = programs.account(owner, data)
        except UNREADABLE:
            return None
        return None if account is None else pair_of_pool(account.program, account.name, account.data)

    return PoolLookup(rpc, outlet, read, settings=config.section(PoolSettings), clock=clock, metrics=metrics)


def new_recorder(
    path: Path,
    config: Config,
    clock: Clock,
    health: Health | None = None,
    *,
    append: bool = False,
    registers: Registers = REGISTERS,
) -> Recorder:
    """Return a recorder for `path`, with a new id. With `append`, an existing file continues with its own id."""
    feeds = tuple(text for settings in registers.subscribed(config) for text in settings.subscriptions)
    header = RecordingHeader(id=secrets.token_hex(8), started_ns=clock.wall_ns(), sources=feeds)
    interval_s = config.section(RecorderSettings).flush_interval_s
    return Recorder(path, header, clock, append=append, health=health, flush_interval_s=interval_s)
