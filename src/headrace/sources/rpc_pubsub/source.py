"""The RPC PubSub source: WebSocket subscriptions at several nodes, each read by its own session."""

import ssl
from collections.abc import Sequence
from typing import ClassVar, Self

from headrace.adapters import Context
from headrace.runtime.breaker import Breaker
from headrace.runtime.clock import Clock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.solana.rpc import Rpc
from headrace.sources.connection import Connection, Parting
from headrace.sources.endpoints import EndpointSource, no_names
from headrace.sources.merge import MergedStream
from headrace.sources.rpc_pubsub.session import PubSubSession
from headrace.sources.rpc_pubsub.settings import RpcPubSubSettings, check_ws_urls
from headrace.sources.subscriptions import Resolve


class RpcPubSub(EndpointSource):
    """A `Source` on the WebSocket endpoints of nodes.

    Raises ConfigError for endpoints or subscriptions that can't be used.
    """

    Settings: ClassVar[type[RpcPubSubSettings]] = RpcPubSubSettings
    SECTION: ClassVar[str] = "rpc_pubsub"

    def __init__(
        self,
        settings: RpcPubSubSettings,
        *,
        clock: Clock,
        metrics: Metrics,
        health: Health,
        rpc: Rpc | None = None,
        resolve: Resolve = no_names,
        breakers: Sequence[Breaker] = (),
    ) -> None:
        check_ws_urls(settings.ws_urls)
        super().__init__(
            "rpc",
            settings.ws_urls,
            settings,
            clock=clock,
            metrics=metrics,
            health=health,
            rpc=rpc,
            resolve=resolve,
            breakers=breakers,
        )
        self._pubsub = settings
        secure = any(url.startswith("wss:") for url in settings.ws_urls)
        # only once, because it reads the machine's certificates
        self._tls = ssl.create_default_context() if secure else None
        self._without_whole: set[int] = set()
        """Endpoints whose last connection ended before a request for whole transactions was answered.

        The next connection to such an endpoint makes no such request.
        """

    @classmethod
    async def open(cls, settings: RpcPubSubSettings, context: Context) -> Self:
        """Return the source; it connects when it runs."""
        return cls(
            settings,
            clock=context.clock,
            metrics=context.metrics,
            health=context.health,
            rpc=context.rpc,
            resolve=context.resolve,
            breakers=[Breaker() for _ in settings.ws_urls],
        )

    async def connect(self, connection: Connection, stream: MergedStream, url: str) -> Parting:
        """Run one session with the node at `url`."""
        session = PubSubSession(
            connection,
            stream,
            url,
            tls=self._tls,
            settings=self._pubsub,
            ask_whole=self._pubsub.transaction_subscribe and connection.number not in self._without_whole,
        )
        self._without_whole.discard(connection.number)
        try:
            return await session.run()
        finally:
            if session.registry.whole_unanswered:
                self._without_whole.add(connection.number)
