"""Readers in Python and JavaScript, and the reference, agree with the shapes of the protocol's frames."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from headrace.protocol import shapes
from headrace.sdk import incoming

ROOT = Path(__file__).parents[2]
TYPES = (ROOT / "clients" / "js" / "headrace.d.ts").read_text()
PAGE = (ROOT / "docs" / "reference" / "wire-protocol.md").read_text()

READERS: dict[type[msgspec.Struct], type[msgspec.Struct]] = {
    incoming.WelcomeData: shapes.WelcomeData,
    incoming.SubscribedData: shapes.SubscribedData,
    incoming.LagData: shapes.LagData,
    incoming.SnapshotData: shapes.SnapshotPage,
    incoming.ErrorData: shapes.ErrorData,
    incoming.FieldError: shapes.WrongField,
    incoming.PingData: shapes.PingData,
    incoming.PingData.HeadData: shapes.HeadData,
    incoming._PromoteData: shapes.PromoteData,
    incoming._RetractData: shapes.RetractData,
    incoming._GapData: shapes.GapData,
    incoming._PageData: shapes.HistoryPage,
}
"""What the Python SDK reads of a frame → its shape."""

MADE_BY_THE_CLIENT = {"Snapshot": {"first", "last"}}
"""Members that the JavaScript client adds to a frame."""


def fields(shape: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(shape)}


def required(shape: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(shape) if field.required}


def members(block: str) -> dict[str, str]:
    """Member → its type, of the outermost braces of a TypeScript interface; optional ones with a `?` behind."""
    found: dict[str, str] = {}
    depth, rest = 0, re.sub(r"/\*\*.*?\*/", "", block, flags=re.DOTALL)
    for match in re.finditer(r"[{}]|(\w+\??):\s*([^;{}]*)", rest):
        if match[0] in "{}":
            depth += 1 if match[0] == "{" else -1
        elif depth == 0:
            inner = re.match(r"\{([^{}]*)\}", rest[match.end() :]) if not match[2].strip() else None
            found[match[1]] = inner[1] if inner else match[2]
    return found


def interface(name: str) -> dict[str, str]:
    """Members of a TypeScript interface, with those that it inherits."""
    declared = re.search(
        rf"interface {name}(?:<[^>]*>)?(?: extends (\w+))? \{{\n(.*?)^\}}", TYPES, re.DOTALL | re.MULTILINE
    )
    assert declared is not None, f"headrace.d.ts has no interface {name}"
    return {**(interface(declared[1]) if declared[1] else {}), **members(declared[2])}


@pytest.mark.parametrize(("reader", "shape"), READERS.items(), ids=lambda each: each.__name__)
def test_the_python_sdk_reads_members_that_frames_have(
    reader: type[msgspec.Struct], shape: type[msgspec.Struct]
) -> None:
    assert fields(reader) <= fields(shape)
    assert required(reader) <= required(shape), "the SDK needs what a frame may lack"


@pytest.mark.parametrize(
    "shape", [*get_args(shapes.Logged), shapes.Lag, shapes.Snapshot], ids=lambda each: each.__name__
)
def test_the_javascript_types_have_the_members_of_frames(shape: type[msgspec.Struct]) -> None:
    declared = interface(shape.__name__)
    made = MADE_BY_THE_CLIENT.get(shape.__name__, set())
    names = {name.removesuffix("?") for name in declared}
    assert names == fields(shape) | {"type"} | made
    assert {name for name in declared if not name.endswith("?")} == required(shape) | {"type"} | made
    (data,) = [field.type for field in msgspec.structs.fields(shape) if field.name == "data"]
    if isinstance(data, type) and issubclass(data, msgspec.Struct):
        assert {name.removesuffix("?") for name in members(declared["data"])} == fields(data)


def test_the_javascript_types_have_the_members_of_the_chain_and_of_pages() -> None:
    assert set(interface("Chain")) == fields(shapes.Chain)
    assert set(interface("Page")) == fields(shapes.HistoryPage) | {"topic"}


def test_the_reference_shows_every_frame_and_every_command() -> None:
    tags = {str(shape.__struct_config__.tag) for shape in get_args(shapes.SENT)}
    shown = set(re.findall(r'"type":"(\w+)"', PAGE)) | set(re.findall(r"`(\w+)`", PAGE))
    assert tags <= shown
    assert set(shapes.COMMANDS) <= set(re.findall(r'^→ \{"type":"(\w+)"', PAGE, re.MULTILINE))
