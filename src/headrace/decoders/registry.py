"""The known programs. Finds the layout of an event, account or instruction by program id and discriminator."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
from solders.pubkey import Pubkey

from headrace.decoders import idl
from headrace.decoders.compiler import Layout
from headrace.decoders.idl import Idl, Item
from headrace.model.errors import ConfigError
from headrace.model.events import DecodedAccount
from headrace.model.keys import is_key
from headrace.programs import SHIPPED

_BARE_MARK_MIN: Final = 8
_NAME_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")

Kind = Literal["event", "account", "instruction"]


class DecodedPart(NamedTuple):
    """One decoded event or instruction. `leftover` is the number of bytes after the layout's end."""

    program: str
    name: str
    data: dict[str, Any]
    leftover: int
    layout: Layout


class FoundPart(msgspec.Struct, frozen=True, gc=False):
    """Event or account whose layout is known. Its fields begin at `start` of `data`."""

    program: "Program"
    table: "LayoutTable"
    layout: Layout
    data: bytes
    start: int

    def decode(self) -> DecodedPart:
        """Decode the fields, and count mismatches."""
        fields, leftover = self.layout.decode(self.data, self.start)
        self.table.count(leftover)
        return DecodedPart(self.program.name, self.layout.name, fields, leftover, self.layout)


class InstructionNames(msgspec.Struct, frozen=True, gc=False):
    """Name of an instruction.

    `account_forms` are names of its accounts: first in the IDL's order, then other orders.
    """

    name: str
    account_forms: tuple[tuple[str, ...], ...] = ()

    def of_accounts(self, count: int) -> tuple[str, ...]:
        """Return the names of the form with `count` accounts, or the IDL's names if there is none."""
        for form in self.account_forms:
            if len(form) == count:
                return form
        return self.account_forms[0] if self.account_forms else ()


class Counts(msgspec.Struct):
    """Counts of how well one program's bytes of one kind fitted their layouts, since the start.

    - `decoded`: parts decoded. If it stops rising, raise an alarm.
    - `longer`: reads with bytes after the layout's end, `leftover_bytes` in all.
    - `short`: reads without some trailing fields.
    - `unknown`: discriminators that the IDL lacks.
    - `variants`: enum indexes that the IDL lacks.
    - `invalid`: bools and option tags that are neither 0 nor 1, so the layout does not fit the bytes.
    - `unreadable`: parts with a value whose type the IDL does not define, or that nests too deep.
    """

    decoded: int = 0
    unknown: int = 0
    longer: int = 0
    leftover_bytes: int = 0
    short: int = 0
    variants: int = 0
    invalid: int = 0
    unreadable: int = 0


