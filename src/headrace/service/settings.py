"""The adapters to choose from, and the sections of `headrace.toml`, which packages and adapters declare."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from headrace.adapters import Register
from headrace.bus import BUSES, Bus, BusSettings, bus_kind
from headrace.cache import CACHES, Cache, CacheSettings
from headrace.chains import CHAINS, Chain
from headrace.cluster import CLUSTERS, Cluster, ClusterSettings
from headrace.config import CORE_SECTIONS, Config, CoreSettings, Features, Setting
from headrace.cores import AUTO
from headrace.gateway.auth.settings import AuthSettings
from headrace.gateway.settings import AdmissionSettings, GatewaySettings, TlsSettings
from headrace.history import HISTORIES, History, HistorySettings
from headrace.inbox import INBOXES, Inbox, InboxSettings
from headrace.market import MarketSettings
from headrace.model.errors import ConfigError
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store import STORES, Store
from headrace.redis import RedisSettings
from headrace.solana.rpc import RpcSettings
from headrace.sources import SOURCES, Source, SourceSettings
from headrace.sources.checkpoints import CHECKPOINTS, Checkpoints, CheckpointSettings
from headrace.sources.pools import PoolSettings
from headrace.sources.recording import RecorderSettings
from headrace.sources.settings import NodeSourceSettings
from headrace.venues import VENUES, Venue

DEFAULT_SOURCE: Final = "rpc_pubsub"
"""The source of a service whose settings name neither sources nor endpoints."""


class ProgramSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[programs]`: which layouts are known."""

    idl_folder: Annotated[
        str, Setting("folder of Anchor IDLs (*.json) to decode besides the shipped ones", env=("IDL_FOLDER",))
    ] = ""
    core: Annotated[
        str, Setting("the core that decodes: `auto` (the fastest that is installed), `python`, `rust`", env=("CORE",))
    ] = AUTO


