"""The stream of one order: a snapshot, the log after the client's position, then live updates, without a gap."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Final

import structlog

from headrace.fanout.log_reader import Arrival, LogReader
from headrace.gateway.auth.authenticator import Authenticator
from headrace.gateway.door.doorkeeper import Doorkeeper
from headrace.gateway.problems import Refused
from headrace.gateway.transports.handshake import Opening, credential_of
from headrace.gateway.transports.websocket import Connection
from headrace.model.credentials import Credential
from headrace.model.errors import InvariantError, RequestError, TransientError
from headrace.model.events import Position
from headrace.model.orders import OrderEvent, OrderRefused, OrderRequest
from headrace.orders.intake import Intake
from headrace.protocol import frames
from headrace.protocol.codes import CloseCode, ErrorCode
from headrace.protocol.frames import text_header
from headrace.protocol.orders import event_frame, heartbeat_frame, snapshot_frame
from headrace.runtime.supervise import Supervisor

HEARTBEAT_S: Final = 5.0
PAGE: Final = 500
EPOCH: Final = "order"
"""Epoch of every order's log. A log starts only once, and `seq` counts its entries."""

CLOSES: Final[Mapping[int, CloseCode]] = {
    ErrorCode.UNAUTHORIZED: CloseCode.BAD_TOKEN,
    ErrorCode.TOKEN_EXPIRED: CloseCode.EXPIRED,
    ErrorCode.LIMIT: CloseCode.CONNECTION_LIMIT,
}
"""Close codes for a refused credential, and for a user who already has the maximum number of connections."""

_log = structlog.get_logger("gateway")


class OrderStreams:
    """All open streams of this server, by order.

    The store delivers events. A stream reads missed events from the log.
    """

    def __init__(
        self, intake: Intake, supervisor: Supervisor, keeper: Doorkeeper, auth: Authenticator | None = None
    ) -> None:
        self.intake, self.supervisor, self.keeper, self.auth = intake, supervisor, keeper, auth
        self._streams: dict[str, set[OrderStream]] = {}
        self._count = 0

    def open(self, connection: Connection, opening: Opening) -> "OrderStream":
        """Return the endpoint for one connection.

        Raises Refused if the request is malformed, if there are too many connections, or if a required credential is
        missing.
        """
        credential = credential_of(opening, wanted=self.auth is not None)
        if self.auth is not None and credential is None:
            raise Refused(HTTPStatus.UNAUTHORIZED, "a token as subprotocol, or a ticket, is needed")
        if self._count >= self.keeper.settings.connections_max:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
        return OrderStream(self, connection, opening.parameter, _from_seq(opening), credential)

    def hear(self, events: Sequence[OrderEvent]) -> None:
        """Deliver committed events to the streams. Attached to the store as a sink."""
        heard: dict[OrderStream, None] = {}
        for event in events:
            for stream in self._streams.get(event.order_id, ()):
                stream.hear(event)
                heard[stream] = None
        for stream in heard:
            stream.flush()

    async def run(self) -> None:
        """Send heartbeats until cancelled."""
        while True:
            await self.keeper.clock.sleep(HEARTBEAT_S)
            for streams in list(self._streams.values()):
                for stream in list(streams):
                    stream.beat()

    def close(self) -> None:
        """Ask every client to reconnect to another server, because this server stops."""
        for streams in list(self._streams.values()):
            for stream in list(streams):
                stream.end(CloseCode.SHUTDOWN)

    def add(self, stream: "OrderStream") -> None:
        """Deliver the events of the stream's order to the stream."""
        self._streams.setdefault(stream.order_id, set()).add(stream)
        self._count += 1

    def remove(self, stream: "OrderStream") -> None:
        """Forget a stream that has ended."""
        streams = self._streams[stream.order_id]
        streams.remove(stream)
        self._count -= 1
        if not streams:
            del self._streams[stream.order_id]


