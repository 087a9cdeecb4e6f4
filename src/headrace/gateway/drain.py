"""The way out: what was asked for is answered, then clients leave one after another, and nobody waits for ever."""

from typing import Final

from headrace.fanout.hub import Hub
from headrace.gateway.door.doorkeeper import Doorkeeper
from headrace.protocol.codes import CloseCode

CLOSES_PER_S: Final = 2000
"""Clients told to leave a second, if the deadline leaves time for that: they come back, elsewhere, at the same rate."""

ANSWERING_SHARE: Final = 0.3
"""How much of the time there is may pass until what was asked for is answered."""

CLOSING_SHARE: Final = 0.6
"""How much of the time that is left then may pass until the last is told; the rest is for their answers."""

POLL_S: Final = 0.02


async def drain(hub: Hub, keeper: Doorkeeper, end_s: float) -> None:
    """Answer what waits, then close every client with 4001, spread over time; at `end_s` (monotonic) all are gone.

    Those who are still there go on getting what comes. No one new comes in once `keeper.draining` is set.
    """
    clock = keeper.clock
    now_s = clock.monotonic()
    answered_s = now_s + (end_s - now_s) * ANSWERING_SHARE
    hub.windows.end_all()
    while (hub.busy or hub.owing) and clock.monotonic() < answered_s:
        await hub.flush()
        await clock.sleep(0 if hub.busy else POLL_S)
    began_s, clients = clock.monotonic(), list(hub.clients)
    spread_s = min(len(clients) / CLOSES_PER_S, max(0.0, end_s - began_s) * CLOSING_SHARE)
    told = 0
    while told < len(clients):
        elapsed_s = clock.monotonic() - began_s
        due = len(clients) if elapsed_s >= spread_s else int(len(clients) * elapsed_s / spread_s) + 1
        for client in clients[told:due]:
            client.cut_off(CloseCode.SHUTDOWN)
        told = due
        await clock.sleep(POLL_S if told < len(clients) else 0)
    while keeper.closing and clock.monotonic() < end_s:
        await clock.sleep(POLL_S)
    for late in keeper.closing.due(float("inf")):
        late.abort()
