"""The Yellowstone source: a gRPC subscription at each of several nodes, each read by its own session."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from headrace.model.errors import ConfigError
from headrace.runtime.breaker import Breaker
from headrace.runtime.clock import Clock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.solana.rpc import Rpc
from headrace.sources import NOTHING_COVERED, Ending, Outlet
from headrace.sources.connection import Connection, Parting
from headrace.sources.endpoints import EndpointSource, no_names
from headrace.sources.merge import MergedStream
from headrace.sources.subscriptions import ChainSubscription, Resolve
from headrace.sources.yellowstone.filters import parse_filters
from headrace.sources.yellowstone.grpcio import GrpcioWire
from headrace.sources.yellowstone.race import Race
from headrace.sources.yellowstone.receiver import OwnWire
from headrace.sources.yellowstone.replay import Resume
from headrace.sources.yellowstone.session import YellowstoneSession, filter_subscriptions
from headrace.sources.yellowstone.settings import ReceiverName, YellowstoneSettings
from headrace.sources.yellowstone.wire import OpenWire

RECEIVERS: Final[Mapping[ReceiverName, OpenWire]] = {"grpcio": GrpcioWire.open, "own": OwnWire.open}


class YellowstoneSource(EndpointSource):
    """`Source` that reads the gRPC endpoints of nodes.

    Raises ConfigError for endpoints, subscriptions or filters that can't be used.
    """

    def __init__(
        self,
        settings: YellowstoneSettings,
        *,
        clock: Clock,
        metrics: Metrics,
        health: Health,
        rpc: Rpc | None = None,
        resolve: Resolve = no_names,
        breakers: Sequence[Breaker] = (),
    ) -> None:
        if not settings.urls:
            raise ConfigError("YELLOWSTONE_URLS", "nothing", "at least one http:// or https:// URL")
        self._yellowstone = settings
        self._filters = parse_filters(settings.filters)
        self._resumes = [Resume() for _ in settings.urls]
        self._race = Race()
        self._sessions: dict[int, YellowstoneSession] = {}
        super().__init__(
            "yellowstone",
            settings.urls,
            settings,
            clock=clock,
            metrics=metrics,
            health=health,
            rpc=rpc,
            resolve=resolve,
            breakers=breakers,
        )

    async def run(self, outlet: Outlet, covered: Mapping[str, int] = NOTHING_COVERED) -> Ending:
        """Deliver until `stop` or cancellation. Ask nodes to replay the slots after the lowest slot in `covered`."""
        if wanted := self._of_wanted(covered):
            for resume in self._resumes:
                resume.covered(min(wanted.values()))
        return await super().run(outlet, covered)

    def update_settings(self, settings: Any) -> None:
        """Change subscriptions and filters without reconnecting. Changes nothing if it raises ConfigError."""
        filters = parse_filters(settings.filters)
        before, self._filters = self._filters, filters
        try:
            self.update_subscriptions(settings.subscriptions)
        except ConfigError:
            self._filters = before
            raise
        for session in self._sessions.values():
            session.want_filters(filters)

    def parse(self, texts: Sequence[str]) -> tuple[ChainSubscription, ...]:
        """Return the subscriptions that the texts name, and a subscription for each filter. Raises ConfigError."""
        return (*super().parse(texts), *filter_subscriptions(self._filters))

    async def connect(self, connection: Connection, stream: MergedStream, url: str) -> Parting:
        """Run one session with the node at `url`; return why it ended."""
        session = YellowstoneSession(
            connection,
            stream,
            url,
            self._resumes[connection.number],
            self._race,
            open_wire=RECEIVERS[self._yellowstone.receiver],
            filters=self._filters,
            settings=self._yellowstone,
        )
        self._sessions[connection.number] = session
        try:
            return await session.run()
        finally:
            del self._sessions[connection.number]
