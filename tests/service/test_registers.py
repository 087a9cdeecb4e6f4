"""An adapter with settings of its own, whatever its port, is a class and a register line, and nothing else."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Self

import httpx
import msgspec
import pytest

from headrace.adapters import Context, Register
from headrace.bus import Bus, BusSettings
from headrace.bus.memory import MemoryBus
from headrace.cache import CacheSettings
from headrace.cache.memory import MemoryCache
from headrace.config import Config, Setting, WrongSettings, load
from headrace.config.render import reference
from headrace.database.place import Place
from headrace.inbox import InboxSettings
from headrace.inbox.sqlite import SqliteInbox
from headrace.model.errors import ConfigError
from headrace.model.updates import SlotUpdate
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store.sqlite import SqliteStore
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.service.server import Service
from headrace.service.settings import REGISTERS, SECTIONS, Registers
from headrace.service.worker import run_worker
from headrace.sources import NOTHING_COVERED, Ending, Outlet
from headrace.testing.orders import FixedVenue, ScriptedChain


class OwnVenueSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pays: Annotated[int, msgspec.Meta(ge=1), Setting("what it pays", env=("OWN_PAYS",))]


class OwnVenue(FixedVenue):
    """A venue whose settings have a field without a default."""

    Settings: ClassVar = OwnVenueSettings

    @classmethod
    async def open(cls, settings: OwnVenueSettings, context: Context) -> Self:
        return cls("own", settings.pays)


class OwnChainSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    wallet: Annotated[str, Setting("wallet", env=("OWN_WALLET",))] = "own wallet"


class OwnChain(ScriptedChain):
    """A chain on which whatever is sent lands."""

    Settings: ClassVar = OwnChainSettings

    @classmethod
    async def open(cls, settings: OwnChainSettings, context: Context) -> Self:
        chain = cls()
        chain.owner, chain.on_send = settings.wallet, chain.land
        return chain


class OwnBusSettings(BusSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    server: Annotated[str, Setting("server of the bus", env=("OWN_BUS",))] = "localhost"


class OwnBus(MemoryBus):
    """A bus with a setting more than the bounds of every bus, and a task of its own."""

    Settings = OwnBusSettings
    SECTION = "bus.own"
    opened: ClassVar[list[OwnBusSettings]] = []

    @classmethod
    async def open(cls, settings: BusSettings, context: Context) -> Self:
        assert isinstance(settings, OwnBusSettings)
        cls.opened.append(settings)
        context.tasks.start("bus", "listen", asyncio.Event().wait)
        return cls(settings, context.clock, context.generation)


class SharedBus(OwnBus):
    """A bus that other processes may be on."""

    shared = True


class OwnCacheSettings(CacheSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    colour: Annotated[str, Setting("colour", env=("OWN_COLOUR",))] = "blue"


class OwnCache(MemoryCache):
    Settings = OwnCacheSettings
    SECTION = "cache.own"
    opened: ClassVar[list[CacheSettings]] = []

    @classmethod
    async def open(cls, settings: CacheSettings, context: Context) -> Self:
        cls.opened.append(settings)
        return cls(settings, context.metrics)


class OwnSourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    slots: Annotated[int, Setting("slots to bring", env=("OWN_SLOTS",))] = 1


class OwnSource:
    """A source that brings some slots and is exhausted."""

    Settings: ClassVar[type[msgspec.Struct]] = OwnSourceSettings
    ended: ClassVar[list[str]] = []
    name = "own"
    covered: Mapping[str, int] = {}

    def __init__(self, slots: int) -> None:
        self._slots = slots

    @classmethod
    async def open(cls, settings: OwnSourceSettings, context: Context) -> Self:
        return cls(settings.slots)

    async def run(self, outlet: Outlet, covered: Mapping[str, int] = NOTHING_COVERED) -> Ending:
        for slot in range(1, self._slots + 1):
            await outlet.put(SlotUpdate(feed="own", received_ns=1, source="own", slot=slot, status="processed"))
        return Ending("exhausted", f"{self._slots} slots")

    def update_subscriptions(self, texts: Sequence[str]) -> None:
        """Do nothing: there are no subscriptions."""


class OtherSourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    slots: Annotated[int, Setting("slots to bring", env=("OTHER_SLOTS",))] = 3


class OtherSource(OwnSource):
    Settings = OtherSourceSettings
    name = "other"


class OwnStore(SqliteStore):
    """A store in the place of the registered one."""

    opened: ClassVar[list[ExecutionSettings]] = []

    @classmethod
    async def open(cls, settings: ExecutionSettings, context: Context) -> Self:
        cls.opened.append(settings)
        return await super().open(settings, context)


class OwnInbox(SqliteInbox):
    opened: ClassVar[list[InboxSettings]] = []

    @classmethod
    async def open(cls, settings: InboxSettings, context: Context) -> Self:
        cls.opened.append(settings)
        return await super().open(settings, context)


def with_own(register: Register[Any], adapter: str) -> Register[Any]:
    return Register(register.room, {**register, "own": f"{__name__}:{adapter}"})


OWN: Final = Registers(
    buses=with_own(REGISTERS.buses, "OwnBus"),
    caches=with_own(REGISTERS.caches, "OwnCache"),
    chains=with_own(REGISTERS.chains, "OwnChain"),
    venues=with_own(REGISTERS.venues, "OwnVenue"),
    sources=with_own(REGISTERS.sources, "OwnSource"),
    stores=Register("orders", {"sqlite": f"{__name__}:OwnStore"}, ExecutionSettings),
    inboxes=Register("inbox", {"sqlite": f"{__name__}:OwnInbox"}, InboxSettings),
)


def config_of(folder: Path, toml: str = "", **env: str) -> Config:
    """Load settings for the registers with the adapters of this module."""
    (folder / "headrace.toml").write_text(toml)
    files = {name: str(folder / name) for name in ("ORDERS_FILE", "INBOX_FILE", "MOCK_CHAIN_FILE", "HISTORY_FILE")}
    files["SERVER_ID"] = "own"
    usual = {
        "SERVER_PORT": "0",
        **({} if "[features]" in toml else {"TRANSACTION_LISTENER_ENABLED": "false"}),
        "OWN_PAYS": "7",
        "OWN_WALLET": "w",
        "ORDERS_ENABLED": "true",
    }
    return load(OWN.sections(), env={**files, **usual, **env}, dotenv=None, toml=folder / "headrace.toml")


async def executed(folder: Path, config: Config) -> dict[str, Any]:
    """Run a service with these settings, place an order, and return it when it is over."""
    service = await asyncio.to_thread(Service, config, registers=OWN)
    stop = asyncio.Event()
    async with Supervisor(SystemClock()) as tasks:
        serving = tasks.start("test", "service", partial(service.run, stop))
        await service.started.wait()
        assert service.gateway is not None
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.gateway.port}") as http:
            body = {"tokenIn": "SOL", "tokenOut": "USDC", "uiAmount": "1", "slippageBps": 100}
            placed = await http.post("/api/orders/execute", json=body)
            assert placed.status_code == 201, placed.text
            order: dict[str, Any] = {"status": "PENDING"}
            while order["status"] not in ("CONFIRMED", "FAILED"):
                await asyncio.sleep(0.01)
                order = (await http.get(f"/api/orders/{placed.json()['orderId']}")).json()
        stop.set()
        await serving
    return order


async def test_an_order_is_executed_on_a_venue_and_a_chain_with_settings_of_their_own(tmp_path: Path) -> None:
    toml = '[orders]\nvenues = ["own"]\nchain = "own"\n[venues.own]\npays = 123\n'
    env = {"OWN_PAYS": "456"}
    order = await executed(tmp_path, await asyncio.to_thread(config_of, tmp_path, toml, **env))
    assert (order["status"], order["dex"]) == ("CONFIRMED", "own")
    assert [quote["amountOut"] for quote in order["quotes"]] == ["456"], "the environment comes before the file"


async def test_a_venue_of_ones_own_is_asked_beside_the_others(tmp_path: Path) -> None:
    toml = '[orders]\nvenues = ["raydium", "own", "meteora"]\nchain = "own"\n'
    order = await executed(tmp_path, await asyncio.to_thread(config_of, tmp_path, toml, MOCK_QUOTE_MS="0"))
    assert [quote["dex"] for quote in order["quotes"]] == ["raydium", "own", "meteora"]


async def test_a_bus_and_a_cache_with_settings_of_their_own_are_used(tmp_path: Path) -> None:
    toml = '[bus]\nkind = "own"\nhistory_size = 7\n[cache]\nkind = "own"\n[bus.own]\nserver = "there"\n'
    OwnBus.opened.clear()
    OwnCache.opened.clear()
    order = await executed(
        tmp_path, await asyncio.to_thread(config_of, tmp_path, toml, ORDER_CHAIN="own", MOCK_QUOTE_MS="0")
    )
    assert order["status"] == "CONFIRMED"
    (bus,), (cache,) = OwnBus.opened, OwnCache.opened
    assert (bus.server, bus.history_size, bus.kind) == ("there", 7, "own")
    assert isinstance(cache, OwnCacheSettings)


@pytest.mark.parametrize(
    ("shared", "env", "lanes"),
    [
        (True, {}, ["broadcasts", "orders"]),
        (True, {"TRANSACTION_LISTENER_ENABLED": "true", "SOURCES": "own"}, ["broadcasts", "ingest", "orders"]),
        (True, {"BUS_LANES": "orders"}, ["orders"]),
        (True, {"TRANSACTION_LISTENER_ENABLED": "true", "SOURCES": "own", "BUS_LANES": "broadcasts"}, ["broadcasts"]),
        (False, {}, ["broadcasts", "ingest", "orders"]),
        (False, {"BUS_LANES": "ingest"}, ["ingest"]),
    ],
)
async def test_a_process_claims_the_lanes_of_its_settings_and_serves_without_the_others(
    tmp_path: Path, shared: bool, env: dict[str, str], lanes: list[str]
) -> None:
    buses = Register[Bus]("bus", {"own": f"{__name__}:{'SharedBus' if shared else 'OwnBus'}"})
    config = await asyncio.to_thread(partial(config_of, tmp_path, BUS_KIND="own", ORDER_CHAIN="own", **env))
    service = await asyncio.to_thread(partial(Service, config, registers=OWN._replace(buses=buses)))
    stop = asyncio.Event()
    async with Supervisor(SystemClock()) as tasks:
        serving = tasks.start("test", "service", partial(service.run, stop))
        await service.started.wait()
        assert sorted(service.lanes.led) == lanes
        source = service.health.components().get("source")
        others = source is not None and source.ready and "another process" in source.detail
        assert others == ("ingest" not in lanes)
        stop.set()
        await serving


async def test_switching_the_stream_on_is_refused_where_another_process_publishes_updates(tmp_path: Path) -> None:
    buses = Register[Bus]("bus", {"own": f"{__name__}:SharedBus"})
    env = {"BUS_KIND": "own", "ORDER_CHAIN": "own"}
    config = await asyncio.to_thread(partial(config_of, tmp_path, "[features]\nstream = false\n", **env))
    service = await asyncio.to_thread(partial(Service, config, registers=OWN._replace(buses=buses)))
    stop = asyncio.Event()
    async with Supervisor(SystemClock()) as tasks:
        serving = tasks.start("test", "service", partial(service.run, stop))
        await service.started.wait()
        await asyncio.to_thread((tmp_path / "headrace.toml").write_text, "[features]\nstream = true\n")
        change = config.reload(await asyncio.to_thread(config.read))
        assert not change.applied
        assert [error.key for error in change.errors] == ["features.stream"]
        stop.set()
        await serving


async def test_the_store_and_the_inbox_of_the_registers_are_opened_with_their_sections(tmp_path: Path) -> None:
    OwnStore.opened.clear()
    OwnInbox.opened.clear()
    place = f"sqlite://{tmp_path}/both.db"
    config = await asyncio.to_thread(partial(config_of, tmp_path, DATABASE_URL=place, ORDER_CHAIN="own"))
    order = await executed(tmp_path, config)
    assert order["status"] == "CONFIRMED"
    assert [OwnStore.opened[0].place, OwnInbox.opened[0].place] == [Place("sqlite", f"{tmp_path}/both.db")] * 2


async def test_a_database_that_no_store_is_registered_for_is_refused_by_the_name_of_its_setting(tmp_path: Path) -> None:
    place = "postgresql://user:hush@db/orders"
    config = await asyncio.to_thread(partial(config_of, tmp_path, DATABASE_URL=place))
    with pytest.raises(ConfigError) as raised:
        await run_worker(config, SystemClock(), Metrics(), asyncio.Event(), registers=OWN)
    said = "core.database_url: got postgres (from environment DATABASE_URL), expected one of sqlite"
    assert str(raised.value) == said


async def test_two_sources_run_at_once_each_with_settings_of_its_own(tmp_path: Path) -> None:
    twice = Registers(sources=Register("sources", {"own": f"{__name__}:OwnSource", "other": f"{__name__}:OtherSource"}))
    env = {"SOURCES": "own,other", "OWN_SLOTS": "7", "GATEWAY_ENABLED": "false", "ORDERS_ENABLED": "false"}
    env |= {
        "INBOX_FILE": str(tmp_path / "inbox.db"),
        "HISTORY_ENABLED": "false",
        "SOLANA_RPC_URL": "http://127.0.0.1:1",
    }
    config = load(twice.sections(), env=env, dotenv=None, toml=None)
    service = await asyncio.to_thread(Service, config, registers=twice)
    stop = asyncio.Event()
    async with Supervisor(SystemClock()) as tasks:
        serving = tasks.start("test", "service", partial(service.run, stop))
        await service.started.wait()
        while service.pipeline.head["processed"] != 7:  # noqa: ASYNC110  (seen from outside only)
            await asyncio.sleep(0.01)
        while len(details(service)) < 2 or "running" in details(service):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert details(service) == ["exhausted 3 slots", "exhausted 7 slots"]
        stop.set()
        await serving


def test_sources_without_nodes_need_an_endpoint_for_rpc() -> None:
    own = Registers(sources=Register("sources", {"own": f"{__name__}:OwnSource"}))
    config = load(own.sections(), env={"SOURCES": "own"}, dotenv=None, toml=None)
    with pytest.raises(ConfigError, match="SOLANA_RPC_URL: got nothing"):
        Service(config, registers=own)


@pytest.mark.parametrize(
    ("env", "kinds"),
    [
        ({}, ("rpc_pubsub",)),
        ({"SOLANA_RPC_WS": "ws://127.0.0.1:1"}, ("rpc_pubsub",)),
        ({"YELLOWSTONE_URLS": "http://127.0.0.1:1"}, ("yellowstone",)),
        ({"YELLOWSTONE_URLS": ""}, ("rpc_pubsub",)),
        (
            {"YELLOWSTONE_URLS": "http://127.0.0.1:1", "SOLANA_RPC_WS": "ws://127.0.0.1:1"},
            ("rpc_pubsub", "yellowstone"),
        ),
        ({"YELLOWSTONE_URLS": "http://127.0.0.1:1", "SOURCES": "rpc_pubsub"}, ("rpc_pubsub",)),
    ],
)
def test_sources_are_those_that_are_named_else_those_with_endpoints(
    env: dict[str, str], kinds: tuple[str, ...]
) -> None:
    assert REGISTERS.kinds(load(SECTIONS, env=env, dotenv=None, toml=None)) == kinds


def details(service: Service) -> list[str]:
    parts = service.health.components().items()
    return sorted(state.detail for name, state in parts if name.startswith("source:"))


@pytest.mark.parametrize(
    ("setting", "known"),
    [
        ("BUS_KIND", "bus.kind: got other (from environment BUS_KIND), expected one of memory, own, redis"),
        ("CACHE_KIND", "cache.kind: got other (from environment CACHE_KIND), expected one of memory, own"),
        ("ORDER_CHAIN", "orders.chain: got other (from environment ORDER_CHAIN), expected one of local, mock, own"),
        (
            "ORDER_VENUES",
            "orders.venues: got other (from environment ORDER_VENUES), expected one of meteora, own, pools, raydium",
        ),
        (
            "SOURCES",
            "sources.kinds: got other (from environment SOURCES), expected one of "
            "own, recording, rpc_pubsub, yellowstone",
        ),
    ],
)
async def test_an_unknown_name_is_refused_before_anything_is_opened(tmp_path: Path, setting: str, known: str) -> None:
    config = await asyncio.to_thread(partial(config_of, tmp_path, **{setting: "other"}))
    with pytest.raises(ConfigError) as raised:
        await asyncio.to_thread(Service, config, registers=OWN)
    assert str(raised.value) == known
    with pytest.raises(ConfigError, match="expected one of"):
        await run_worker(config, SystemClock(), Metrics(), asyncio.Event(), registers=OWN)
    assert not await asyncio.to_thread(lambda: [*tmp_path.glob("*FILE*")])


def test_a_required_setting_of_an_adapter_is_asked_for_and_named(tmp_path: Path) -> None:
    with pytest.raises(WrongSettings, match=r"venues\.own\.pays: got nothing"):
        load(OWN.sections(), env={}, dotenv=None, toml=None)


def test_the_reference_shows_adapters_of_the_register_and_each_inherited_setting_once() -> None:
    page = reference(OWN.sections())
    assert "## [venues.own]\n" in page
    assert "## [bus.own]\n" in page
    assert page.count("BUS_HISTORY_SIZE") == 1


def test_by_default_the_mock_venues_are_asked() -> None:
    config = load(SECTIONS, env={}, dotenv=None, toml=None)
    REGISTERS.check(config)
    assert config.section(ExecutionSettings).venues == ("meteora", "raydium")
