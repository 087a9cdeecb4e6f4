"""What clients notice when messages are lost between the bus and this process."""

from headrace.bus import BusSettings
from headrace.bus.view import View
from headrace.fanout.hub import Hub
from headrace.gateway.settings import GatewaySettings
from headrace.model.events import Position
from headrace.protocol.codes import CloseCode
from headrace.protocol.session import Subscribe
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from tests.fanout.hub_machine import WiredClient
from tests.local_bus import LocalBus


class _Client(WiredClient):
    def check(self) -> None:
        return None


class _LosingBus(LocalBus):
    """A bus that loses messages on demand."""

    @property
    def view(self) -> View:
        return self._view


async def test_lost_messages_end_the_connections_of_their_topic_and_no_other() -> None:
    clock, metrics, settings = ManualClock(), Metrics(), GatewaySettings()
    async with Supervisor(clock) as supervisor:
        bus = _LosingBus(BusSettings(), clock, "g")
        hub = Hub(bus, clock, lambda: settings, metrics, supervisor)
        concerned, other = _Client(hub, False), _Client(hub, False)
        hub.subscribe(concerned, Subscribe("slots", None, None))
        hub.subscribe(other, Subscribe("token_updates", None, None))
        bus.view.lost({"slots": Position("g", 7)})
        assert (concerned.closed_with, other.closed_with) == (CloseCode.INSUFFICIENT_STATE, None)
        hub.remove(other)
        hub.close()
        supervisor.cancel()
