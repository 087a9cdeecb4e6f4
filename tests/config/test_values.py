"""Every type from text and from TOML, and the exact words for every value that is refused."""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from headrace.config import Config, SameAs, Setting, WrongSettings, load
from headrace.config.kinds import KINDS
from headrace.config.shapes import RefusedError, Shape
from tests.config.sections import KEY, SECTIONS, Gate, Node


def from_env(**env: str) -> Config:
    return load(SECTIONS, env=env, dotenv=None, toml=None)


def from_toml(folder: Path, text: str) -> Config:
    path = folder / "headrace.toml"
    path.write_text(text)
    return load(SECTIONS, env={}, dotenv=None, toml=path)


def value_of(config: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(config.section(SECTIONS[section]), name)


ACCEPTED = [
    ("gate.port", "SERVER_PORT", " 9000 ", "9000", 9000),
    ("gate.port", "SERVER_PORT", "+1", "+1", 1),
    ("gate.host", "GATE_HOST", " ::1 ", '"::1"', "::1"),
    ("gate.rate", "GATE_RATE", "1", "1", 1.0),
    ("gate.rate", "GATE_RATE", ".25", "0.25", 0.25),
    ("gate.rate", "GATE_RATE", "1e-3", "1e-3", 0.001),
    ("gate.deflate", "GATE_DEFLATE", "true", "true", True),
    ("gate.deflate", "GATE_DEFLATE", "YES", "true", True),
    ("gate.deflate", "GATE_DEFLATE", "On", "true", True),
    ("gate.deflate", "GATE_DEFLATE", "1", "true", True),
    ("gate.deflate", "GATE_DEFLATE", "off", "false", False),
    ("gate.deflate", "GATE_DEFLATE", "0", "false", False),
    ("gate.deflate", "GATE_DEFLATE", "no", "false", False),
    ("gate.token", "ADMIN_TOKEN", "s3cret", '"s3cret"', "s3cret"),
    ("gate.token", "ADMIN_TOKEN", "", '""', None),
    ("node.urls", "NODE_WS", "ws://127.0.0.1:8900/", '["ws://127.0.0.1:8900/"]', ("ws://127.0.0.1:8900/",)),
    ("node.urls", "NODE_WS", "ws://a, wss://b/x?k=1,", '["ws://a", "wss://b/x?k=1"]', ("ws://a", "wss://b/x?k=1")),
    ("node.rpc_url", "NODE_RPC", "https://[::1]:8899", '"https://[::1]:8899"', "https://[::1]:8899"),
    ("node.rpc_url", "NODE_RPC", "", '""', None),
    ("node.commitment", "NODE_COMMITMENT", "Finalized", '"FINALIZED"', "finalized"),
    ("node.idls", "IDL_DIR", "/srv/idls", '"/srv/idls"', Path("/srv/idls")),
    ("node.idls", "IDL_DIR", "", '""', None),
    ("node.programs", "NODE_PROGRAMS", "", "[]", ()),
    ("node.programs", "NODE_PROGRAMS", KEY, f'["{KEY}"]', (KEY,)),
    ("node.depth", "NODE_DEPTH", "", '""', None),
    ("node.depth", "NODE_DEPTH", "7", "7", 7),
    ("node.label", "NODE_LABEL", "", '""', ""),
    ("node.store", "NODE_STORE", "postgresql:///orders", '"postgresql:///orders"', "postgresql:///orders"),
    ("node.store", "NODE_STORE", "sqlite:////var/h.db", '"sqlite:////var/h.db"', "sqlite:////var/h.db"),
    ("node.cache", "NODE_CACHE", "localhost:6379", '"localhost:6379"', "redis://localhost:6379"),
    ("node.urls", "NODE_WS", "localhost:8900", '["localhost:8900"]', ("ws://localhost:8900",)),
    ("node.rpc_url", "NODE_RPC", "localhost:8899", '"localhost:8899"', "http://localhost:8899"),
    ("node.cache", "NODE_CACHE", "rediss://h:6380/1", '"unix:///run/r.sock"', None),
]


@pytest.mark.parametrize(("key", "env", "text", "toml", "value"), ACCEPTED)
def test_accepted(tmp_path: Path, key: str, env: str, text: str, toml: str, value: Any) -> None:
    section, _, name = key.partition(".")
    given_env = value_of(from_env(**{env: text}), key)
    given_toml = value_of(from_toml(tmp_path, f"[{section}]\n{name} = {toml}\n"), key)
    if value is not None or key != "node.cache":
        assert given_env == value
        assert given_toml == value
        assert type(given_toml) is type(given_env)


PORT = "an integer from 1 to 65535"
RATE = "a number above 0 and at most 1"
BOOL = "true or false (or 1/0, yes/no, on/off)"
URLS = "a list that is not empty (commas in the environment), each a ws:// or wss:// URL"
HTTP = "an http:// or https:// URL, or nothing"
KEYS = "a list (commas in the environment), each a base58 public key of 32 bytes"

REFUSED = [
    ("gate.port", "SERVER_PORT", "70000", "'70000'", PORT),
    ("gate.port", "SERVER_PORT", "", "''", PORT),
    ("gate.port", "SERVER_PORT", "8e3", "'8e3'", PORT),
    ("gate.port", "SERVER_PORT", "1_000", "'1_000'", PORT),
    ("gate.port", "SERVER_PORT", "٣", "'٣'", PORT),
    ("gate.port", "SERVER_PORT", "9" * 5000, f"'{'9' * 119}…", PORT),
    ("gate.host", "GATE_HOST", "", "''", "text that is not empty"),
    ("gate.clients_max", "CLIENTS_MAX", "-1", "'-1'", "an integer of at least 1"),
    ("gate.rate", "GATE_RATE", "0", "'0'", RATE),
    ("gate.rate", "GATE_RATE", "nan", "'nan'", RATE),
    ("gate.rate", "GATE_RATE", "1e999", "'1e999'", RATE),
    ("gate.deflate", "GATE_DEFLATE", "maybe", "'maybe'", BOOL),
    ("node.commitment", "NODE_COMMITMENT", "max", "'max'", "one of processed, confirmed, finalized"),
    ("node.urls", "NODE_WS", "", "''", URLS),
    ("node.urls", "NODE_WS", "ws://ok,http://h/x", "'ws://ok,http://h/***'", URLS),
    ("node.urls", "NODE_WS", "wss://h:99999", "'wss://h:99999'", URLS),
    ("node.urls", "NODE_WS", "wss://u:pw@", "'***'", URLS),
    ("node.rpc_url", "NODE_RPC", "node.example/key", "'***'", HTTP),
    ("node.rpc_url", "NODE_RPC", "https://a b", "'***'", HTTP),
    ("node.rpc_url", "NODE_RPC", "https:///x", "'https:///***'", HTTP),
    ("node.programs", "NODE_PROGRAMS", f"{KEY},pump", f"'{KEY},pump'", KEYS),
    ("node.depth", "NODE_DEPTH", "-1", "'-1'", "an integer of at least 0, or nothing"),
    ("node.idls", "IDL_DIR", "a\0b", "'a\\x00b'", "a path, or nothing"),
    ("node.store", "NODE_STORE", "mysql://u:p@h/d", "'***'", "a postgresql:// or sqlite:/// URL, or nothing"),
    ("node.cache", "NODE_CACHE", "http://h", "'http://h'", "a redis://, rediss:// or unix:// URL, or nothing"),
    ("gate.pin", "ADMIN_PIN", "hunter2", "***", "text that matches ^[0-9]{4}$, or nothing"),
]


@pytest.mark.parametrize(("key", "env", "text", "shown", "expected"), REFUSED)
def test_refused_from_environment(key: str, env: str, text: str, shown: str, expected: str) -> None:
    with pytest.raises(WrongSettings) as raised:
        from_env(**{env: text})
    assert str(raised.value) == f"{key}: got {shown} (from environment {env}), expected {expected}"
    error = raised.value
    assert (error.key, error.given, error.expected, error.origin) == (key, shown, expected, f"environment {env}")


@pytest.mark.parametrize(
    ("key", "toml", "shown", "expected"),
    [
        ("gate.port", '"8080"', "'8080'", PORT),
        ("gate.port", "true", "True", PORT),
        ("gate.port", "80.0", "80.0", PORT),
        ("gate.port", "9" * 400, f"{'9' * 120}…", PORT),
        ("gate.rate", "nan", "nan", RATE),
        ("gate.rate", "inf", "inf", RATE),
        ("gate.rate", "9" * 400, f"{'9' * 120}…", RATE),
        ("gate.rate", "true", "True", RATE),
        ("gate.deflate", "1", "1", BOOL),
        ("gate.deflate", '"true"', "'true'", BOOL),
        ("gate.host", "1", "1", "text that is not empty"),
        ("gate.host", "1979-05-27", "datetime.date(1979, 5, 27)", "text that is not empty"),
        ("gate.token", "5", "***", "text, or nothing"),
        ("node.urls", '"ws://a"', "'ws://a'", URLS),
        ("node.urls", "[]", "[]", URLS),
        ("node.urls", "[1, 'hunter2']", "a list", URLS),
        ("node.urls", '["ws://a", "u:pw"]', "['ws://a', '***']", URLS),
        ("node.commitment", "5", "5", "one of processed, confirmed, finalized"),
        ("node.commitment", "{ a = 'hunter2' }", "a table", "one of processed, confirmed, finalized"),
        ("node.idls", "5", "5", "a path, or nothing"),
        ("node.programs", '["x"]', "['x']", KEYS),
    ],
)
def test_refused_from_toml(tmp_path: Path, key: str, toml: str, shown: str, expected: str) -> None:
    section, _, name = key.partition(".")
    with pytest.raises(WrongSettings) as raised:
        from_toml(tmp_path, f"# settings\n\n[{section}]\n{name} = {toml}\n")
    assert str(raised.value) == f"{key}: got {shown} (from headrace.toml:4), expected {expected}"


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Annotated[int, Meta(gt=0, lt=9)], "an integer above 0 and below 9"),
        (Annotated[int, Meta(ge=0, lt=9)], "an integer of at least 0 and below 9"),
        (Annotated[int, Meta(le=9)], "an integer of at most 9"),
        (Annotated[int, Meta(lt=9)], "an integer below 9"),
        (Annotated[int, Meta(ge=0, multiple_of=8)], "an integer of at least 0, a multiple of 8"),
        (Annotated[str, Meta(max_length=9)], "text of at most 9 characters"),
        (Annotated[str, Meta(min_length=1, max_length=9)], "text of 1 to 9 characters"),
        (Annotated[str, Meta(pattern="^a")], "text that matches ^a"),
        (
            Annotated[tuple[int, ...] | None, Meta(max_length=2)],
            "a list of at most 2 items (commas in the environment), each an integer, or nothing",
        ),
        (Literal[1, 2], "one of 1, 2"),
    ],
)
def test_expectations_in_words(annotation: Any, words: str) -> None:
    assert Shape.of(annotation).expected(KINDS["text"]) == words


