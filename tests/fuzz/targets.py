"""The doors by which bytes come in, each as a function of any bytes: it returns, or raises what is a defect.

Errors that a door is meant to raise are caught. What else holds is asserted: bytes mean the same however they are cut,
and what was accepted can go on.
"""

import io
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import msgspec

from headrace.decoders import idl
from headrace.decoders.registry import Program
from headrace.gateway.transports import rfc6455, rfc9112
from headrace.ingest.pipeline import Pipeline
from headrace.inspect.transactions import inspect
from headrace.model.errors import BadInputError, ConfigError, RequestError, TransientError
from headrace.model.orders import OrderRefused
from headrace.model.updates import AccountUpdate, AnyUpdate, LogsUpdate, TransactionUpdate
from headrace.orders.requests import read_json, read_request
from headrace.protocol.filters import parse_filter
from headrace.protocol.frames import Limits
from headrace.protocol.session import Close, OrderCommand, Send, ServerSession
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from headrace.solana import rpc_transport
from headrace.solana.notifications import update_from_notification
from headrace.solana.rpc import RpcError
from headrace.solana.rpc_bodies import inflate
from headrace.solana.transactions import signature_of, transaction_from_rpc
from headrace.solana.wire import parse_wire
from headrace.sources.recording_file import Tail, read_blocks, read_header
from headrace.sources.rpc_pubsub.frames import Stamp, read
from headrace.sources.subscriptions import ChainSubscription, Kind
from headrace.testing.ledger import made_up_key
from tests.fuzz.gzips import make, meaning
from tests.mainnet import PUMP, programs

Target: TypeAlias = Callable[[bytes], None]

BYTES_MAX: Final = 1 << 20
HEADER_MAX, BODY_MAX = 16_384, 65_536
ANY: Final = msgspec.json.Decoder(Any)
KINDS: Final[tuple[Kind, ...]] = ("slots", "logs", "program", "account", "signature")
ACTIVE: Final = {number: ChainSubscription(kind, PUMP if number else "") for number, kind in enumerate(KINDS)}
STAMP: Final = Stamp("rpc-0", "processed")
FED: Final[dict[str, Any]] = {"source": "rpc-0", "feed": f"logs:{PUMP}", "received_ns": 1}
PIPELINE_EVERY: Final = 5_000
"""Updates that one pipeline takes: it is then made anew, so that what it remembers does not grow with the run."""


class _Flow:
    """A pipeline for what the readers accept."""

    def __init__(self) -> None:
        self._taken = PIPELINE_EVERY
        self._pipeline: Pipeline | None = None

    def take(self, update: AnyUpdate) -> None:
        if self._pipeline is None or self._taken >= PIPELINE_EVERY:
            self._pipeline, self._taken = Pipeline(programs(), ManualClock(), Metrics()), 0
        self._taken += 1
        for publication in self._pipeline.apply(update):
            msgspec.json.decode(b"{%b}" % publication.body)


_flow: Final = _Flow()


def http(data: bytes) -> None:
    """Requests of one connection: in one piece, in two, and byte by byte where they are short."""
    whole = _requests([data])
    cut = len(data) * 7 // 16
    assert _requests([data[:cut], data[cut:]]) == whole
    if len(data) <= 512:
        assert _requests([data[at : at + 1] for at in range(len(data))]) == whole


def _requests(pieces: list[bytes]) -> list[object]:
    inbound, found = rfc9112.Inbound(HEADER_MAX, BODY_MAX), list[object]()
    try:
        for piece in pieces:
            inbound.receive(piece)
            while (request := inbound.next()) is not None:
                if isinstance(request, rfc9112.Request):
                    found.append(request)
    except rfc9112.Malformed as error:
        found.append(error.status)
    return found


def websocket(data: bytes) -> None:
    """Frames of one client: the first byte says whether they may be compressed."""
    deflate, data = bool(data[:1] > b"\x7f"), data[1:]
    cut = len(data) // 2
    assert _messages([data[:cut], data[cut:]], deflate=deflate) == _messages([data], deflate=deflate)


def _messages(pieces: list[bytes], *, deflate: bool) -> list[object]:
    inbound, found = rfc6455.Inbound(), list[object]()
    inbound.deflate, inbound.message_bytes_max = deflate, BODY_MAX
    try:
        for piece in pieces:
            found += inbound.receive(piece)
    except rfc6455.Violation as violation:
        found.append(violation.code)
    return found


def notification(data: bytes) -> None:
    """One message of a node's WebSocket; what it tells goes through the pipeline."""
    try:
        heard = read(data, ACTIVE, STAMP, 1)
    except BadInputError:
        return
    if isinstance(heard, LogsUpdate | AccountUpdate):
        _flow.take(heard)