class LayoutTable:
    """All layouts of one kind of one program."""

    def __init__(self, items: Iterable[Item], aliases: dict[str, dict[str, str]]) -> None:
        self.counts = Counts()
        self.layouts: dict[str, Layout] = {}
        self.all: list[Layout] = []
        self.by_mark: dict[bytes, tuple[Layout, int, tuple[tuple[str, ...], ...]]] = {}
        self.by_size: dict[int, Layout] = {}
        self.marks_inside: list[tuple[int, bytes, Layout]] = []
        self.strict: list[tuple[Item, Layout]] = []
        self.older: dict[tuple[bytes, int], Layout] = {}
        guesses: list[tuple[Item, Layout]] = []
        for item in items:
            layout = Layout(item.shape, aliases.get(item.name), item.sizes, item.name)
            self.add(item, layout)
            guesses += [(item._replace(discriminator=mark), layout) for mark in item.guesses]
        for item, layout in guesses:  # a certain discriminator takes precedence over a guessed one
            self.by_mark.setdefault(item.discriminator, self.marked(item, layout))
        self.mark_lengths = sorted({len(mark) for mark in self.by_mark}, reverse=True)

    def add(self, item: Item, layout: Layout) -> None:
        self.all.append(layout)
        known = self.layouts.get(item.name)
        self.layouts[item.name] = layout if known is None else _Family([known, layout])
        if item.strict:
            self.strict.append((item, layout))
        elif item.older and layout.shape.size is not None:
            self.older[item.discriminator, len(item.discriminator) + layout.shape.size] = layout
        elif item.sizes:
            self.by_size.update(dict.fromkeys(item.sizes, layout))
            if item.discriminator:
                self.marks_inside.append((item.mark_at, item.discriminator, layout))
        else:
            self.by_mark[item.discriminator] = self.marked(item, layout)

    def marked(self, item: Item, layout: Layout) -> tuple[Layout, int, tuple[tuple[str, ...], ...]]:
        return layout, 0 if item.inside else len(item.discriminator), (item.accounts, *item.forms)

    def find(self, data: bytes) -> tuple[Layout, int, tuple[tuple[str, ...], ...]] | None:
        found = self.known(data)
        self.counts.unknown += found is None
        return found

    def known(self, data: bytes) -> tuple[Layout, int, tuple[tuple[str, ...], ...]] | None:
        for item, layout in self.strict:
            if (not item.sizes or len(data) in item.sizes) and all(
                data.startswith(mark, at) for at, mark in item.marks
            ):
                return layout, 0, ()
        for length in self.mark_lengths:
            found = self.by_mark.get(data[:length])
            if found is not None:
                if self.older and (older := self.older.get((data[:length], len(data)))) is not None:
                    return older, found[1], found[2]
                return found
        if (sized := self.by_size.get(len(data))) is not None:
            return sized, 0, ()
        for at, mark, layout in self.marks_inside:
            if data[at : at + len(mark)] == mark:
                return layout, 0, ()
        return None

    def count(self, leftover: int) -> None:
        """Count a part as decoded. `leftover` bytes followed the end of its layout."""
        self.counts.decoded += 1
        if leftover:
            self.counts.longer += 1
            self.counts.leftover_bytes += leftover

    def snapshot(self) -> Counts:
        short = sum(layout.short_reads for layout in self.all)
        variants = sum(layout.unknown_variants for layout in self.all)
        invalid = sum(layout.invalid_values for layout in self.all)
        unreadable = sum(layout.unreadable_parts for layout in self.all)
        return msgspec.structs.replace(
            self.counts, short=short, variants=variants, invalid=invalid, unreadable=unreadable
        )


class _Family(Layout):
    """Several layouts with the same name (`ray_log`), distinguished by the names of their fields."""

    def __init__(self, members: list[Layout]) -> None:
        self.members: list[Layout] = []
        for member in members:
            self.members += member.members if isinstance(member, _Family) else [member]
        super().__init__(self.members[0].shape, name=self.members[0].name)
        self.by_names = {member.names: member for member in self.members}

    def _first_encode(self, data: dict[str, Any]) -> bytes:
        return self.by_names.get(tuple(data), self.members[0]).encode_json(data)