@pytest.mark.parametrize(
    "annotation",
    [dict[str, int], list[str], int | str, tuple[int, str], tuple[str | None, ...], Literal[1, "a"], bytes, None],
)
def test_other_types_are_a_mistake_of_the_room(annotation: Any) -> None:
    with pytest.raises(TypeError, match="is not a type that settings can have"):
        Shape.of(annotation)


def test_a_field_that_is_the_same_as_another_has_its_value_and_is_shown_there_alone(tmp_path: Path) -> None:
    class Lender(msgspec.Struct, frozen=True):
        place: Annotated[str, Setting("place", env=("PLACE",))] = "here"

    class Borrower(msgspec.Struct, frozen=True):
        own: Annotated[int, Setting("own")] = 1
        lent: Annotated[str, SameAs("lender.place")] = ""

    sections: dict[str, type[msgspec.Struct]] = {"borrower": Borrower, "lender": Lender}
    config = load(sections, env={"PLACE": "there"}, dotenv=None, toml=None)
    assert config.section(Borrower) == Borrower(own=1, lent="there")
    assert [row.key for row in config.describe()] == ["borrower.own", "lender.place"]
    with pytest.raises(TypeError, match=r"Borrower\.lent is the same as lender\.place, whose section is not there"):
        load({"borrower": Borrower}, env={}, dotenv=None, toml=None)


