"""One WebSocket connection to one endpoint, from connect to the reason why it ended."""

import ssl
from collections import Counter as Count
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.http11 import Response

from headrace import __version__
from headrace.model.errors import BadInputError
from headrace.model.redact import redact
from headrace.model.updates import AccountUpdate, LogsUpdate, TransactionUpdate
from headrace.runtime.clock import Clock
from headrace.runtime.http_answers import is_final, retry_after_s
from headrace.runtime.supervise import Supervisor
from headrace.sources.coverage import Progress
from headrace.sources.head import NEAR
from headrace.sources.metrics import Tally
from headrace.sources.rpc_pubsub.frames import (
    Ack,
    Heard,
    LandedNotice,
    Refusal,
    SignatureNotice,
    SlotNotice,
    Stamp,
    Unknown,
    read,
)
from headrace.sources.rpc_pubsub.salvage import Unreadable, salvage
from headrace.sources.rpc_pubsub.settings import RpcPubSubSettings
from headrace.sources.rpc_pubsub.websocket import NodeConnection, Straight
from headrace.sources.subscriptions import LISTED, Registry, ServerId, Subscription
from headrace.sources.watch import Watch

_CLOSE_S = 0.25
"""For the answer to a close frame; a node that floods has much to send before it."""
_DETAIL_MAX = 200
_TURN = 64
"""Messages in a row, for where many wait; then others have a turn of the loop."""
_GIVEN_UP: Final = {1008: "flood", 1009: "too_large"}
_REST_S_MAX = 300.0
_CONTENT = (LogsUpdate, AccountUpdate, TransactionUpdate, LandedNotice)
_HELD_MAX = 4
"""Heads that wait to be borne out."""

_log = structlog.get_logger("source")


class Parting(NamedTuple):
    """Why a connection ended. `reason` is a constant: `refused` (never came about), `denied` (nor would it if tried
    again: a wrong key or path), `closed`, `too_large`, `flood`, `no_ack`, `id_taken`, `silent`, `head_stands`,
    `behind`, `feed_stands`. `detail` is for people and holds no secret. `rest_s`: the node wants to be left alone for
    so long.
    """

    reason: str
    detail: str = ""
    rest_s: float = 0.0


class Desk(Protocol):
    """Where a connection hands in what it heard; shared by all connections of a source."""

    @property
    def wanted(self) -> Sequence[Subscription]: ...

    async def deliver(self, update: LogsUpdate | AccountUpdate | TransactionUpdate) -> None: ...

    def landed(self, notice: LandedNotice) -> None: ...

    def unreadable(self, session: "Session", lost: Unreadable) -> None: ...

    def believes(self, session: "Session", slot: int) -> bool: ...

    def can_be(self, session: "Session", slot: int) -> bool: ...

    async def slot_heard(self, session: "Session", notice: SlotNotice, received_ns: int) -> None: ...

    def slot_shown(self, session: "Session", slot: int) -> bool: ...

    def refused(self, session: "Session") -> None: ...

    def acknowledged(self, session: "Session", subscription: Subscription) -> None: ...

    def signature_seen(self, session: "Session", notice: SignatureNotice) -> None: ...


