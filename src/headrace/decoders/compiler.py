"""Layouts: the shapes of an IDL, ready to decode data of any length and to encode it as wire JSON."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from headrace.decoders import tolerant, wire_json
from headrace.decoders.codegen import Decode, Decoded, Hooks
from headrace.decoders.decode_function import FunctionWriter
from headrace.decoders.shapes import Struct

_LENGTHS_MAX: Final = 256


class Layout:
    """One event, account or instruction, ready to decode. Compiled when it is first used.

    `decode(data, start=0)` returns the fields and the number of bytes after them. It never raises on bad bytes. Each
    kind of mismatch has a counter:

    - `short_reads`: fields that are not complete in `data` are None. A nested struct keeps its first fields.
    - `unknown_variants`: an enum index that the IDL lacks is returned as a number. If the length of its data is
      unknown, everything after it is None.
    - `unreadable_parts`: a value whose type the IDL does not define, and everything after it, is None.
    - `invalid_values`: bools and option tags that are neither 0 nor 1 are read as true and present.

    `aliases` are other names for some fields (IDL's name → other name). If the length of `data` is in `complete_at`,
    missing trailing fields do not count as a short read.
    """

    def __init__(
        self, shape: Struct, aliases: dict[str, str] | None = None, complete_at: Iterable[int] = (), name: str = ""
    ) -> None:
        self.name = name or shape.name
        self.shape = shape
        fields = [field.name for field in shape.shown]
        self.aliases = {old: new for old, new in (aliases or {}).items() if old in fields and new not in fields}
        self.names = (*fields, *self.aliases.values())
        self.complete_at = frozenset(complete_at)
        self.short_reads = 0
        self.unknown_variants = 0
        self.invalid_values = 0
        self.unreadable_parts = 0
        self.decode: Decode = self._first_decode
        self.encode_json: Callable[[dict[str, Any]], bytes] = self._first_encode
        self._shown = frozenset(fields)
        self._stops_early = False
        self._whole: Decode = self._first_decode
        self._prefixes: dict[int, Decode] = {}
        self._lengths: dict[int, int] = {}

    def fits(self, data: bytes, start: int) -> bool:
        """Return whether the bytes from `start` on are exactly one value of this layout."""
        read = tolerant.Reader(data, start).read_struct(self.shape)
        return not read.stopped and not read.invalid and not read.unknown and read.end == len(data)

    def project(self, names: Iterable[str]) -> "Layout":
        """Return a layout that reads only these fields and stops after the last of them. Its leftover is always 0.

        Raises KeyError for a name that this layout lacks.
        """
        wanted = set(names)
        if unknown := wanted.difference(self.names):
            raise KeyError(f"{self.name} has no field {', '.join(sorted(unknown))}")
        wanted |= {old for old, new in self.aliases.items() if new in wanted}
        end = max((i + 1 for i, field in enumerate(self.shape.fields) if field.name in wanted), default=0)
        leading = Struct(self.shape.name, self.shape.fields[:end], named=self.shape.named)
        aliases = {old: new for old, new in self.aliases.items() if new in wanted}
        projection = Layout(leading, aliases, self.complete_at, self.name)
        projection.names = tuple(name for name in projection.names if name in wanted)
        projection._shown &= wanted
        projection._stops_early = True
        return projection

    def _first_decode(self, data: bytes, start: int = 0) -> Decoded:
        self._whole = self.decode = self._compiled(len(self.shape.fields))
        return self.decode(data, start)

    def _first_encode(self, data: dict[str, Any]) -> bytes:
        fields = {name: shape for name, shape in self.shape.told.items() if name in self._shown}
        self.encode_json = wire_json.Encoder(fields, self.aliases).encode
        return self.encode_json(data)

    def _compiled(self, whole: int) -> Decode:
        return FunctionWriter(self.shape, self.hooks(self._short, self._longer)).function(
            whole, self._shown, self.aliases, stop_early=self._stops_early
        )

    def hooks(self, short: Callable[..., Any], longer: Callable[..., Any]) -> Hooks:
        """Return the hooks for a function that reads this layout. They count the mismatches in this object."""
        return Hooks(
            short=short,
            longer=longer,
            count_short=self.count_short,
            count_variant=self._count_variant,
            count_invalid=self._count_invalid,
            count_unreadable=self._count_unreadable,
            count_linked=self._count_linked,
        )

    def _count_variant(self) -> None:
        self.unknown_variants += 1

    def _count_invalid(self) -> None:
        self.invalid_values += 1

    def _count_unreadable(self) -> None:
        self.unreadable_parts += 1

    def _count_linked(self, variants: int, invalid: int) -> None:
        self.unknown_variants += variants
        self.invalid_values += invalid

    def count_short(self, length: int) -> None:
        """Count data of this length as lacking its last fields, unless the layout may end there."""
        if length not in self.complete_at:
            self.short_reads += 1

    # Layouts grow at their end. So live data is often one or two fields shorter than the newest IDL, and always of the
    # same length. `decode` is therefore the decoder that fitted last: that of the whole layout, or that of some of its
    # leading fields (at most one for each number of fields). Each decoder passes data that does not fit to `_short` or
    # `_longer`.

    def _longer(self, data: bytes, start: int) -> Decoded:
        self.decode = self._whole
        return self.decode(data, start)

    def _short(self, data: bytes, start: int) -> Decoded:
        """Read data that ends before the layout does, or that has a variant that the layout lacks."""
        length = len(data) - start
        whole = self._lengths.pop(length, None)
        if whole is None:
            return self._read_tolerantly(data, start)
        self.decode = self._prefixes[whole]
        decoded = self.decode(data, start)  # returns here at most once, because `_lengths` lacks the length now
        self._lengths[length] = whole
        return decoded

    def _read_tolerantly(self, data: bytes, start: int) -> Decoded:
        read = tolerant.Reader(data, start).read_struct(self.shape)
        self.unknown_variants += read.unknown
        self.invalid_values += read.invalid
        self.unreadable_parts += read.stopped == "untold"
        if read.stopped in ("cut", "inside"):
            self.count_short(len(data))
        if read.stopped == "cut":
            if read.whole not in self._prefixes:
                self._prefixes[read.whole] = self._compiled(read.whole)
            if len(self._lengths) < _LENGTHS_MAX:
                self._lengths[len(data) - start] = read.whole
        fields = {name: value for name, value in read.values.items() if name in self._shown}
        fields |= {new: fields[old] for old, new in self.aliases.items()}
        return fields, 0 if self._stops_early else len(data) - read.end
