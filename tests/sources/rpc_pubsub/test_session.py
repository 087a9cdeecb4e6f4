"""One connection, with time held still."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from headrace.model.updates import AccountUpdate, LogsUpdate, TransactionUpdate
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.sources.metrics import Tally
from headrace.sources.rpc_pubsub.frames import LandedNotice, SignatureNotice, SlotNotice
from headrace.sources.rpc_pubsub.salvage import Unreadable
from headrace.sources.rpc_pubsub.session import Session
from headrace.sources.subscriptions import SLOTS, Subscription
from headrace.testing.node import ScriptedNode
from tests.sources.rpc_pubsub.rig import PROGRAM, SETTINGS


class SlowDesk:
    """Takes nothing before `free` is set."""

    def __init__(self) -> None:
        self.wanted = (SLOTS, Subscription("logs", PROGRAM))
        self.got: list[LogsUpdate | AccountUpdate | TransactionUpdate] = []
        self.waiting, self.free = asyncio.Event(), asyncio.Event()
        self.complete = asyncio.Event()

    async def deliver(self, update: LogsUpdate | AccountUpdate | TransactionUpdate) -> None:
        self.waiting.set()
        await self.free.wait()
        self.got.append(update)

    def unreadable(self, session: Session, lost: Unreadable) -> None: ...

    def believes(self, session: Session, slot: int) -> bool:
        return True

    def can_be(self, session: Session, slot: int) -> bool:
        return True

    def refused(self, session: Session) -> None: ...

    async def slot_heard(self, session: Session, notice: SlotNotice, received_ns: int) -> None: ...

    def slot_shown(self, session: Session, slot: int) -> bool:
        session.watch.slot(slot, session._clock.monotonic())
        return True

    def acknowledged(self, session: Session, subscription: Subscription) -> None:
        if session.complete:
            self.complete.set()

    def signature_seen(self, session: Session, notice: SignatureNotice) -> None: ...

    def landed(self, notice: LandedNotice) -> None: ...


@asynccontextmanager
async def connected(clock: ManualClock, desk: SlowDesk) -> AsyncIterator[tuple[ScriptedNode, Session]]:
    async with ScriptedNode() as node, Supervisor(clock) as tasks:
        settings = msgspec.structs.replace(SETTINGS, stall_s=10.0, tick_s=1.0)
        tally = Tally(Metrics())
        session = Session(
            "rpc-0", node.ws_url, number=0, tls=None, settings=settings, clock=clock, desk=desk, tally=tally
        )
        running = tasks.start("test", "session", session.run)
        await desk.complete.wait()
        yield node, session
        session.part("closed")
        await running


def given_up(session: Session) -> str | None:
    """Why the session ended itself, if it did."""
    return session.parting.reason if session.parting else None


async def test_silence_is_given_up() -> None:
    clock = ManualClock()
    async with connected(clock, SlowDesk()) as (_, session):
        await clock.advance(10)
        assert given_up(session) is None
        await clock.advance(1)
        assert given_up(session) == "silent"


async def test_a_slow_pipeline_is_no_silence_of_the_node() -> None:
    clock, desk = ManualClock(), SlowDesk()
    async with connected(clock, desk) as (node, session):
        node.emit_transaction([PROGRAM])
        await desk.waiting.wait()
        await clock.advance(100)
        assert given_up(session) is None
        desk.free.set()
        await clock.advance(5)
        assert len(desk.got) == 1
        assert given_up(session) is None
        await clock.advance(6)
        assert given_up(session) == "silent"


async def test_a_node_that_tells_no_slots_is_followed_by_what_it_delivers() -> None:
    clock, desk = ManualClock(), SlowDesk()
    desk.free.set()
    async with connected(clock, desk) as (node, session):
        node.faults.dropped.add("slot")
        for count in range(1, 4):
            node.advance_slot()
            node.emit_transaction([PROGRAM])
            while len(desk.got) < count:
                desk.waiting.clear()
                await desk.waiting.wait()
            await clock.advance(9)
            assert given_up(session) is None
        node.emit_transaction([PROGRAM])  # a message, but no new slot
        await clock.advance(2)
        assert given_up(session) == "head_stands"
