"""The core in Rust (package `headrace-native`). It passes updates that it cannot read to the core in Python."""

from importlib import import_module
from json.encoder import encode_basestring
from typing import Any, Final, NamedTuple, TypeAlias

from headrace.cores import AccountText, EventText, TransactionText, TransactionView
from headrace.cores.bodies import json_text
from headrace.cores.python import PythonCore, wanted_of
from headrace.cores.text_function import is_straight
from headrace.decoders import shapes
from headrace.decoders.compiler import Layout
from headrace.decoders.events import RAY_LOG
from headrace.decoders.registry import LayoutTable, Program, Programs
from headrace.decoders.shapes import SIZES, Shape
from headrace.model.errors import ConfigError
from headrace.model.events import DecodedEvent, EventBody
from headrace.model.facts import Origin
from headrace.model.updates import AccountUpdate, LogsUpdate

VERSION: Final = "0.1.0"
"""Version of `headrace-native` that this file requires: both must agree on the table of layouts."""

_RESTS_MAX: Final = 1_024
_NOT_NATIVE: Final = (OverflowError, UnicodeEncodeError)
"""Errors of the Rust core for numbers beyond 64 bits, and for text that can't be encoded as UTF-8."""


Described: TypeAlias = tuple[object, ...]
"""Shape as `native/src/shapes.rs` reads it: its name, then its parts."""


class _Part(NamedTuple):
    """Layout of an account or event; its index in the list of parts is its number in the Rust core."""

    program: Program
    table: LayoutTable
    layout: Layout

    def note(self, leftover: int, length: int, *, short: bool) -> None:
        """Count a part that the Rust core decoded, its leftover bytes, and a length shorter than the layout."""
        self.table.count(leftover)
        if short:
            self.layout.count_short(length)


class RustCore:
    """`Core` that is available where `headrace-native` is installed."""

    name = "rust"

    def __init__(self, programs: Programs) -> None:
        self._programs, self._python = programs, PythonCore(programs)
        self._parts: list[_Part] = []
        rows = [
            (
                program.program_id,
                program.program_id in programs.bare,
                self._table(program, program.account_table),
                self._table(program, program.event_table),
            )
            for program in programs.by_id.values()
        ]
        layouts = [_described(part) for part in self._parts]
        native: Any = import_module("headrace_native")
        if native.__version__ != VERSION:
            raise ConfigError("programs.core", f"headrace-native {native.__version__}", f"headrace-native {VERSION}")
        self._core: Any = native.Core(rows, layouts)
        self._rests: dict[tuple[str, str, bool], bytes] = {}

    def account(self, update: AccountUpdate, event_id: str, origin: Origin) -> AccountText:
        try:
            read = self._core.account(
                update.owner,
                update.data,
                update.pubkey,
                event_id,
                update.lamports,
                origin.slot,
                b"null" if origin.signature is None else json_text(origin.signature),
                self._rest(origin, whole=True),
            )
        except _NOT_NATIVE:
            read = None
        if read is None:
            return self._python.account(update, event_id, origin)
        number, body, values, leftover, short = read
        part = self._parts[number]
        part.note(leftover, len(update.data), short=short)
        return AccountText(part.layout.name, body, values)

    def transaction(self, update: TransactionView, origin: Origin, *, truncated: bool) -> TransactionText:
        read = None
        if isinstance(update, LogsUpdate):
            err = None if update.err is None else json_text(update.err)
            rest = self._rest(origin, whole=False)
            try:
                read = self._core.transaction(update.logs, origin.slot, origin.signature, err, rest, truncated)
            except _NOT_NATIVE:
                read = None
        if read is None:
            return self._python.transaction(update, origin, truncated=truncated)
        events, body, unknown = read
        for program_id in unknown:
            self._programs.by_id[program_id].event_table.counts.unknown += 1
        return TransactionText([self._event(*event) for event in events], (), body)

    def _event(
        self,
        number: int,
        path: tuple[int, ...],
        ordinal: int,
        body: tuple[bytes, int, int, int],
        values: dict[str, Any],
        leftover: int,
        short: bool,
        truncated: bool,
        length: int,
    ) -> EventText:
        part = self._parts[number]
        part.note(leftover, length, short=short)
        event = DecodedEvent(
            program=part.program.name,
            program_id=part.program.program_id,
            name=part.layout.name,
            via="log",
            path=path,
            ordinal=ordinal,
            data=values,
            leftover=leftover,
            truncated=truncated,
        )
        return EventText(event, EventBody(*body))

    def _rest(self, origin: Origin, *, whole: bool) -> bytes:
        """Return the end of an account's body (`whole`), or the end of a transaction's up to the value `truncated`."""
        key = (origin.commitment, origin.source, whole)
        rest = self._rests.get(key)
        if rest is None:
            if len(self._rests) >= _RESTS_MAX:
                self._rests.clear()
            said = b'],"commitment":"%b","tx_version":null,"source":%b,"truncated":' % (
                origin.commitment.encode(),
                json_text(origin.source),
            )
            rest = self._rests[key] = b',"ix":[%bfalse,"via":null}' % said if whole else said
        return rest

    def _table(self, program: Program, table: LayoutTable) -> Described:
        """Return how a table finds its layouts. Give the next free numbers to these layouts."""
        numbers = {id(layout): len(self._parts) + nth for nth, layout in enumerate(table.all)}
        self._parts += [_Part(program, table, layout) for layout in table.all]
        return (
            bool(table.strict or table.marks_inside),
            [(mark, numbers[id(layout)], start) for mark, (layout, start, _) in table.by_mark.items()],
            [(mark, length, numbers[id(layout)]) for (mark, length), layout in table.older.items()],
            [(size, numbers[id(layout)]) for size, layout in table.by_size.items()],
        )