def test_a_field_needs_a_setting_and_says_where() -> None:
    bare = msgspec.defstruct("Bare", [("x", int, 1)], frozen=True)
    odd = msgspec.defstruct("Odd", [("x", Annotated[bytes, Setting("odd")], b"")], frozen=True)
    with pytest.raises(TypeError, match=r"Bare\.x has no Setting"):
        load({"bare": bare}, env={}, dotenv=None, toml=None)
    with pytest.raises(TypeError, match=r"Odd\.x: .* is not a type"):
        load({"odd": odd}, env={}, dotenv=None, toml=None)
    number = msgspec.defstruct("Number", [("x", Annotated[int, Setting("pin", secret=True)], 1)], frozen=True)
    with pytest.raises(TypeError, match=r"Number\.x: only text can be secret"):
        load({"number": number}, env={}, dotenv=None, toml=None)
    with pytest.raises(TypeError, match="one section only"):
        load({"a": Gate, "b": Gate}, env={}, dotenv=None, toml=None)


def test_a_field_without_default_must_be_given() -> None:
    needy = msgspec.defstruct("Needy", [("x", Annotated[int, Setting("needed", env=("X",))])], frozen=True)
    with pytest.raises(WrongSettings, match=r"^needy\.x: got nothing, expected an integer$"):
        load({"needy": needy}, env={}, dotenv=None, toml=None)
    assert value_of_needy(load({"needy": needy}, env={"X": "3"}, dotenv=None, toml=None), needy) == 3


