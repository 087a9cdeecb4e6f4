"""Generates, for each layout, a function that turns bytes into JSON text and returns the values of wanted fields."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from headrace.decoders import shapes, tolerant
from headrace.decoders.codegen import Hooks, mapping
from headrace.decoders.compiler import Layout
from headrace.decoders.decode_function import FunctionWriter, first_floor
from headrace.decoders.shapes import Shape, Struct
from headrace.decoders.wire_json import Template, is_inline, member_name

Fields: TypeAlias = dict[str, Any]

Encode: TypeAlias = Callable[[dict[str, Any]], bytes]

_LENGTHS_MAX: Final = 256


class PartText(NamedTuple):
    """Fields of an event or account. `text` is a JSON object of all fields, `values` holds only the wanted fields.

    `leftover` counts the bytes after the layout's end.
    """

    text: str
    leftover: int
    values: Fields


ReadText: TypeAlias = Callable[[bytes, int], tuple[str, int, Fields]]
"""Function `read(data, start)` that returns the members of a PartText as a tuple."""


class _Odd(tolerant.Stopped):
    """Bytes do not fit the layout. The tolerant reader then decodes them, and counts how they differ."""


def _refuse(*_: object) -> None:
    raise _Odd


class _BoolTexts(dict[int, str]):
    """JSON text of a bool by its byte. Raises _Odd if the byte is neither 0 nor 1."""

    def __missing__(self, byte: int) -> str:
        raise _Odd


_BOOL_TEXTS: Final = _BoolTexts({0: "false", 1: "true"})


class _TextWriter(FunctionWriter):
    """Writer of one layout's function: statements that read the fields, then one `%` that fills a template."""

    def __init__(self, shape: Struct, hooks: Hooks) -> None:
        super().__init__(shape, hooks)
        self.template = Template(self.space)
        self.space["bool_texts"] = _BOOL_TEXTS

    def text_function(self, whole: int, layout: Layout, wanted: Collection[str]) -> ReadText:
        """Return a function that reads the first `whole` fields; later fields are null in its text."""
        fields, renamed = self.shape.fields, layout.aliases
        members: list[str] = []
        values, kept = dict.fromkeys(wanted, "None"), dict[str, str]()
        for field in fields[:whole]:
            name = field.name
            if not field.shown:
                self.skip(field.shape)
            elif name in wanted or name in renamed:
                kept[name] = self.read(field.shape)
                members.append(member_name(name) + self.template.part(field.shape, f"f_{len(kept)}"))
            else:
                members.append(member_name(name) + self.text(field.shape))
        self.flush()
        members += [member_name(field.name) + "null" for field in fields[whole:] if field.shown]
        names = {name: f"f_{nth + 1}" for nth, name in enumerate(kept)}
        shapes_of = {field.name: field.shape for field in fields}
        for old, new in renamed.items():
            members.append(member_name(new) + self.template.part(shapes_of[old], names.get(old, "")))
        if whole < len(fields):
            self.line(f"if n - p >= {first_floor(fields[whole].shape)}: return longer(data, start)")
        for name, value in kept.items():
            self.line(f"{names[name]} = {value}")
            values |= {known: names[name] for known in (name, renamed.get(name)) if known in values}
        self.space["template"] = "{" + ",".join(members) + "}"
        self.line(f"text = template % ({''.join(f'{argument}, ' for argument in self.template.arguments)})")
        if whole < len(fields):
            self.line("count_short(n)")
        self.line(f"return text, n - p, {mapping(values)}")
        read: ReadText = self.compiled(sum(field.shape.floor for field in fields[:whole]))
        return read

    def text(self, shape: Shape) -> str:
        """Emit the statements that read one value; return the template's text for that value."""
        if is_inline(shape):
            members = []
            for field in shape.fields:
                if field.shown:
                    members.append(member_name(field.name) + self.text(field.shape))
                else:
                    self.skip(field.shape)
            return "{" + ",".join(members) + "}"
        if isinstance(shape, shapes.Scalar) and shape.kind == "bool":
            byte = self.fresh()
            self.run_format += "B"
            self.run_names.append(byte)
            self.template.arguments.append(f"bool_texts[{byte}]")
            return "%s"
        return self.template.part(shape, self.read(shape))


def is_straight(layout: Layout) -> bool:
    """Return whether functions can read the layout: no part is unreadable, and no two fields have the same name."""
    return not layout.shape.unreadable and len(set(layout.names)) == len(layout.names)


class LayoutText:
    """Reader of one layout's events or accounts as JSON text, for data of any length.

    `read` is the function that fitted the last data: it reads the whole layout or its leading fields, as
    `Layout.decode` does. Data that a generated function can't read are decoded tolerantly, then encoded by `encode`,
    which raises an error for values that it can't encode.
    """

    def __init__(self, layout: Layout, encode: Encode, wanted: Sequence[str]) -> None:
        """Take the layout, and the names of the fields whose values are wanted, in the layout's order."""
        self._layout, self._encode = layout, encode
        self._wanted = tuple(wanted)
        self._prefixes: dict[int, ReadText] = {}
        self._lengths: dict[int, int | None] = {}
        self.read: ReadText = self._first if is_straight(layout) else self._tolerantly
        self._whole: ReadText = self.read

    def _first(self, data: bytes, start: int) -> tuple[str, int, Fields]:
        self._whole = self.read = self._written(len(self._layout.shape.fields))
        return self.read(data, start)

    def _written(self, whole: int) -> ReadText:
        hooks = self._layout.hooks(self._short, self._longer)
        hooks = hooks._replace(count_variant=_refuse, count_invalid=_refuse, count_linked=_refuse)
        writer = _TextWriter(self._layout.shape, hooks)
        return writer.text_function(whole, self._layout, self._wanted)

    def _longer(self, data: bytes, start: int) -> tuple[str, int, Fields]:
        self.read = self._whole
        return self.read(data, start)

    def _short(self, data: bytes, start: int) -> tuple[str, int, Fields]:
        """Read data that end before the layout does, or that do not fit the layout."""
        length = len(data) - start
        if length not in self._lengths and len(self._lengths) < _LENGTHS_MAX:
            found = tolerant.Reader(data, start).read_struct(self._layout.shape)
            self._lengths[length] = found.whole if found.stopped == "cut" else None
            return self._tolerantly(data, start)
        whole = self._lengths.get(length)
        if whole is None:
            return self._tolerantly(data, start)
        self._lengths[length] = None  # if these data do not fit, `_short` is called again and must not recurse
        if whole not in self._prefixes:
            self._prefixes[whole] = self._written(whole)
        self.read = self._prefixes[whole]
        part = self.read(data, start)
        self._lengths[length] = whole
        return part

    def _tolerantly(self, data: bytes, start: int) -> tuple[str, int, Fields]:
        fields, leftover = self._layout.decode(data, start)
        return self._encode(fields).decode(), leftover, {name: fields[name] for name in self._wanted}
