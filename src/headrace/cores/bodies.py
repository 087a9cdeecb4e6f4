"""The JSON text of what a core reads: what stands after the offset in a frame, each part encoded once. Pure.

An event's body is `"event_id":"…","data":{…},"chain":{…}`, that of promote, retract and gap `"data":{…}`. Shapes are
those of docs/reference/topics.md. u64 are strings. This is the hot path: plain byte templates, no dicts per event.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import pybase64

from headrace.decoders.instructions import arguments_of
from headrace.decoders.registry import Programs
from headrace.model.events import DecodedEvent, EventBody, NamedInstruction
from headrace.model.facts import Origin
from headrace.model.updates import AccountUpdate, Commitment, Instruction, LogsUpdate, TransactionUpdate

json_text: Final = msgspec.json.Encoder().encode

_CACHE_MAX: Final = 65_536
_paths: Final[dict[tuple[int, ...], tuple[str, bytes]]] = {}
_names: Final[dict[tuple[str, str], bytes]] = {}

_BOOL: Final = (b"false", b"true")


class TransactionFrame:
    """Makes what stands around the data in the messages of one transaction; what they share is encoded once."""

    def __init__(self, origin: Origin) -> None:
        self.signature, self.version = json_text(origin.signature), json_text(origin.version)
        signature = self.signature[1:-1]
        self._head = b'"event_id":"%d:%b:' % (origin.slot, signature)
        self._chain = b',"chain":{"slot":"%d","signature":%b,"ix":[' % (origin.slot, self.signature)
        self._rest = b'],"commitment":"%b","tx_version":%b,"source":%b,"truncated":' % (
            origin.commitment.encode(),
            self.version,
            json_text(origin.source),
        )

    def event(self, event: DecodedEvent, path: tuple[int, ...], ordinal: int, fields: bytes) -> EventBody:
        """Return the body of an event in this place."""
        dotted, listed = path_text(path)
        head = b'%b%b:%d","data":' % (self._head, dotted.encode(), ordinal)
        opening = b'{"type":"Event",%b"fields":' % named(event)
        text = b'%b%b%b}%b%b%b%b,"via":"%b"}' % (
            head,
            opening,
            fields,
            self._chain,
            listed,
            self._rest,
            _BOOL[event.truncated],
            event.via.encode(),
        )
        begun = len(head) + len(opening)
        return EventBody(text, len(head), begun, begun + len(fields))

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


def named(event: DecodedEvent) -> bytes:
    """Return the members that say which event."""
    key = (event.program, event.name)
    text = _names.get(key)
    if text is None:
        if len(_names) >= _CACHE_MAX:
            _names.clear()
        text = _names[key] = b'"program":%b,"event":%b,' % (json_text(event.program), json_text(event.name))
    return text


class _Shown(msgspec.Struct, frozen=True, gc=False):
    """Instruction as the messages of its transaction show it."""

    program: str
    name: str | None
    path: tuple[int, ...]
    accounts: tuple[str, ...]


def transaction_body(
    update: LogsUpdate | TransactionUpdate,
    frame: TransactionFrame,
    events: Sequence[DecodedEvent],
    instructions: Sequence[NamedInstruction],
    *,
    truncated: bool,
    raw: tuple[str, Programs] | None = None,
) -> bytes:
    """Return the body of a transaction.

    `raw` is a program without an IDL, and those with one: instructions of the former come with their data, and the log
    lines too.
    """
    named = [_Shown(each.program, each.name, each.path, each.keys) for each in instructions]
    shown: Sequence[object] = named
    if raw is not None and isinstance(update, TransactionUpdate):
        pairs = zip(named, update.instructions, strict=True)
        shown = [_raw(one, each, raw[1]) if each.program_id == raw[0] else one for one, each in pairs]
    head, tail = frame.around_whole(truncated=truncated)
    listed = b",".join(
        [
            b'{"program":%b,"name":%b,"via":"%b","path":[%b]}'
            % (json_text(e.program), json_text(e.name), e.via.encode(), path_text(e.path)[1])
            for e in events
        ]
    )
    return b'%b{"type":"Transaction","signature":%b,"err":%b,"version":%b,"events":[%b],"instructions":%b%b}%b' % (
        head,
        frame.signature,
        json_text(update.err),
        frame.version,
        listed,
        json_text(shown),
        b"" if raw is None else b',"logs":' + json_text(update.logs),
        tail,
    )


def _raw(shown: _Shown, instruction: Instruction, programs: Programs) -> dict[str, object]:
    """Return an instruction with its arguments among its members."""
    return {**msgspec.structs.asdict(shown), **arguments_of(instruction, programs)}


def account_body(
    update: AccountUpdate, event_id: str, origin: Origin, program: str, name: str | None, fields: bytes
) -> bytes:
    """Return the whole body. Of an account without a layout, whose `name` is None, the bytes are shown."""
    head, tail = around_state(event_id, origin.slot, origin.signature, origin.commitment, origin.source)
    return (
        b'%b{"type":"Account","pubkey":%b,"owner":%b,"program":%b,"account":%b,"lamports":"%d","fields":%b%b}%b'
    ) % (
        head,
        json_text(update.pubkey),
        json_text(update.owner),
        json_text(program),
        json_text(name),
        update.lamports,
        fields,
        b"" if name is not None else b',"raw":"%b"' % pybase64.b64encode(update.data),
        tail,
    )


def around_state(
    event_id: str, slot: int, signature: str | None, commitment: Commitment, source: str
) -> tuple[bytes, bytes]:
    """Return what stands around the data of a state, which no single instruction brought about."""
    tail = (
        b',"chain":{"slot":"%d","signature":%b,"ix":[],"commitment":"%b","tx_version":null,"source":%b,'
        b'"truncated":false,"via":null}'
    ) % (slot, json_text(signature), commitment.encode(), json_text(source))
    return b'"event_id":%b,"data":' % json_text(event_id), tail
