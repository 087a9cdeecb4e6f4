"""The part of a live upstream that is a chain: a scripted node's ledger, and the steps on it."""

import asyncio
from collections.abc import Callable, Sequence

from headrace.runtime.health import ComponentHealth
from headrace.testing.ledger import made_up_signature
from headrace.testing.node import ScriptedNode
from headrace.testing.proxy import TcpProxy
from headrace.testing.yellowstone import ScriptedYellowstone
from tests.contracts.upstreams import PROGRAM, Land, Lose, Spoil, Step

QUICK = {
    "stall_s": 30.0,
    "check_s": 0.05,
    "confirm_s": 0.02,
    "backoff_initial_s": 0.002,
    "backoff_max_s": 0.02,
    "refused_retry_s": 0.02,
    "gap_margin_slots": 2,
    "refill_settle_slots": 0,
    "refill_retry_s": 0.005,
    "refill_page_s": 0.0,
}
"""Settings of every source on nodes under which a test need not wait."""


class ChainUpstream:
    """Steps on a scripted node's chain, behind a proxy that cuts. A transport says how messages are spoilt."""

    LIVE = True

    node: ScriptedNode | ScriptedYellowstone
    proxy: TcpProxy

    @property
    def http_url(self) -> str:
        return self.node.http_url

    def go_on(self) -> None:
        self.node.advance_slot()

    async def prepare(self, steps: Sequence[Step]) -> None:
        pass

    async def covered(self, component: Callable[[], ComponentHealth | None]) -> None:
        while (state := component()) is None or not state.ready:
            self.go_on()
            await asyncio.sleep(0.005)
        self.go_on()

    async def perform(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, Land):
                self.send_times(step.times)
                self.node.emit_transaction([step.program], signature=made_up_signature(step.number))
                self.send_times(1)
            elif isinstance(step, Spoil):
                self.spoil()
            elif isinstance(step, Lose):
                self.proxy.refuse = True
                self.proxy.cut()
                await self.lost()
                self.go_on()
                self.node.emit_transaction([PROGRAM], signature=made_up_signature(step.number))
                self.go_on()
                self.proxy.refuse = False

    def send_times(self, times: int) -> None:
        """Send each notification so many times from now on."""
        raise NotImplementedError

    def spoil(self) -> None:
        """Send something of PROGRAM's feed that can't be read."""
        raise NotImplementedError

    async def lost(self) -> None:
        """Return when the node has lost its clients."""
        raise NotImplementedError