class OrderStream:
    """One client of one order. Follows the order's log as described in `fanout.log_reader`."""

    frame_bytes_max = 1024

    def __init__(
        self,
        streams: OrderStreams,
        connection: Connection,
        order_id: str,
        from_seq: int,
        credential: Credential | None = None,
    ) -> None:
        self.order_id, self._from_seq = order_id, from_seq
        self._log = LogReader(Position(EPOCH, 0))
        self._streams, self._connection, self._credential = streams, connection, credential
        self._open, self._full = False, False
        self._unsent: list[bytes] = []
        self._ends_s = math.inf
        self._user_id: str | None = None

    @property
    def user_id(self) -> str | None:
        """Return the user whose credential was accepted; None before that, and if no credential is needed."""
        return self._user_id

    def opened(self) -> None:
        """Start with the snapshot."""
        self._open = True
        self._streams.add(self)
        recent = self._streams.intake.recent.get(self.order_id)
        if recent is None or self._streams.auth is not None:
            self._read(first=True)
            return
        request, events = recent
        seq = min(self._from_seq, len(events))
        self._write_snapshot(request, seq, len(events), events[seq - 1] if seq else None)
        for event in events[seq:]:
            self._log.take(event.seq)
            self._write_update(event)
        self.flush()

    def hear(self, event: OrderEvent) -> None:
        """Queue a committed event of the order; `flush` sends it."""
        arrival = self._log.arrive(Position(EPOCH, event.seq), able=self._open and not self._full)
        if arrival is Arrival.NEXT:
            self._write_update(event)
        elif arrival is Arrival.BEYOND:
            self._read()

    def beat(self) -> None:
        """Send a heartbeat, unless updates are being read."""
        if self._open and not self._full and not self._log.reading:
            self._write(heartbeat_frame(self.order_id, self._log.newest))
            self.flush()

    def end(self, code: CloseCode) -> None:
        """Close the connection."""
        self._connection.close(code)

    def text(self, data: str) -> None:
        """Ignore the message: a client of an order stream has nothing to send."""

    def binary(self, data: bytes) -> None:
        """Ignore the message: a client of an order stream has nothing to send."""

    def socket_full(self) -> None:
        """Write nothing until the client accepts data again."""
        self._full = True

    def socket_free(self) -> None:
        """Continue from the log."""
        self._full = False
        if self._log.behind:
            self._read()

    def wake(self) -> None:
        """Close the connection if the credential has expired. The client reconnects with a new credential."""
        if self._streams.keeper.clock.monotonic() >= self._ends_s:
            self._connection.close(CloseCode.EXPIRED)
        else:
            self._set_alarm()

    def lost(self) -> None:
        """Forget the client."""
        self._open = False
        self._streams.keeper.alarms.clear(self)
        self._streams.remove(self)
        if self._user_id is not None:
            self._streams.keeper.admission.leave_user(self._user_id)

    def _read(self, *, first: bool = False) -> None:
        if not self._log.reading:
            self._log.reading = True
            work, failed = partial(self._catch_up, first), partial(self.end, CloseCode.INTERNAL)
            self._streams.supervisor.start("orders", "stream", work, on_failure=failed)

    async def _catch_up(self, first: bool) -> None:
        """Write the log after the stream's position until nothing is left, each page in one write."""
        try:
            events = await (self._begin() if first else self._next_page())
            while True:
                for event in events:
                    self._log.take(event.seq)
                    self._write_update(event)
                self.flush()
                if self._full or not self._open or self._log.is_through(len(events), PAGE):
                    return
                events = await self._next_page()
        except OrderRefused as refused:
            self._write(frames.error(refused))
            self.flush()
            self._connection.close(CloseCode.DENIED if not refused.temporary else CloseCode.INSUFFICIENT_STATE)
        except RequestError as failure:
            self._write(frames.error(failure))
            self.flush()
            self._connection.close(CLOSES.get(failure.code, CloseCode.INSUFFICIENT_STATE))
        except TransientError:
            self._connection.close(CloseCode.INSUFFICIENT_STATE)
        except InvariantError as error:  # a person must look; until then only this order is affected
            _log.error("order_unreadable", order=self.order_id, error=str(error), exc_info=error)
            self._connection.close(CloseCode.INTERNAL)
        finally:
            self._log.reading = False

    async def _identify(self) -> str | None:
        """Return the user who must own the order; None if any order may be read. Raises RequestError."""
        auth, credential, self._credential = self._streams.auth, self._credential, None
        if auth is None or credential is None:
            return None
        identity = await auth.identify(credential)
        self._ends_s = self._streams.keeper.clock.monotonic() + auth.valid_s(identity) + auth.settings.grace_s
        self._set_alarm()
        self._count(identity.subject)
        return identity.subject

    def _count(self, user_id: str) -> None:
        """Count the stream among this user's connections. Raises RequestError if the user has too many."""
        if not self._open:
            return
        if not self._streams.keeper.admission.enter_user(user_id):
            raise RequestError(ErrorCode.LIMIT, "too many connections of this user", temporary=True)
        self._user_id = user_id

    def _set_alarm(self) -> None:
        if self._open:
            keeper = self._streams.keeper
            keeper.alarms.set(self, self._ends_s, keeper.clock.monotonic())

    async def _begin(self) -> Sequence[OrderEvent]:
        """Write the snapshot. Return the events that follow it, read together with the order."""
        intake, user_id = self._streams.intake, await self._identify()
        order, events = await intake.read(self.order_id, self._from_seq, PAGE, user_id=user_id)
        seq = min(self._from_seq, order.seq)
        as_of = (await intake.events(self.order_id, seq - 1, 1))[0] if seq else None
        self._write_snapshot(order.request, seq, order.seq, as_of)
        return events

    async def _next_page(self) -> Sequence[OrderEvent]:
        return await self._streams.intake.events(self.order_id, self._log.at.offset, PAGE)

    def _write_snapshot(self, request: OrderRequest, seq: int, last_seq: int, as_of: OrderEvent | None) -> None:
        self._log.take(seq)
        self._log.know(last_seq)
        self._write(snapshot_frame(self.order_id, request, last_seq, as_of))

    def _write_update(self, event: OrderEvent) -> None:
        self._write(event_frame(event))

    def _write(self, payload: bytes) -> None:
        self._unsent += (text_header(len(payload)), payload)

    def flush(self) -> None:
        """Write the unsent frames in a single call to the kernel."""
        unsent, self._unsent = self._unsent, []
        if unsent and self._open:
            self._connection.transport.write(b"".join(unsent))


def _from_seq(opening: Opening) -> int:
    given = opening.query.get("fromSeq", ["0"])
    if len(given) != 1 or not (given[0].isascii() and given[0].isdigit() and len(given[0]) <= 9):
        raise Refused(HTTPStatus.BAD_REQUEST, "fromSeq is not a number")
    return int(given[0])