class Session:
    """Call `run` once. While it runs, `complete` says whether the node answered all that was asked of it. The desk sets
    `whole` once everything that the node took is surely brought. `ask_whole`: ask for whole transactions first.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        number: int,
        tls: ssl.SSLContext | None,
        settings: RpcPubSubSettings,
        clock: Clock,
        desk: Desk,
        tally: Tally,
        ask_whole: bool = False,
    ) -> None:
        self.name, self.url, self.number, self._tls = name, url, number, tls
        self.began = clock.monotonic()
        self._settings, self._clock, self._desk, self._tally = settings, clock, desk, tally
        self._wanted = desk.wanted
        self.registry = Registry(
            self._wanted, settings.commitment, settings.encoding, retry_s=settings.refused_retry_s, whole=ask_whole
        )
        self.progress = Progress(settings.commitment, settings.gap_margin_slots)
        self.watch = Watch(clock.monotonic(), stall_s=settings.stall_s, stall_slots=settings.stall_slots)
        self.connected = self.whole = False
        self.parting: Parting | None = None
        self._stamp = Stamp(name, settings.commitment)
        self._tasks: Supervisor | None = None
        self._handing_in = self._tells_slots = False
        self._held_heads: list[tuple[SlotNotice, int]] = []
        self._messages = self._bytes = self._unknown = 0
        self._bad: Count[str] = Count()
        self._logged: set[str] = set()
        self.unreadable = 0
        """Notifications that could not be read."""
        self.unreadable_at = 0.0
        self.unreadable_last = ""

    @property
    def complete(self) -> bool:
        """Connected, and all subscriptions answered."""
        return self.connected and self.registry.complete

    async def run(self) -> Parting:
        """Connect, subscribe, read until the end. Failures of network and node are values, not exceptions."""
        try:
            socket = await Straight(
                self.url,
                open_timeout=self._settings.connect_timeout_s,
                ping_interval=None,  # its task would outlive a connection that is lost with the handshake: see `_tend`
                close_timeout=_CLOSE_S,
                max_size=self._settings.message_bytes_max,
                ssl=self._tls if self.url.startswith("wss:") else None,
                user_agent_header=f"headrace/{__version__}",
                compression=None,
                create_connection=NodeConnection,
            )
        except InvalidStatus as error:
            return _turned_away(error.response)
        except (OSError, EOFError, UnicodeError, WebSocketException) as error:
            return Parting("refused", _text(error))
        self.connected = True
        self.watch = Watch(
            self._clock.monotonic(), stall_s=self._settings.stall_s, stall_slots=self._settings.stall_slots
        )
        try:
            async with Supervisor(self._clock) as self._tasks:
                self._tasks.start(self.name, "read", lambda: self._read(socket))
                self._tasks.start(self.name, "tend", lambda: self._tend(socket))
        finally:
            self.connected = False
            self._export()
            if self.parting is not None and self.parting.reason != "closed":
                socket.transport.abort()  # a peer that does not listen would not answer a close frame either
            await socket.close()
        return self.parting or Parting("closed")

    def part(self, reason: str, detail: str = "") -> None:
        """Give the connection up; the first reason stands."""
        if self.parting is None:
            self.parting = Parting(reason, detail[:_DETAIL_MAX])
        if self._tasks is not None:
            self._tasks.cancel()

    async def _read(self, socket: ClientConnection) -> None:
        clock, watch, receive = self._clock, self.watch, socket.recv
        try:
            while True:
                message = await receive(decode=False)
                self._messages += 1
                self._bytes += len(message)
                watch.message(clock.monotonic())
                received_ns = clock.wall_ns()
                try:
                    heard = read(message, self.registry.active, self._stamp, received_ns)
                except BadInputError as error:
                    await self._salvage(message, error, received_ns)
                else:
                    self._handing_in = True
                    await self._take(heard, received_ns)
                    self._handing_in = False
                if not self._messages % _TURN:
                    await clock.sleep(0)
        except ConnectionClosed as closed:
            reason = _GIVEN_UP.get(closed.sent.code, "closed") if closed.sent else "closed"
            if reason != "closed":
                self._bad[reason] += 1
            self.part(reason, _text(closed))

    def _note_bad(self, error: BadInputError) -> None:
        """Count a message that is skipped; one of each kind is logged, as a node may send nothing else."""
        self._bad[error.reason] += 1
        if error.reason not in self._logged:
            self._logged.add(error.reason)
            _log.debug("bad_message", source=self.name, reason=error.reason, detail=error.detail)

    async def _salvage(self, message: bytes, error: BadInputError, received_ns: int) -> None:
        """Read what can be read of a message that the strict reader refused; what is skipped is counted."""
        found = salvage(message, self.registry.active, self._stamp, received_ns, error.reason)
        if not found or any(isinstance(each, Unreadable | Unknown) for each in found):
            self._note_bad(error)
        self._handing_in = True
        for each in found:
            if isinstance(each, Unreadable):
                self._lose(each)
            else:
                await self._take(each, received_ns)
        self._handing_in = False

    def _lose(self, lost: Unreadable) -> None:
        """A notification can't be read: it is a loss of its subscriptions. A node drops a signature's with it."""
        self.unreadable += 1
        self.unreadable_at = self._clock.monotonic()
        self.unreadable_last = f"{lost.subscriptions[0].kind}: {lost.reason}"
        for subscription in lost.subscriptions:
            if subscription.kind == "signature":
                self.registry.renew(subscription)
        self._desk.unreadable(self, lost)

    async def _take(self, heard: Heard, received_ns: int) -> None:
        if isinstance(heard, _CONTENT) and not self._desk.can_be(self, heard.slot):
            self._bad["slot_jump"] += 1
            self._lose(Unreadable(self._fed_by(heard), "slot_jump"))
        elif isinstance(heard, LogsUpdate | AccountUpdate | TransactionUpdate):
            await self._desk.deliver(heard)
            self.progress.brought(heard.feed, heard.slot)
            if not self._tells_slots:
                self._slot_by_content(heard.slot)
        elif isinstance(heard, LandedNotice):
            self._desk.landed(heard)
            self.progress.brought(heard.subscription.feed, heard.slot)
            if not self._tells_slots:
                self._slot_by_content(heard.slot)
        elif isinstance(heard, SlotNotice):
            await self._take_slot(heard, received_ns)
        elif isinstance(heard, Ack):
            if heard.subscription_id is not None:
                self._acknowledge(heard.request_id, heard.subscription_id)
        elif isinstance(heard, Refusal):
            self._refuse(heard)
        elif isinstance(heard, SignatureNotice):
            self.registry.forget(heard.subscription, tell=False)
            self._desk.signature_seen(self, heard)
        elif isinstance(heard, Unknown):
            self._unknown += 1
            self._take_unknown(heard)

    async def _take_slot(self, notice: SlotNotice, received_ns: int) -> None:
        """Hand in a head that counts, and those before it that it bears out; one that nothing bears out is dropped."""
        if not self._desk.believes(self, notice.slot):
            if not self.progress.head:
                self.progress.promise(notice.slot)
            self._held_heads.append((notice, received_ns))
            if len(self._held_heads) > _HELD_MAX:
                self._held_heads.pop(0)
                self._bad["slot_jump"] += 1
            return
        self._tells_slots = True
        held, self._held_heads = self._held_heads, []
        for earlier, at_ns in held:
            if 0 < notice.slot - earlier.slot <= NEAR:
                await self._desk.slot_heard(self, earlier, at_ns)
            else:
                self._bad["slot_jump"] += 1
        await self._desk.slot_heard(self, notice, received_ns)

    def _fed_by(self, heard: LogsUpdate | AccountUpdate | TransactionUpdate | LandedNotice) -> tuple[Subscription, ...]:
        if isinstance(heard, LandedNotice):
            return (heard.subscription,)
        return tuple(known for known in self.registry.active.values() if known.feed == heard.feed)

    def _take_unknown(self, heard: Unknown) -> None:
        """An id that nobody has may be a subscription's that the node got wrong: it is a loss of all of that kind."""
        if not self.registry.is_lost(heard.subscription_id, heard.kinds):
            return
        concerned = tuple(known for known in self.registry.active.values() if known.kind in heard.kinds)
        if concerned:
            self._lose(Unreadable(concerned, "unknown_id", heard.slot))

    def _slot_by_content(self, slot: int) -> None:
        """Some nodes refuse `slotSubscribe` or never tell a slot; what they deliver shows where they are."""
        self._desk.slot_shown(self, slot)

    def _acknowledge(self, request_id: int, subscription_id: ServerId) -> None:
        try:
            subscription = self.registry.acknowledge(request_id, subscription_id)
        except BadInputError as error:
            self.part(error.reason, error.detail)
            return
        if subscription is None:
            return
        if subscription.kind != "signature":
            commitment = self.registry.commitment_of(subscription)
            self.progress.acknowledged(subscription.feed, commitment, listed=subscription.kind in LISTED)
        self._desk.acknowledged(self, subscription)

    def _refuse(self, refusal: Refusal) -> None:
        known_before = set(self.registry.refused)
        subscription = self.registry.refuse(refusal.request_id, refusal.code, refusal.message, self._clock.monotonic())
        if subscription is not None:
            self._say_refused([subscription], known_before)

    def _say_refused(self, subscriptions: list[Subscription], known_before: set[Subscription]) -> None:
        for subscription in subscriptions:
            if subscription not in known_before:
                reason = redact(self.registry.refused[subscription])
                _log.warning("subscription_refused", source=self.name, feed=subscription.feed, reason=reason)
        self._desk.refused(self)

    async def _tend(self, socket: ClientConnection) -> None:
        """Send what is due and look for what is overdue, once a tick.

        Nobody waits for pongs: the watch tells silence from a pipeline that keeps us from reading.
        """
        ping_at = self._clock.monotonic() + self._settings.ping_interval_s
        try:
            while True:
                self.follow_wanted()
                for request in self.registry.due(self._clock.monotonic()):
                    await socket.send(request, text=True)
                now = self._clock.monotonic()
                if not self._tend_unanswered(now):
                    break
                if self._handing_in:  # what keeps it from reading is the outlet, not the node
                    self.watch.excuse(now)
                verdict = self.watch.verdict(now)
                if verdict is not None:
                    self.part(verdict, f"at slot {self.watch.head}")
                    break
                if now >= ping_at:
                    await socket.ping()
                    ping_at = now + self._settings.ping_interval_s
                self._export()
                await self._clock.sleep(self._settings.tick_s)
        except ConnectionClosed as closed:
            self.part("closed", _text(closed))

    def _tend_unanswered(self, now: float) -> bool:
        """One subscription that is never answered is the node's no to it; if none is, the connection is of no use."""
        known_before = set(self.registry.refused)
        unanswered = self.registry.unanswered(now, self._settings.ack_timeout_s)
        if unanswered and not self.registry.active:
            self.part("no_ack", unanswered[0].feed)
            return False
        if unanswered:
            self._say_refused(unanswered, known_before)
        return True

    def follow_wanted(self) -> None:
        """Take over what the desk wants now; the requests go out with the next tick."""
        wanted = self._desk.wanted
        if wanted is not self._wanted:
            for subscription in set(self._wanted) - set(wanted):
                self.progress.forget(subscription.feed)
            self._wanted = wanted
            self.registry.want(wanted)

    def _export(self) -> None:
        self._tally.traffic(self.name, self._messages, self._bytes, self._unknown, self._bad)
        self._messages = self._bytes = self._unknown = 0
        self._bad.clear()


def _turned_away(response: Response) -> Parting:
    """The node answered the handshake with a status."""
    status = response.status_code
    rest_s = retry_after_s(response.headers.get("Retry-After", ""), _REST_S_MAX) or 0.0
    if 300 <= status < 400:
        return Parting("denied", f"HTTP {status}, and redirects are not followed", rest_s)
    return Parting("denied" if is_final(status) else "refused", f"HTTP {status}", rest_s)


def _text(error: BaseException) -> str:
    return redact(str(error) or type(error).__name__)[:_DETAIL_MAX]