class Registers(NamedTuple):
    """The adapters of each port. A process uses these unless a test passes others."""

    buses: Register[Bus] = BUSES
    caches: Register[Cache] = CACHES
    chains: Register[Chain] = CHAINS
    venues: Register[Venue] = VENUES
    sources: Register[Source] = SOURCES
    stores: Register[Store] = STORES
    inboxes: Register[Inbox] = INBOXES
    histories: Register[History] = HISTORIES
    clusters: Register[Cluster] = CLUSTERS
    checkpoints: Register[Checkpoints] = CHECKPOINTS

    def sections(self) -> dict[str, type[msgspec.Struct]]:
        """Return all sections of the settings, those of the adapters last."""
        ports: dict[str, type[msgspec.Struct]] = {
            **CORE_SECTIONS,
            "gateway": GatewaySettings,
            "admission": AdmissionSettings,
            "tls": TlsSettings,
            "auth": AuthSettings,
            "sources": SourceSettings,
            **self.sources.sections(),
            "rpc": RpcSettings,
            "pools": PoolSettings,
            "programs": ProgramSettings,
            "redis": RedisSettings,
            "bus": BusSettings,
            "cluster": ClusterSettings,
            "cache": CacheSettings,
            "inbox": InboxSettings,
            "history": HistorySettings,
            "checkpoints": CheckpointSettings,
            "market": MarketSettings,
            "recorder": RecorderSettings,
            "orders": ExecutionSettings,
        }
        return ports | {name: struct for register in self._all() for name, struct in register.sections().items()}

    def kinds(self, config: Config) -> tuple[str, ...]:
        """Return the chosen sources: those that are named, or those whose endpoints are set, or DEFAULT_SOURCE."""
        named = tuple(dict.fromkeys(config.section(SourceSettings).kinds))
        return named or tuple(filter(partial(self._has_endpoints, config), self.sources)) or (DEFAULT_SOURCE,)

    def _has_endpoints(self, config: Config, kind: str) -> bool:
        settings = self.sources.adapter(kind).Settings
        if not issubclass(settings, NodeSourceSettings) or not settings.ENDPOINTS:
            return False
        origin = config.origins.get(f"{self.sources.section(kind)}.{settings.ENDPOINTS}")
        return (
            origin is not None
            and origin.kind != "default"
            and bool(getattr(config.section(settings), settings.ENDPOINTS))
        )

    def bus_kind(self, config: Config) -> str:
        """Return the name of the bus. Raises ConfigError for settings that contradict each other."""
        broker, redis_url = config.section(Features).broker, config.section(CoreSettings).redis_url
        return bus_kind(config.section(BusSettings), broker=broker, redis_url=redis_url)

    def subscribed(self, config: Config) -> list[NodeSourceSettings]:
        """Return the settings of the chosen sources that have subscriptions."""
        return self._of_nodes(config, self.kinds(config))

    def rpc_urls(self, config: Config) -> tuple[str, ...]:
        """Return the HTTP endpoints that are set, or those of a source's nodes (chosen sources first).

        Raises ConfigError if there are none.
        """
        sources = self._of_nodes(config, (*self.kinds(config), *self.sources))
        urls = config.section(RpcSettings).urls or next(filter(None, (each.rpc_urls() for each in sources)), ())
        if not urls:
            raise ConfigError("SOLANA_RPC_URL", "nothing", "an HTTP endpoint, as no source has one beside it")
        return urls

    def _of_nodes(self, config: Config, kinds: Iterable[str]) -> list[NodeSourceSettings]:
        found = [config.section(self.sources.adapter(kind).Settings) for kind in dict.fromkeys(kinds)]
        return [settings for settings in found if isinstance(settings, NodeSourceSettings)]

    def check(self, config: Config) -> None:
        """Raise ConfigError for an adapter's name that is not in its register, or whose packages are missing."""
        for register, key, names in self._chosen(config):
            for name in names:
                adapter = register.adapter(name, key=key, origin=str(config.origins[key]))
                if (check_packages := getattr(adapter, "check_packages", None)) is not None:
                    check_packages()
        self._check_chain(config)

    def check_adapters(self, config: Config) -> None:
        """Raise ConfigError for settings that a chosen source, or the chain of orders, would refuse to open with."""
        chosen = [self.sources.adapter(kind) for kind in self.kinds(config)]
        if (orders := config.section(ExecutionSettings)).enabled:
            chosen.append(self.chains.adapter(orders.chain))
        for adapter in chosen:
            if (check_settings := getattr(adapter, "check_settings", None)) is not None:
                check_settings(config.section(adapter.Settings))

    def _check_chain(self, config: Config) -> None:
        """Raise ConfigError if the chain can't execute the swaps of a venue of orders."""
        orders = config.section(ExecutionSettings)
        for name in orders.venues:
            chains = getattr(self.venues.adapter(name), "CHAINS", None)
            if orders.enabled and chains is not None and orders.chain not in chains:
                expected = f"{' or '.join(chains)}, for orders on {name}; QUOTE_VENUES is for quotes alone"
                raise ConfigError("ORDER_CHAIN", orders.chain, expected)

    def _all(self) -> Iterator[Register[Any]]:
        yield from (self.buses, self.clusters, self.caches, self.chains, self.venues)
        yield from (self.stores, self.inboxes, self.histories)

    def _chosen(self, config: Config) -> Iterator[tuple[Register[Any], str, tuple[str, ...]]]:
        """Yield each register with the setting that names its adapters, and the names."""
        orders = config.section(ExecutionSettings)
        yield self.buses, "bus.kind", (self.bus_kind(config),)
        yield self.caches, "cache.kind", (config.section(CacheSettings).kind,)
        yield self.chains, "orders.chain", (orders.chain,)
        yield self.venues, "orders.venues", orders.venues
        yield self.venues, "orders.quote_venues", orders.quote_venues
        yield self.sources, "sources.kinds", self.kinds(config)


REGISTERS: Final = Registers()

SECTIONS: Final[Mapping[str, type[msgspec.Struct]]] = REGISTERS.sections()
"""The sections of `headrace.toml`."""