def value_of_needy(config: Config, struct: type[msgspec.Struct]) -> Any:
    return getattr(config.section(struct), "x")  # noqa: B009


shapes = st.sampled_from(
    [
        Shape.of(t)
        for t in (str, int, float, bool, Path, Literal["a", "b"], tuple[int, ...], int | None, tuple[Path, ...] | None)
    ]
)
toml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(shapes, st.sampled_from(sorted(KINDS)), st.text() | st.integers().map(str) | st.floats().map(str), toml_values)
def test_anything_is_either_of_the_type_or_refused(shape: Shape, kind: Any, text: str, toml: Any) -> None:
    for read, given_value in ((shape.from_text, text), (shape.from_toml, toml)):
        try:
            value = read(given_value, KINDS[kind])
        except RefusedError:
            continue
        items = value if shape.many and value is not None else [value]
        assert value is not None or shape.optional
        assert value is None or all(type(item) in (shape.base, type(Path())) for item in items)


@given(
    st.integers(1, 65535),
    st.floats(1e-300, 1),
    st.booleans(),
    st.lists(st.sampled_from(["ws://a", "wss://b:1/c"]), min_size=1),
)
def test_what_is_written_is_what_is_read(port: int, rate: float, deflate: bool, urls: list[str]) -> None:
    config = from_env(PORT=str(port), GATE_RATE=repr(rate), GATE_DEFLATE=str(deflate), NODE_WS=",".join(urls))
    gate = config.section(Gate)
    assert (gate.port, gate.rate, gate.deflate, config.section(Node).urls) == (port, rate, deflate, tuple(urls))
