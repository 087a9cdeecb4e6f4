"""The JSON text of messages: what stands after the offset in a frame, each part encoded once. Pure.

An event's body is `"event_id":"…","data":{…},"chain":{…}`, that of promote, retract and gap `"data":{…}`. Shapes are
those of docs/reference/topics.md. u64 are strings. This is the hot path: plain byte templates, no dicts per event.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import pybase64

from headrace.decoders.instructions import arguments_of
from headrace.decoders.registry import Programs
from headrace.model.amounts import SOL_DECIMALS, decimal_string
from headrace.model.events import DecodedEvent
from headrace.model.facts import AccountChanged, EventSeen, Gap, Origin, TokenCreated, TransactionSeen
from headrace.model.keys import WSOL_MINT
from headrace.model.trades import Derived, Trade, token_id_of
from headrace.model.updates import Commitment, SlotStatus, TransactionUpdate

json_text: Final = msgspec.json.Encoder().encode

_CACHE_MAX: Final = 65_536
_paths: Final[dict[tuple[int, ...], tuple[str, bytes]]] = {}
_names: Final[dict[tuple[str, str], bytes]] = {}

_BOOL: Final = (b"false", b"true")


class TransactionText:
    """Makes what stands around the data in the messages of one transaction; what they share is encoded once."""

    def __init__(self, origin: Origin) -> None:
        self.signature, self.version = json_text(origin.signature), json_text(origin.version)
        signature = self.signature[1:-1]
        self._before_ids = len(f"{origin.slot}:{origin.signature}:")
        self._head = b'"event_id":"%d:%b:' % (origin.slot, signature)
        self._chain = b',"chain":{"slot":"%d","signature":%b,"ix":[' % (origin.slot, self.signature)
        self._rest = b'],"commitment":"%b","tx_version":%b,"source":%b,"truncated":' % (
            origin.commitment.encode(),
            self.version,
            json_text(origin.source),
        )

    def around(self, seen: EventSeen) -> tuple[bytes, bytes]:
        """Return what stands before and after the data in all messages of an event."""
        event, listed = seen.event, path_text(seen.path)[1]
        tail = b'%b%b%b%b,"via":"%b"}' % (self._chain, listed, self._rest, _BOOL[event.truncated], event.via.encode())
        return b'%b%b","data":' % (self._head, seen.event_id[self._before_ids :].encode()), tail

    def around_whole(self, *, truncated: bool) -> tuple[bytes, bytes]:
        """Return the same for what concerns the transaction as a whole: no instruction, no `via`."""
        tail = b'%b%b%b,"via":null}' % (self._chain, self._rest, _BOOL[truncated])
        return self._head + b'tx:0","data":', tail


def path_text(path: tuple[int, ...]) -> tuple[str, bytes]:
    """Return `(3, 1)` as `3.1` for ids and as `3,1` for a JSON list."""
    text = _paths.get(path)
    if text is None:
        if len(_paths) >= _CACHE_MAX:
            _paths.clear()
        dotted = ".".join(map(str, path))
        text = _paths[path] = dotted, dotted.replace(".", ",").encode()
    return text


def _named(event: DecodedEvent) -> bytes:
    key = (event.program, event.name)
    text = _names.get(key)
    if text is None:
        if len(_names) >= _CACHE_MAX:
            _names.clear()
        text = _names[key] = b'"program":%b,"event":%b,' % (json_text(event.program), json_text(event.name))
    return text


def event_data(event: DecodedEvent, fields: bytes) -> bytes:
    return b'{"type":"Event",%b"fields":%b}' % (_named(event), fields)


def trade_data(event: DecodedEvent, trade: Trade, fields: bytes) -> bytes:
    in_sol = trade.quote_mint == WSOL_MINT
    sol = b'"%b"' % decimal_string(trade.quote_amount, SOL_DECIMALS).encode() if in_sol else b"null"
    return (
        b'{"type":"Trade",%b"mint":%b,"quote_mint":%b,"side":"%b","user":%b,"authority":%b,"base_amount":"%d",'
        b'"quote_amount":"%d","sol":%b,"pool":%b,"fields":%b}'
    ) % (
        _named(event),
        json_text(trade.mint),
        json_text(trade.quote_mint),
        trade.side.encode(),
        json_text(trade.user),
        json_text(trade.authority),
        trade.base_amount,
        trade.quote_amount,
        sol,
        json_text(trade.pool),
        fields,
    )


def created_data(created: TokenCreated) -> bytes:
    return json_text(
        {
            "type": "TokenCreated",
            "token_id": token_id_of(created.mint),
            "mint": created.mint,
            "name": created.name,
            "symbol": created.symbol,
            "creator": created.creator,
        }
    )


class _Shown(msgspec.Struct, frozen=True, gc=False):
    """Instruction as the messages of its transaction show it."""

    program: str
    name: str | None
    path: tuple[int, ...]
    accounts: tuple[str, ...]


def transaction_data(
    fact: TransactionSeen, text: TransactionText, raw_program: str | None, programs: Programs
) -> bytes:
    """Return the data of a transaction.

    `raw_program` is a program without an IDL: its instructions come with their data, and the log lines too.
    """
    instructions: Sequence[object] = [_Shown(i.program, i.name, i.path, i.keys) for i in fact.instructions]
    if raw_program is not None and isinstance(fact.update, TransactionUpdate):
        instructions = [
            {**msgspec.structs.asdict(shown), **arguments_of(each, programs)}
            if isinstance(shown, _Shown) and each.program_id == raw_program
            else shown
            for shown, each in zip(instructions, fact.update.instructions, strict=True)
        ]
    events = b",".join(
        [
            b'{"program":%b,"name":%b,"via":"%b","path":[%b]}'
            % (json_text(e.program), json_text(e.name), e.via.encode(), path_text(e.path)[1])
            for e in fact.events
        ]
    )
    return b'{"type":"Transaction","signature":%b,"err":%b,"version":%b,"events":[%b],"instructions":%b%b}' % (
        text.signature,
        json_text(fact.update.err),
        text.version,
        events,
        json_text(instructions),
        b"" if raw_program is None else b',"logs":' + json_text(fact.update.logs),
    )


def account_body(fact: AccountChanged) -> bytes:
    """Return the whole body. Of an account without a layout the bytes are shown."""
    update, origin = fact.update, fact.origin
    head, tail = _around_state(fact.event_id, update.slot, update.signature, origin.commitment, update.source)
    return (
        b'%b{"type":"Account","pubkey":%b,"owner":%b,"program":%b,"account":%b,"lamports":"%d","fields":%b%b}%b'
    ) % (
        head,
        json_text(update.pubkey),
        json_text(update.owner),
        json_text(fact.program),
        json_text(fact.account and fact.account.name),
        update.lamports,
        fact.fields,
        b"" if fact.account is not None else b',"raw":"%b"' % pybase64.b64encode(update.data),
        tail,
    )


def derived_body(derived: Derived, event_id: str, commitment: Commitment) -> bytes:
    """Return the whole body; `chain` is that of the newest trade."""
    slot, signature, source, _ = derived.place
    head, tail = _around_state(event_id, slot, signature, commitment, source)
    return head + derived.data + tail


def _around_state(
    event_id: str, slot: int, signature: str | None, commitment: Commitment, source: str
) -> tuple[bytes, bytes]:
    """Return what stands around the data of a state, which no single instruction brought about."""
    tail = (
        b',"chain":{"slot":"%d","signature":%b,"ix":[],"commitment":"%b","tx_version":null,"source":%b,'
        b'"truncated":false,"via":null}'
    ) % (slot, json_text(signature), commitment.encode(), json_text(source))
    return b'"event_id":%b,"data":' % json_text(event_id), tail


def slot_body(slot: int, status: SlotStatus, parent: int | None, source: str) -> bytes:
    data = {"type": "Slot", "slot": str(slot), "status": status, "parent": None if parent is None else str(parent)}
    chain: dict[str, object] = {
        "slot": str(slot),
        "signature": None,
        "ix": [],
        "commitment": status if status in ("confirmed", "finalized") else "processed",
        "tx_version": None,
        "source": source,
        "truncated": False,
        "via": None,
    }
    return b'"event_id":"%d:slot:%b","data":%b,"chain":%b' % (slot, status.encode(), json_text(data), json_text(chain))


def promote_body(slot: int, commitment: Commitment) -> bytes:
    return b'"data":%b' % json_text({"slot": str(slot), "commitment": commitment})


def retract_body(event_ids: Sequence[str], reason: str) -> bytes:
    return b'"data":%b' % json_text({"event_ids": event_ids, "reason": reason})


def gap_body(gap: Gap) -> bytes:
    data = {
        "gap_id": gap.gap_id,
        "from_slot": str(gap.from_slot),
        "to_slot": str(gap.to_slot),
        "state": gap.state,
        "reason": gap.reason,
    }
    return b'"data":%b' % json_text(data)
