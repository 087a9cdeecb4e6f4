"""Which adapters a process chooses from, and the sections of `headrace.toml`, which rooms and adapters declare."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from headrace.adapters import Register
from headrace.bus import BUSES, Bus, BusSettings
from headrace.cache import CACHES, Cache, CacheSettings
from headrace.chains import CHAINS, Chain
from headrace.config import CORE_SECTIONS, Config
from headrace.gateway.auth.settings import AuthSettings
from headrace.gateway.door.admission import AdmissionSettings
from headrace.gateway.settings import GatewaySettings
from headrace.gateway.transports.tls import TlsSettings
from headrace.inbox import InboxSettings
from headrace.market.settings import MarketSettings
from headrace.orders.settings import ExecutionSettings
from headrace.service.updates import ProgramSettings
from headrace.solana.rpc import RpcSettings
from headrace.sources.pools import PoolSettings
from headrace.sources.recording import RecorderSettings
from headrace.sources.rpc_pubsub import RpcPubSubSettings
from headrace.venues import VENUES, Venue


class Registers(NamedTuple):
    """The adapters of each port. A process has these unless a test gives others."""

    buses: Register[Bus] = BUSES
    caches: Register[Cache] = CACHES
    chains: Register[Chain] = CHAINS
    venues: Register[Venue] = VENUES

    def sections(self) -> dict[str, type[msgspec.Struct]]:
        """Return all sections of the settings, those of the adapters last."""
        ports: dict[str, type[msgspec.Struct]] = {
            **CORE_SECTIONS,
            "gateway": GatewaySettings,
            "admission": AdmissionSettings,
            "tls": TlsSettings,
            "auth": AuthSettings,
            "rpc_pubsub": RpcPubSubSettings,
            "rpc": RpcSettings,
            "pools": PoolSettings,
            "programs": ProgramSettings,
            "bus": BusSettings,
            "cache": CacheSettings,
            "inbox": InboxSettings,
            "market": MarketSettings,
            "recorder": RecorderSettings,
            "orders": ExecutionSettings,
        }
        return ports | {name: struct for register in self._all() for name, struct in register.sections().items()}

    def check(self, config: Config) -> None:
        """Raise ConfigError for a name of an adapter that is not in its register, or whose packages are missing."""
        for register, key, names in self._chosen(config):
            for name in names:
                register.adapter(name, key=key, origin=str(config.origins[key]))

    def _all(self) -> Iterator[Register[Any]]:
        yield from (self.buses, self.caches, self.chains, self.venues)

    def _chosen(self, config: Config) -> Iterator[tuple[Register[Any], str, tuple[str, ...]]]:
        """Yield each register with the setting that names its adapters, and the names."""
        orders = config.section(ExecutionSettings)
        yield self.buses, "bus.kind", (config.section(BusSettings).kind,)
        yield self.caches, "cache.kind", (config.section(CacheSettings).kind,)
        yield self.chains, "orders.chain", (orders.chain,)
        yield self.venues, "orders.venues", orders.venues


REGISTERS: Final = Registers()

SECTIONS: Final[Mapping[str, type[msgspec.Struct]]] = REGISTERS.sections()
"""The sections of `headrace.toml`."""