class Program:
    """One known program. `events`, `accounts` and `instructions` map names to layouts.

    `warnings` say which parts of its IDL could not be parsed. `shipped` means that it came with Headrace.
    `event_authority` is the only signer of a real self-CPI event.
    """

    def __init__(self, interface: Idl, program_id: str, *, shipped: bool = False) -> None:
        self.name = interface.name
        self.program_id = program_id
        self.shipped = shipped
        self.warnings = interface.warnings
        self.event_authority = str(
            Pubkey.find_program_address([b"__event_authority"], Pubkey.from_string(program_id))[0]
        )
        self.event_table = LayoutTable(interface.events, interface.aliases)
        self.account_table = LayoutTable(interface.accounts, interface.aliases)
        self._instructions = LayoutTable(interface.instructions, interface.aliases)
        self.events: Mapping[str, Layout] = self.event_table.layouts
        self.accounts: Mapping[str, Layout] = self.account_table.layouts
        self.instructions: Mapping[str, Layout] = self._instructions.layouts

    def find_event(self, payload: bytes) -> FoundPart | None:
        """Find the layout of `discriminator + fields`, as in logs and self-CPIs. None (and counted) if unknown."""
        return self._part(self.event_table, payload)

    def find_bare_event(self, payload: bytes) -> FoundPart | None:
        """Find the layout of a log text that as a whole encodes an event. Other text is not counted as unknown."""
        found = self.event_table.known(payload)
        if found is None or found[1] < _BARE_MARK_MIN or not found[0].fits(payload, found[1]):
            return None
        return self._part(self.event_table, payload)

    def find_account(self, data: bytes) -> FoundPart | None:
        """Find the layout of account data. None (and counted) if unknown."""
        return self._part(self.account_table, data)

    def event(self, payload: bytes) -> DecodedPart | None:
        """Decode an event. None (and counted) if unknown."""
        found = self.find_event(payload)
        return None if found is None else found.decode()

    def instruction(self, data: bytes) -> DecodedPart | None:
        """Decode instruction data. None (and counted) if unknown."""
        found = self._part(self._instructions, data)
        return None if found is None else found.decode()

    def instruction_names(self, data: bytes) -> InstructionNames | None:
        """Return the names in an instruction, without decoding its arguments. None (and counted) if unknown."""
        found = self._instructions.find(data)
        if found is None:
            return None
        self._instructions.counts.decoded += 1
        return InstructionNames(found[0].name, found[2])

    def _part(self, table: "LayoutTable", data: bytes) -> FoundPart | None:
        found = table.find(data)
        return None if found is None else FoundPart(self, table, found[0], data, found[1])

    def account(self, data: bytes) -> DecodedAccount | None:
        """Decode account data. Zero bytes at the end are unused space, not data, and are not counted as leftover."""
        found = self.find_account(data)
        if found is None:
            return None
        layout = found.layout
        fields, leftover = layout.decode(data, found.start)
        leftover = beyond_zeros(data, leftover)
        found.table.count(leftover)
        return DecodedAccount(
            program=self.name, program_id=self.program_id, name=layout.name, data=fields, leftover=leftover
        )

    def drift(self) -> dict[Kind, Counts]:
        """Return the counters of this program, by kind."""
        return {
            "event": self.event_table.snapshot(),
            "account": self.account_table.snapshot(),
            "instruction": self._instructions.snapshot(),
        }


def beyond_zeros(data: bytes, leftover: int) -> int:
    """Return how many leftover bytes are data. Zeros at an account's end are unused space."""
    return max(0, leftover - len(data) + len(data.rstrip(b"\0"))) if leftover else 0


class Drift:
    """Counts of bytes that no longer fit the programs' IDLs, to be read and exported regularly."""

    def __init__(self, programs: Mapping[str, Program]) -> None:
        self._programs = programs

    def __iter__(self) -> Iterator[tuple[str, Kind, Counts]]:
        """Yield (program name, kind, counts) for every program."""
        for name, program in self._programs.items():
            for kind, counts in program.drift().items():
                yield name, kind, counts