def captured(data: bytes) -> None:
    """A notification as captures hold it, whose subscription nobody knows."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    try:
        _flow.take(update_from_notification(value, **FED))
    except BadInputError:
        pass


def answer(data: bytes) -> None:
    """A node's answer over HTTP."""
    try:
        result = rpc_transport._result(data, 1, "getTransaction", "node", ANY)
        signature_of(result)
        _flow.take(transaction_from_rpc(result, **FED))
    except (BadInputError, TransientError, RpcError):
        pass


def packed(data: bytes) -> None:
    """A body that claims to be gzip; the first byte is the bound, the others say how it is made."""
    bytes_max, body = data[0] * 64 if data else 0, make(data[1:])
    try:
        found = inflate(body.data, bytes_max)
    except BadInputError as error:
        meaning(error.detail)
        sound = body.content is not None and len(body.content) <= bytes_max
        assert not sound, error
        return
    for _ in range(len(found).bit_length()):
        pass  # counted by the fuzzer: how much came out
    assert len(found) <= bytes_max
    assert not body.broken
    assert body.content in (None, found)


def layouts(data: bytes) -> None:
    """An IDL, and, behind the last line break, bytes to decode by it."""
    text, _, part = data.rpartition(b"\n")
    try:
        program = Program(idl.parse(text, "fuzz"), made_up_key("fuzz"))
    except ConfigError:
        return
    for layout in (*program.events.values(), *program.accounts.values(), *program.instructions.values()):
        layout.decode(part, 0)
    program.event(part), program.account(part), program.instruction(part)


def account(data: bytes) -> None:
    """Account data of every program on board."""
    for program in programs().by_name.values():
        program.account(data)
    _flow.take(
        AccountUpdate(
            source="rpc-0",
            feed=f"program:{PUMP}",
            received_ns=1,
            slot=1,
            pubkey=made_up_key("account"),
            owner=PUMP,
            lamports=1,
            data=data,
        )
    )


def event(data: bytes) -> None:
    """Events and instructions of every program on board."""
    for program in programs().by_name.values():
        program.event(data), program.instruction(data)


def transaction(data: bytes) -> None:
    """A transaction's own bytes."""
    try:
        wire = parse_wire(data)
    except BadInputError:
        return
    assert not wire.keys or len(wire.signatures) == wire.signers


def document(data: bytes) -> None:
    """Anything that `headrace decode` is given."""
    try:
        found = inspect(data, programs())
    except BadInputError:
        return
    msgspec.json.encode(found)


def recording(data: bytes) -> None:
    """A recording file; its updates go through the pipeline."""
    file = io.BytesIO(data)
    try:
        read_header(file)
    except BadInputError:
        return
    blocks = list(read_blocks(file))
    assert isinstance(blocks[-1], Tail)
    for block in blocks[:-1]:
        assert not isinstance(block, Tail)
        for update in block.updates:
            _flow.take(update)


def updates(data: bytes) -> None:
    """An update as recordings hold them, without checksum and compression."""
    try:
        update = _UPDATE.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    _flow.take(update)
    if isinstance(update, TransactionUpdate):
        hash(update.signature)


_UPDATE: Final = msgspec.msgpack.Decoder(AnyUpdate)


def order(data: bytes) -> None:
    """The body of an order."""
    try:
        request = read_request(read_json(data), amount_max=2**64 - 1)
    except OrderRefused:
        return
    assert 0 < request.amount < 2**64


def filters(data: bytes) -> None:
    """The filter of a subscription: what is accepted is accepted again as it is written out, and is the same."""
    try:
        parsed = parse_filter(data)
    except RequestError:
        return
    if parsed is not None:
        again = parse_filter(parsed.text.encode())
        assert again is not None
        assert again.text == parsed.text


def command(data: bytes) -> None:
    """Frames of a client, a line each: its session answers each of them, or asks for what can be done."""
    session = ServerSession(Limits(), 0.0, orders=True)
    session.open(["trades:pump"])
    for now_s, line in enumerate(data.splitlines()):
        for action in session.receive(line.decode("utf-8", "replace"), float(now_s)):  # frames are checked for UTF-8
            if isinstance(action, Send):
                msgspec.json.decode(action.payload)
            elif isinstance(action, OrderCommand):
                ANY.decode(action.data)
            elif isinstance(action, Close):
                return
    assert len(session.topics) <= session.limits.topics


TARGETS: Final[Mapping[str, Target]] = MappingProxyType(
    {
        target.__name__: target
        for target in (
            http, websocket, notification, captured, answer, packed, layouts, account, event, transaction, document,
            recording, updates, order, filters, command,
        )
    }
)  # fmt: skip
