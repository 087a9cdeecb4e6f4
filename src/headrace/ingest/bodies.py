"""The JSON text of messages: what stands after the offset in a frame, each part encoded once. Pure.

An event's body is `"event_id":"…","data":{…},"chain":{…}`, that of promote, retract and gap `"data":{…}`. Shapes are
those of docs/reference/topics.md. u64 are strings. This is the hot path: plain byte templates, no dicts per event.
"""

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import msgspec
import pybase64

from headrace.ingest.enrich import TokenCreated
from headrace.ingest.gaps import Gap
from headrace.model.amounts import SOL_DECIMALS, decimal_string
from headrace.model.events import DecodedAccount, DecodedEvent, DecodedInstruction, Label
from headrace.model.keys import WSOL_MINT
from headrace.model.trades import Derived, Trade
from headrace.model.updates import AccountUpdate, Commitment, LogsUpdate, SlotStatus, TransactionUpdate

json_text: Final = msgspec.json.Encoder().encode

_CACHE_MAX: Final = 65_536
_paths: Final[dict[tuple[int, ...], tuple[str, bytes]]] = {}
_names: Final[dict[tuple[str, str], bytes]] = {}

_BOOL: Final = (b"false", b"true")


Frame: TypeAlias = tuple[str, bytes, bytes]
"""An event's id, and what stands before and after the data in all messages of that event."""


class TransactionText:
    """Makes the frames of one transaction; what they share is encoded once."""

    def __init__(self, update: LogsUpdate | TransactionUpdate, commitment: Commitment) -> None:
        self.signature = json_text(update.signature)
        self.version = json_text(update.version) if isinstance(update, TransactionUpdate) else b"null"
        self._slot, self._certain = update.slot, commitment != "processed"
        self._id = f"{update.slot}:{update.signature}:"
        self._head = b'"event_id":"%d:%b:' % (update.slot, self.signature[1:-1])
        self._chain = b',"chain":{"slot":"%d","signature":%b,"ix":[' % (update.slot, self.signature)
        self._rest = b'],"commitment":"%b","tx_version":%b,"source":%b,"truncated":' % (
            commitment.encode(),
            self.version,
            json_text(update.source),
        )

    def event(self, event: DecodedEvent, place: tuple[tuple[int, ...], int]) -> Frame:
        """`place` is the path and ordinal under which the event is published."""
        path, ordinal = place
        dotted, listed = path_text(path)
        number = f"{dotted}:{ordinal}"
        tail = b'%b%b%b%b,"via":"%b"}' % (self._chain, listed, self._rest, _BOOL[event.truncated], event.via.encode())
        return self._id + number, b'%b%b","data":' % (self._head, number.encode()), tail

    def label(self, key: str, event_id: str) -> Label:
        """For an event of the transaction that tells the state of `key`."""
        return Label(key, event_id, self._slot, self._certain)

    def whole(self, *, truncated: bool) -> Frame:
        """For what concerns the transaction as a whole: no instruction, no `via`."""
        tail = b'%b%b%b,"via":null}' % (self._chain, self._rest, _BOOL[truncated])
        return self._id + "tx:0", self._head + b'tx:0","data":', tail


def path_text(path: tuple[int, ...]) -> tuple[str, bytes]:
    """`(3, 1)` as `3.1` for ids and as `3,1` for a JSON list."""
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
    return json_text({"type": "TokenCreated", "token_id": created.token_id, **msgspec.structs.asdict(created)})


def transaction_data(
    update: LogsUpdate | TransactionUpdate,
    text: TransactionText,
    events: Iterable[DecodedEvent],
    instructions: Sequence[DecodedInstruction],
    raw_program: str | None,
) -> bytes:
    """`raw_program`: a program without an IDL; its instructions come with data, and the log lines too."""
    told = b",".join(
        [
            b'{"program":%b,"name":%b,"via":"%b","path":[%b]}'
            % (json_text(e.program), json_text(e.name), e.via.encode(), path_text(e.path)[1])
            for e in events
        ]
    )
    return b'{"type":"Transaction","signature":%b,"err":%b,"version":%b,"events":[%b],"instructions":%b%b}' % (
        text.signature,
        json_text(update.err),
        text.version,
        told,
        json_text([_instruction(i, raw=i.program_id == raw_program) for i in instructions]),
        b"" if raw_program is None else b',"logs":' + json_text(update.logs),
    )


def _instruction(instruction: DecodedInstruction, *, raw: bool) -> dict[str, object]:
    shown: dict[str, object] = {
        "program": instruction.program,
        "name": instruction.name,
        "path": instruction.path,
        "accounts": [*instruction.accounts.values()],
    }
    return {**shown, **instruction.args} if raw else shown


def account_frame(update: AccountUpdate, commitment: Commitment, version: int) -> Frame:
    """`version` counts the account's contents in this slot."""
    event_id = f"{update.slot}:{update.pubkey}:account:{version}"
    return event_id, *_state_frame(event_id, update.slot, update.signature, commitment, update.source)


def derived_body(derived: Derived, event_id: str, commitment: Commitment) -> bytes:
    """The whole body: `chain` is that of the newest trade."""
    slot, signature, source, _ = derived.place
    head, tail = _state_frame(event_id, slot, signature, commitment, source)
    return head + derived.data + tail


def _state_frame(
    event_id: str, slot: int, signature: str | None, commitment: Commitment, source: str
) -> tuple[bytes, bytes]:
    """What stands around the data of a state, which no single instruction brought about."""
    tail = (
        b',"chain":{"slot":"%d","signature":%b,"ix":[],"commitment":"%b","tx_version":null,"source":%b,'
        b'"truncated":false,"via":null}'
    ) % (slot, json_text(signature), commitment.encode(), json_text(source))
    return b'"event_id":%b,"data":' % json_text(event_id), tail


def account_data(update: AccountUpdate, program: str, account: DecodedAccount | None, fields: bytes) -> bytes:
    """`fields` are JSON; of an account without a layout `null`, and its bytes are shown."""
    return (b'{"type":"Account","pubkey":%b,"owner":%b,"program":%b,"account":%b,"lamports":"%d","fields":%b%b}') % (
        json_text(update.pubkey),
        json_text(update.owner),
        json_text(program),
        json_text(account and account.name),
        update.lamports,
        fields,
        b"" if account is not None else b',"raw":"%b"' % pybase64.b64encode(update.data),
    )


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
