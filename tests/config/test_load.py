"""Which input counts, what is refused by name, what is only warned about, and where each value is said to be from."""

import copy
import json
import traceback
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.config import CORE_SECTIONS, Config, CoreSettings, Features, Setting, WrongSettings, load, render
from headrace.config.inputs import FILE_BYTES_MAX
from headrace.model.errors import ConfigError
from headrace.service import settings as app
from tests.config.sections import KEY, SECTIONS, Gate, Node
from tests.examples import examples


class Files:
    """A folder with a `.env` and a `headrace.toml` that a test may write."""

    def __init__(self, folder: Path) -> None:
        self.dotenv, self.toml = folder / ".env", folder / "headrace.toml"

    def load(self, dotenv: str | bytes | None = None, toml: str | bytes | None = None, **env: str) -> Config:
        for path, text in ((self.dotenv, dotenv), (self.toml, toml)):
            path.unlink(missing_ok=True)
            if text is not None:
                path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(SECTIONS, env=env, dotenv=self.dotenv, toml=self.toml)

    def errors(self, dotenv: str | bytes | None = None, toml: str | bytes | None = None, **env: str) -> list[str]:
        with pytest.raises(WrongSettings) as raised:
            self.load(dotenv, toml, **env)
        assert isinstance(raised.value, ConfigError)
        return str(raised.value).splitlines()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_defaults_without_any_input() -> None:
    config = load(SECTIONS, env={"PATH": "/bin"}, dotenv=None, toml=None)
    assert config.section(Gate) == Gate()
    assert config.section(Node) == Node()
    assert {str(origin) for origin in config.origins.values()} == {"default"}
    assert config.warnings == ()
    with pytest.raises(KeyError):
        config.section(CoreSettings)