def _described(part: _Part) -> Described:
    """Return a layout as the Rust core reads it: message openings, fields, aliases, and the values to return."""
    program, layout = part.program, part.layout
    names = [field.name for field in layout.shape.fields]
    shown = json_text(program.name), json_text(layout.name)
    if part.table is program.account_table:
        owner = json_text(program.program_id)
        opening = b'","owner":%b,"program":%b,"account":%b,"lamports":"' % (owner, *shown)
    else:
        opening = b'{"type":"Event","program":%b,"event":%b,"fields":' % shown
    told = b'{"program":%b,"name":%b,"via":"log","path":[' % shown
    straight = is_straight(layout)
    fields = _fields(layout.shape) if straight else ((None, ("odd",)),)
    aliases = [(_member(new), names.index(old)) for old, new in layout.aliases.items()] if straight else []
    olds = {new: old for old, new in layout.aliases.items()}
    wanted = wanted_of(program, part.table, layout) if straight else []
    values = [(name, names.index(olds.get(name, name))) for name in wanted]
    return opening, told, layout.name == RAY_LOG, fields, aliases, values


def _fields(shape: shapes.Struct) -> tuple[Described, ...]:
    return tuple((_member(field.name) if field.shown else None, _shape(field.shape)) for field in shape.fields)


def _member(name: str) -> bytes:
    return _quoted(name) + b":"


def _quoted(name: str) -> bytes:
    return encode_basestring(name).encode()


def _shape(shape: Shape) -> Described:
    match shape:
        case shapes.Scalar(kind="bool"):
            return ("bool",)
        case shapes.Scalar(kind="f32" | "f64" | "u256" | "i256"):
            return ("odd",)
        case shapes.Scalar():
            return ("int", SIZES[shape.kind], shape.kind[0] == "i")
        case shapes.Key():
            return ("key",)
        case shapes.Text():
            return ("text", SIZES[shape.prefix])
        case shapes.Blob(rest=False):
            return ("blob", shape.length, SIZES[shape.prefix])
        case shapes.Pad(size=int(size)):
            return ("pad", size)
        case shapes.Option():
            return ("option", _shape(shape.item), SIZES[shape.prefix])
        case shapes.COption():
            return ("coption", _shape(shape.item), SIZES[shape.prefix], shape.item.size)
        case shapes.Vec():
            return ("vec", _shape(shape.item), SIZES[shape.prefix], shape.item.floor)
        case shapes.Array():
            return ("array", _shape(shape.item), shape.length)
        case shapes.Struct():
            return ("struct", shape.named, _fields(shape))
        case shapes.Enum():
            variants = [(_quoted(v.name), None if v.body is None else _shape(v.body)) for v in shape.variants]
            return ("enum", variants, SIZES[shape.prefix])
    return ("odd",)