class Programs:
    """All known programs. Bytes of an unknown program give None and are not counted."""

    def __init__(self, programs: Iterable[Program]) -> None:
        self.by_name: dict[str, Program] = {}
        self.by_id: dict[str, Program] = {}
        for program in programs:
            self.by_name[program.name] = program
            self.by_id[program.program_id] = program
        self.drift = Drift(self.by_name)
        self.bare = frozenset(program.program_id for program in self.by_id.values() if not program.shipped)
        """Programs whose events may follow `Program log: `, as Anchor before 0.22 wrote them.

        No shipped program does.
        """
        self.warnings = [warning for program in self.by_name.values() for warning in program.warnings]

    @classmethod
    def load(cls, *folders: Path, addresses: Mapping[str, str] | None = None) -> "Programs":
        """Return the shipped programs and those of every `*.json` IDL in these folders.

        An IDL in a folder replaces a shipped program with the same address. `addresses` gives the program id of files
        (by name) that state none. Raises ConfigError naming the file.
        """
        loaded: dict[str, tuple[Program, Path]] = {}
        for path in sorted(SHIPPED.glob("*/idl.json")):
            program = _load(path, path.parent.name, {}, shipped=True)
            loaded[program.program_id] = program, path
        shipped = dict(loaded)
        for folder in folders:
            if not folder.is_dir():
                raise ConfigError("IDL folder", str(folder), "a folder with IDL files (*.json)")
            for path in sorted(folder.glob("*.json")):
                program = _load(path, path.stem, addresses or {}, shipped=False)
                before = loaded.get(program.program_id)
                if before is not None and before != shipped.get(program.program_id):
                    raise ConfigError(
                        f"IDL {path}", f"program {program.program_id}", f"one that {before[1]} is not for"
                    )
                loaded[program.program_id] = program, path
        names: dict[str, Path] = {}
        for program, path in loaded.values():
            if program.name in names:
                raise ConfigError(f"IDL {path}", f"the name {program.name}", f"one that {names[program.name]} has not")
            names[program.name] = path
        return cls(program for program, _ in loaded.values())

    def name_of(self, program_id: str) -> str:
        """Return the name of a known program; otherwise its id."""
        program = self.by_id.get(program_id)
        return program_id if program is None else program.name

    def event(self, program_id: str, payload: bytes) -> DecodedPart | None:
        """Decode an event of a program (see `Program.event`)."""
        program = self.by_id.get(program_id)
        return None if program is None else program.event(payload)

    def instruction(self, program_id: str, data: bytes) -> DecodedPart | None:
        """Decode instruction data of a program."""
        program = self.by_id.get(program_id)
        return None if program is None else program.instruction(data)

    def account(self, owner: str, data: bytes) -> DecodedAccount | None:
        """Decode the data of an account that `owner` owns."""
        program = self.by_id.get(owner)
        return None if program is None else program.account(data)


def _load(path: Path, name: str, addresses: Mapping[str, str], *, shipped: bool) -> Program:
    if not (is_key(name) or (0 < len(name) <= 64 and _NAME_CHARS.issuperset(name))):
        raise ConfigError(
            f"IDL {path}", f"the file name {path.name}", "a-z, 0-9 and _ (it names topics), or a program id"
        )
    interface = _shipped(path, name) if shipped else idl.parse(_read(path), str(path))._replace(name=name)
    program_id = interface.address or (name if is_key(name) else addresses.get(name))
    if program_id is None:
        raise ConfigError(f"IDL {path}", "no address", 'the program id as "address", or as the name of the file')
    if not is_key(program_id):
        raise ConfigError(f"IDL {path}", f"the address {program_id}", "a program id (base58 of 32 bytes)")
    return Program(interface, program_id, shipped=shipped)


@cache
def _shipped(path: Path, name: str) -> Idl:
    """Parse a shipped IDL once per process: nothing changes an Idl, and only a release changes these files."""
    supplement = path.with_name("supplement.json")
    more = [_read(supplement)] if supplement.exists() else []
    return idl.parse(_read(path), name, *more)._replace(name=name)


def _read(path: Path) -> bytes:
    """Return the file's content. Raises ConfigError for a file that is too large, and for a pipe or device."""
    try:
        if not path.is_file():
            raise ConfigError(f"IDL {path}", "something that is not a file" if path.exists() else "nothing", "a file")
        with path.open("rb") as file:
            text = file.read(idl.IDL_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"IDL {path}", error.strerror or "an error", "a file that can be read") from None
    if len(text) > idl.IDL_BYTES_MAX:
        raise ConfigError(f"IDL {path}", f"more than {idl.IDL_BYTES_MAX} bytes", f"at most {idl.IDL_BYTES_MAX}")
    return text