@given(st.lists(st.none() | st.integers(1, 65535), min_size=5, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
def test_precedence(files: Files, ports: list[int | None]) -> None:
    """SERVER_PORT, PORT in the environment, the same in .env, then headrace.toml, then the default."""
    names = ("SERVER_PORT", "PORT")
    env = {name: str(port) for name, port in zip(names, ports[:2], strict=True) if port}
    dotenv = "".join(f"{name}={port}\n" for name, port in zip(names, ports[2:4], strict=True) if port)
    toml = f"[gate]\nport = {ports[4]}\n" if ports[4] else ""
    config = files.load(dotenv, toml, **env)
    assert config.section(Gate).port == next((port for port in ports if port), 8080)
    place = next((number for number, port in enumerate(ports) if port), 5)
    line = 1 + (place == 3 and ports[2] is not None)
    assert (
        str(config.origins["gate.port"])
        == [
            "environment SERVER_PORT",
            "environment PORT",
            f".env:{line} SERVER_PORT",
            f".env:{line} PORT",
            "headrace.toml:2",
            "default",
        ][place]
    )


def test_aliases_that_disagree_are_told(files: Files) -> None:
    config = files.load(SERVER_PORT="1", PORT="2")
    assert config.section(Gate).port == 1
    assert config.warnings == ("SERVER_PORT and PORT both set gate.port and disagree; SERVER_PORT counts",)
    assert files.load(SERVER_PORT="1", PORT=" +1").warnings == ()
    assert len(files.load(SERVER_PORT="1", PORT="x").warnings) == 1
    assert files.load("PORT=2\nSERVER_PORT=1").section(Gate).port == 1
    assert files.load("PORT=2", SERVER_PORT="1").warnings == ()  # environment before .env is no disagreement


def test_dotenv_dialect(files: Files) -> None:
    config = files.load(
        "\ufeff# comment\n\n  export SERVER_PORT = 9000   # inline\r\n"
        "NODE_LABEL='single ${HOME} # kept'\n"
        'ADMIN_TOKEN="two\\nlines"\n'
        "GATE_HOST=$HOME\n"
        "\n\n\nIDL_DIR=/a=b\n"
        "NODE_RPC=\n"
    )
    assert config.section(Gate).port == 9000
    assert config.section(Node).label == "single ${HOME} # kept"
    assert config.section(Gate).token == "two\nlines"
    assert config.section(Gate).host == "$HOME"
    assert config.section(Node).idls == Path("/a=b")
    assert str(config.origins["gate.port"]) == ".env:3 SERVER_PORT"
    assert str(config.origins["node.idls"]) == ".env:10 IDL_DIR"


def test_a_name_twice_in_dotenv(files: Files) -> None:
    config = files.load("PORT=1\nGATE_RATE=1\nPORT=2\n")
    assert config.section(Gate).port == 2
    assert config.warnings == ("PORT is set twice in .env, on lines 1 and 3; the last counts",)


def test_bad_lines_of_dotenv_are_named_by_number_only(files: Files) -> None:
    errors = files.errors("PORT=1\nhunter2\n\nADMIN_TOKEN='hunter2\nhunter2 = 'x\n")
    assert errors[0] == ".env:2: got a line that cannot be read, expected NAME=value or # a comment"
    assert errors[1] == ".env:4: got a line that cannot be read, expected NAME=value or # a comment"
    assert not any("hunter2" in error for error in errors[:2])


def test_unknown_names_in_files_are_refused_with_the_nearest(files: Files) -> None:
    gate = "[gate]\nprot = 1\nSERVER_PORT = 2\ncommitment = 'x'\n"
    toml = gate + "[nod]\nlabel = 'x'\n[nod2.x]\na = 1\n[qqqq]\nlabel = 'x'\n[zzz]\n"
    assert files.errors("SERVER_PROT=1\nCOMPOSE_FILE=x\n", toml) == [
        "SERVER_PROT: got an unknown setting (from .env:1 SERVER_PROT), expected a known one; "
        "did you mean SERVER_PORT?",
        "COMPOSE_FILE: got an unknown setting (from .env:2 COMPOSE_FILE), expected a known one "
        "(`headrace config` lists them)",
        "gate.prot: got an unknown setting (from headrace.toml:2), expected a known one; did you mean gate.port?",
        "gate.SERVER_PORT: got an unknown setting (from headrace.toml:3), expected a known one; "
        "did you mean gate.port?",
        "gate.commitment: got an unknown setting (from headrace.toml:4), expected a known one; "
        "did you mean node.commitment?",
        "nod.label: got an unknown setting (from headrace.toml:6), expected a known one; did you mean node.label?",
        "nod2.x: got an unknown setting (from headrace.toml:7), expected a known one; did you mean [node]?",
        "qqqq.label: got an unknown setting (from headrace.toml:10), expected a known one; did you mean node.label?",
        "zzz: got an unknown setting (from headrace.toml:11), expected a known one (`headrace config` lists them)",
    ]


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of a port."""

    size: Annotated[int, msgspec.Meta(ge=1), Setting("items kept", env=("BOUND_SIZE",), live=True)] = 10


class Remote(Bounds, frozen=True, forbid_unknown_fields=True):
    """Settings of an adapter of this port."""

    url: Annotated[str, Setting("server", env=("REMOTE_URL",))] = "here"


NESTED: dict[str, type[msgspec.Struct]] = {**SECTIONS, "bus": Bounds, "bus.remote": Remote}


def nested(folder: Path, toml: str, **env: str) -> Config:
    (folder / "headrace.toml").write_text(toml)
    return load(NESTED, env=env, dotenv=None, toml=folder / "headrace.toml")


@pytest.mark.parametrize("toml", ["[bus.remote]\nurl = 'there'\n", "[bus]\nremote.url = 'there'\n"])
def test_a_section_within_a_section_is_read(tmp_path: Path, toml: str) -> None:
    config = nested(tmp_path, toml)
    assert config.section(Remote).url == "there"
    assert str(config.origins["bus.remote.url"]).startswith("headrace.toml:")


def test_inherited_fields_are_those_of_the_section_they_are_inherited_from(tmp_path: Path) -> None:
    config = nested(tmp_path, "[bus]\nsize = 7\n[bus.remote]\nurl = 'there'\n")
    assert config.section(Remote) == Remote(size=7, url="there")
    assert config.section(Bounds) == Bounds(size=7)
    assert [row.key for row in config.describe() if row.key.startswith("bus")] == ["bus.size", "bus.remote.url"]
    assert "[bus.remote]\n  url" in render(config, as_json=False)
    assert nested(tmp_path, "", BOUND_SIZE="8").section(Remote).size == 8


def test_a_live_change_of_an_inherited_field_reaches_both_sections(tmp_path: Path) -> None:
    config = nested(tmp_path, "[bus]\nsize = 7\n")
    seen: list[int] = []
    config.on_change(Remote, lambda _, new: seen.append(new.size))
    (tmp_path / "headrace.toml").write_text("[bus]\nsize = 9\n")
    assert config.reload().applied == ("bus.size",)
    assert seen == [9]


def test_unknown_names_in_and_of_nested_sections_are_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(WrongSettings) as raised:
        nested(tmp_path, "[bus.remote]\nulr = 'x'\nsize = 1\n[bus.remot]\nurl = 'x'\n[other.remote]\na = 1\n")
    assert [(error.key, error.expected.rpartition("mean ")[2]) for error in raised.value.errors] == [
        ("bus.remote.ulr", "bus.remote.url?"),
        ("bus.remote.size", "bus.size?"),
        ("bus.remot", "bus.remote.url?"),
        ("other.remote", "[bus.remote]?"),
    ]


def test_a_value_outside_any_section(files: Files) -> None:
    assert files.errors(toml="port = 1\n[gate]\n") == [
        "port: got a value outside any section (from headrace.toml:1), expected a [section] line above it"
    ]


def test_the_environment_belongs_to_others(files: Files) -> None:
    config = files.load(SERVER_PROT="1", HOME="/root", LANG="C", NODE_ENV="production", TERM="x", OLDPWD="/")
    assert config.warnings == ("SERVER_PROT in the environment is not a setting; did you mean SERVER_PORT?",)
    assert files.errors(HEADRACE_SERVER_PORT="1", HEADRACE_X="2") == [
        "HEADRACE_SERVER_PORT: got an unknown setting (from environment HEADRACE_SERVER_PORT), "
        "expected a known one; did you mean SERVER_PORT?",
        "HEADRACE_X: got an unknown setting (from environment HEADRACE_X), expected a known one "
        "(`headrace config` lists them)",
    ]


def test_service_links_of_kubernetes_are_no_settings(files: Files) -> None:
    links = {
        "HEADRACE_SERVICE_HOST": "10.0.0.1",
        "HEADRACE_SERVICE_PORT": "80",
        "HEADRACE_SERVICE_PORT_HTTP": "80",
        "HEADRACE_PORT": "tcp://10.0.0.1:80",
        "HEADRACE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "HEADRACE_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert files.load(**links).warnings == ()
    assert len(files.errors(HEADRACE_PORT="80")) == 1


def test_everything_wrong_is_said_at_once(files: Files) -> None:
    errors = files.errors("CLIENTS_MAX=x\nBAD\n", "[gate]\nrate = 2\nnope = 1\n", PORT="0", NODE_COMMITMENT="x")
    assert len(errors) == 6
    with pytest.raises(WrongSettings) as raised:
        files.load(PORT="0", NODE_COMMITMENT="x")
    assert [error.key for error in raised.value.errors] == ["gate.port", "node.commitment"]
    assert raised.value.key == "gate.port"


BROKEN = [
    ("[gate\n", "got broken TOML: ", "line 1"),
    ("[gate]\nport = \n", "got broken TOML: ", "line 2"),
    ("[gate]\nport = 1\nport = 2\n", "got broken TOML: ", "line 3"),
    ("[gate]\n[gate]\n", "got broken TOML: ", "line 2"),
    ("[gate]\nport = " + "9" * 5000, "got broken TOML: ", "a number too long"),
    ("[gate]\nport = " + "[" * 30_000, "got broken TOML: ", ""),
    (b"[gate]\nhost = '\xff'\n", "got bytes that are not UTF-8 on line 2", ""),
    (b"a" * (FILE_BYTES_MAX + 1), "got a larger file", str(FILE_BYTES_MAX)),
]


@pytest.mark.parametrize(("toml", "given_text", "where"), BROKEN, ids=range(len(BROKEN)))
def test_broken_toml(files: Files, toml: str | bytes, given_text: str, where: str) -> None:
    (error,) = files.errors(toml=toml)
    assert error.startswith(f"headrace.toml: {given_text}")
    assert where in error


def test_broken_dotenv(files: Files) -> None:
    (error,) = files.errors(dotenv=b"A=1\n\nPORT=\xe4\n")
    assert error.startswith(".env: got bytes that are not UTF-8 on line 3, expected a readable UTF-8 text file")
    (error,) = files.errors(dotenv=b"#" * (FILE_BYTES_MAX + 1))
    assert error.startswith(".env: got a larger file, expected")
    (error,) = files.errors(dotenv="NODE_LABEL=" + " " * 5000)
    assert error == ".env: got a longer line, expected lines of at most 4096 characters"


def test_a_folder_or_an_unreadable_path_is_refused(files: Files) -> None:
    files.toml.mkdir()
    with pytest.raises(WrongSettings, match=r"headrace\.toml: got something that is not a file, expected a readable"):
        load(SECTIONS, env={}, dotenv=None, toml=files.toml)
    with pytest.raises(WrongSettings, match=r"x: got Not a directory, expected|x: got something"):
        load(SECTIONS, env={}, dotenv=None, toml=Path("/etc/hostname/x"))


@given(st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_file_makes_it_fail_otherwise(files: Files, raw: bytes) -> None:
    for dotenv, toml in ((raw, None), (None, raw)):
        try:
            files.load(dotenv, toml)
        except WrongSettings:
            continue


def test_line_numbers_survive_strange_toml(files: Files) -> None:
    config = files.load(
        toml='[node] # first\n"label" = """\nport = 1\n[gate]\n"""\n\n[ gate ]\n  rate=1\n  \'port\'   = 5\n[node.x]\n'[
            :-9
        ]
    )
    assert config.section(Node).label == "port = 1\n[gate]\n"
    assert {key: str(origin) for key, origin in config.origins.items() if str(origin) != "default"} == {
        "node.label": "headrace.toml:2",
        "gate.rate": "headrace.toml:8",
        "gate.port": "headrace.toml:9",
    }


class Pair(msgspec.Struct, frozen=True):
    """Two settings that must fit together."""

    low: Annotated[int, Setting("low", env=("LOW",), live=True)] = 1
    high: Annotated[int, Setting("high", env=("HIGH",), live=True)] = 2

    def __post_init__(self) -> None:
        if self.low < 0:
            raise ConfigError("pair.low", str(self.low), "no negative number")
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")


def test_a_section_s_own_check_stops_the_start() -> None:
    with pytest.raises(WrongSettings) as raised:
        load({"pair": Pair}, env={"LOW": "5"}, dotenv=None, toml=None)
    assert str(raised.value) == "pair: got low 5 is above high 2, expected settings that go together"
    with pytest.raises(WrongSettings, match=r"^pair\.low: got -1, expected no negative number$"):
        load({"pair": Pair}, env={"LOW": "-1"}, dotenv=None, toml=None)


# Secrets. The marker is hidden in everything that may hold one, right or wrong; no text form of anything may show it.

hex_or_word = st.text("abcdefXYZ0123456789", min_size=16, max_size=32).map(lambda text: f"{text}A1")
PLACES: list[tuple[str, str]] = [
    ("ADMIN_TOKEN", "{}"),
    ("MORE_TOKENS", "{},{}"),
    ("ADMIN_PIN", "{}"),
    ("NODE_WS", "wss://x.quiknode.pro/{}/,ws://u:{}@h"),
    ("NODE_WS", "wss:/x.quiknode.pro/{}/"),
    ("NODE_WS", "{}"),
    ("NODE_RPC", "https://x.helius-rpc.com/?api-key={}"),
    ("NODE_RPC", "https//x.helius-rpc.com/?api-key={}"),
    ("NODE_RPC", "ftp://h/{}"),
    ("NODE_STORE", "postgresql://u:{}@h:5432/db"),
    ("NODE_STORE", "postgresql://u:{}@h:port/db"),
    ("NODE_STORE", "postgres://u:p@ss/{}@h/db"),
    ("NODE_CACHE", "redis://:{}@h/0"),
    ("NODE_CACHE", "redis:{}@h/0"),
    ("GATE_HOST", "https://u:{}@h/"),
    ("SERVER_PORT", "ws://h/{}"),
]


@given(place=st.sampled_from(PLACES), secret=hex_or_word, source=st.sampled_from(["env", "dotenv", "toml"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(200))
def test_no_text_form_shows_a_secret(
    files: Files, capsys: pytest.CaptureFixture[str], place: tuple[str, str], secret: str, source: str
) -> None:
    variable, template = place
    value = template.replace("{}", secret)
    texts = []
    try:
        if source == "env":
            config = files.load(**{variable: value})
        elif source == "dotenv":
            config = files.load(f'{variable}="{value}"\n')
        else:
            key = next(
                row.key for row in load(SECTIONS, env={}, dotenv=None, toml=None).describe() if variable in row.env
            )
            section, _, name = key.partition(".")
            listed = variable in ("NODE_WS", "MORE_TOKENS")
            config = files.load(toml=f"[{section}]\n{name} = {json.dumps([value] if listed else value)}\n")
    except WrongSettings as error:
        texts += [str(error), repr(error), *map(repr, error.errors), "".join(traceback.format_exception(error))]
    else:
        for struct in (Gate, Node):
            part: Any = config.section(struct)
            texts += [str(part), repr(part), f"{part}", repr(vars(Config)) + repr(config)]
        texts += [render(config, as_json=False), render(config, as_json=True), repr(config.describe())]
        change = config.reload()
        texts.append(repr(change))
    texts.append(capsys.readouterr().err)
    assert not any(secret in text for text in texts)


def test_the_secret_itself_is_usable() -> None:
    config = load(SECTIONS, env={"ADMIN_TOKEN": "hunter2"}, dotenv=None, toml=None)
    token = config.section(Gate).token
    assert token == "hunter2"
    assert f"{token}".encode() == b"hunter2"
    assert "***" in repr(config.section(Gate))
    copied = copy.deepcopy(config.section(Gate))
    assert (copied.token, repr(copied)) == (token, repr(config.section(Gate)))


def test_describe_and_render(files: Files) -> None:
    config = files.load(
        "SERVER_PROT=1\n".replace("PROT", "PORT"),
        '[node]\nurls = ["wss://u:p@h/", "ws://127.0.0.1:8900"]\n',
        CLIENTS_MAXX="1",
        ADMIN_TOKEN="x",
        GATE_DEFLATE="on",
    )
    rows = {row.key: row for row in config.describe()}
    assert rows["gate.port"] == ("gate.port", ("SERVER_PORT", "PORT"), 1, ".env:1 SERVER_PORT", "TCP port", False)
    assert rows["gate.token"].value == "***"
    assert rows["node.rpc_url"].value is None
    table = render(config, as_json=False)
    lines = [line.split() for line in table.splitlines()]
    assert ["port", "1", ".env:1", "SERVER_PORT"] in lines
    assert ["deflate", "~", "true", "environment", "GATE_DEFLATE"] in lines
    assert ["urls", "wss://***@h/,", "ws://127.0.0.1:8900", "headrace.toml:2"] in lines
    assert table.endswith("warning: CLIENTS_MAXX in the environment is not a setting; did you mean CLIENTS_MAX?")
    document = json.loads(render(config, as_json=True))
    assert document["warnings"] == list(config.warnings)
    assert {setting["key"]: setting["value"] for setting in document["settings"]}["node.urls"][0] == "wss://***@h/"


def test_the_promised_names() -> None:
    env = {
        "SERVER_ID": "eu-1",
        "LOG_LEVEL": "DEBUG",
        "LOG_FORMAT": "json",
        "TRANSACTION_LISTENER_ENABLED": "false",
        "MESSAGE_BROKER_ENABLED": "true",
        "REDIS_URL": "redis://h:6379",
        "DATABASE_URL": "postgresql://u:p@h/d",
        "COMMCOIN_PROGRAM_ID": KEY,
        "QUEUE_MAX_CONCURRENCY": "20",
        "QUEUE_RATE_LIMIT_PER_MINUTE": "200",
    }
    config = load(CORE_SECTIONS, env=env, dotenv=None, toml=None)
    core, features = config.section(CoreSettings), config.section(Features)
    assert (core.server_id, core.log_level, core.log_format) == ("eu-1", "debug", "json")
    assert (core.redis_url, core.database_url) == ("redis://h:6379", "postgresql://u:p@h/d")
    assert (core.commcoin_program_id, core.queue_max_concurrency, core.queue_rate_limit_per_minute) == (KEY, 20, 200)
    assert (features.stream, features.broker, features.gateway) == (False, True, True)
    bare = load(CORE_SECTIONS, env={}, dotenv=None, toml=None).section(CoreSettings)
    assert (bare.queue_max_concurrency, bare.queue_rate_limit_per_minute) == (10, 100)
    assert bare.commcoin_program_id == "6YuHH4kveCrEeEtVKM2nh18zU4XWFpEWqV8f5GbhdnzX"
    assert load(CORE_SECTIONS, env={"SERVER_ID": bare.server_id}, dotenv=None, toml=None).section(CoreSettings) == bare


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SOLANA_RPC_WSS", "SOLANA_RPC_WS"),
        ("SOLANA_RPC_URI", "SOLANA_RPC_URL"),
        ("SOLANA_URL_RPC", "SOLANA_RPC_URL"),
        ("ALLOWED_ORIGIN", "ALLOWED_ORIGINS"),
        ("SUBSCRIPTION", "SUBSCRIPTIONS"),
        ("QUEUE_CONCURRENCY", "QUEUE_MAX_CONCURRENCY"),
        ("WEBSOCKET_CONNECTIONS", "WEBSOCKET_MAX_CONNECTIONS"),
        ("JWT_SECRETS", "JWT_SECRET"),
        ("TRUSTED_PROXY", "TRUSTED_PROXIES"),
    ],
)
def test_a_variable_nearly_like_ours_is_warned_of_with_the_one_meant(name: str, meant: str) -> None:
    config = load(app.SECTIONS, env={name: "1"}, dotenv=None, toml=None)
    assert config.warnings == (f"{name} in the environment is not a setting; did you mean {meant}?",)


@pytest.mark.parametrize(
    "name", ["TEST_DATABASE_URL", "REDIS_PORT", "POSTGRES_URL", "NODE_ENV", "SERVER", "LOG", "HOST", "SSH_AUTH_SOCK"]
)
def test_a_variable_of_other_programs_is_passed_over(name: str) -> None:
    assert load(app.SECTIONS, env={name: "1"}, dotenv=None, toml=None).warnings == ()
