"""A secret may come from a file that `NAME_FILE` names; what is wrong with the file is said without its content."""

import traceback
from pathlib import Path

import pytest

from headrace.config import Config, WrongSettings, load
from headrace.config.fields import fields_of, names_of_files
from headrace.config.inputs import FILE_BYTES_MAX
from headrace.service.settings import SECTIONS as ALL_SECTIONS
from tests.config.sections import SECTIONS, Gate, Node


def config_of(env: dict[str, str], dotenv: Path | None = None) -> Config:
    return load(SECTIONS, env=env, dotenv=dotenv, toml=None)


def errors_of(env: dict[str, str], dotenv: Path | None = None) -> list[str]:
    with pytest.raises(WrongSettings) as raised:
        config_of(env, dotenv)
    return str(raised.value).splitlines()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("hunter2\n")
    return path


def test_a_secret_is_read_from_its_file(file: Path) -> None:
    config = config_of({"ADMIN_TOKEN_FILE": str(file)})
    assert config.section(Gate).token == "hunter2"
    assert str(config.origins["gate.token"]) == "environment ADMIN_TOKEN_FILE"
    assert config.warnings == ()
    assert file in config.paths


def test_a_url_is_read_from_its_file(file: Path) -> None:
    file.write_text("postgresql://u:hunter2@h/d")
    config = config_of({"NODE_STORE_FILE": str(file)})
    assert config.section(Node).store == "postgresql://u:hunter2@h/d"
    assert "hunter2" not in repr(config.describe())


def test_dotenv_may_name_the_file(file: Path, tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"\nADMIN_TOKEN_FILE={file}\n")
    config = config_of({}, dotenv)
    assert config.section(Gate).token == "hunter2"
    assert str(config.origins["gate.token"]) == ".env:2 ADMIN_TOKEN_FILE"


def test_the_environment_comes_before_dotenv_in_either_form(file: Path, tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("ADMIN_TOKEN=other\n")
    assert config_of({"ADMIN_TOKEN_FILE": str(file)}, dotenv).section(Gate).token == "hunter2"
    dotenv.write_text(f"ADMIN_TOKEN_FILE={file}\n")
    assert config_of({"ADMIN_TOKEN": "other"}, dotenv).section(Gate).token == "other"


def test_an_empty_variable_is_not_set(file: Path) -> None:
    assert config_of({"ADMIN_TOKEN_FILE": "", "ADMIN_TOKEN": "other"}).section(Gate).token == "other"
    assert config_of({"ADMIN_TOKEN_FILE": str(file), "ADMIN_TOKEN": ""}).section(Gate).token == "hunter2"
    assert config_of({"ADMIN_TOKEN_FILE": " "}).section(Gate).token is None


def test_value_and_file_together_are_refused(file: Path) -> None:
    assert errors_of({"ADMIN_TOKEN_FILE": str(file), "ADMIN_TOKEN": "hunter3"}) == [
        "ADMIN_TOKEN_FILE: got a value in ADMIN_TOKEN too (from environment ADMIN_TOKEN_FILE), expected one of the two"
    ]


def test_a_file_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    gone, empty = tmp_path / "gone", tmp_path / "empty"
    empty.write_text(" \n")
    origin = "(from environment ADMIN_TOKEN_FILE), expected a file with the value"
    assert errors_of({"ADMIN_TOKEN_FILE": str(gone)}) == [f"ADMIN_TOKEN_FILE: got {gone}: no such file {origin}"]
    assert errors_of({"ADMIN_TOKEN_FILE": str(empty)}) == [f"ADMIN_TOKEN_FILE: got {empty}: an empty file {origin}"]


@pytest.mark.parametrize(
    ("content", "fault"), [(b"\xff\nhunter2", "not UTF-8"), (b"hunter2" * (FILE_BYTES_MAX // 7 + 1), "a larger file")]
)
def test_a_file_that_is_no_short_text_is_refused_without_its_content(file: Path, content: bytes, fault: str) -> None:
    file.write_bytes(content)
    (error,) = errors_of({"ADMIN_TOKEN_FILE": str(file)})
    assert fault in error
    assert "hunter2" not in error


def test_a_folder_and_a_name_with_nul_are_refused(tmp_path: Path) -> None:
    (error,) = errors_of({"ADMIN_TOKEN_FILE": str(tmp_path)})
    assert error.startswith("ADMIN_TOKEN_FILE: got something that is not a file")
    (error,) = errors_of({"ADMIN_TOKEN_FILE": "a\0b"})
    assert error.startswith("ADMIN_TOKEN_FILE: got an unreadable file")


def test_a_wrong_value_from_a_file_is_not_shown(file: Path) -> None:
    file.write_text("hunter2")
    with pytest.raises(WrongSettings) as raised:
        config_of({"ADMIN_PIN_FILE": str(file), "NODE_STORE_FILE": str(file)})
    shown = "".join(traceback.format_exception(raised.value))
    assert "gate.pin: got *** (from environment ADMIN_PIN_FILE)" in shown
    assert "hunter2" not in shown


def test_a_setting_that_holds_no_secret_has_no_file(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("GATE_RATE_FILE=x\n")
    assert errors_of({}, dotenv)[0].startswith("GATE_RATE_FILE: got an unknown setting")


def test_a_changed_file_is_read_by_a_reload(file: Path) -> None:
    config = config_of({"ADMIN_TOKEN_FILE": str(file)})
    file.write_text("hunter3\n")
    assert config.reload().applied == ("gate.token",)
    assert config.section(Gate).token == "hunter3"
    file.unlink()
    (error,) = config.reload().errors
    assert error.key == "ADMIN_TOKEN_FILE"
    assert config.section(Gate).token == "hunter3"


def test_a_near_miss_is_named() -> None:
    warning = "ADMIN_TOKN_FILE in the environment is not a setting; did you mean ADMIN_TOKEN_FILE?"
    assert config_of({"ADMIN_TOKN_FILE": "x"}).warnings == (warning,)


def test_every_secret_of_a_server_has_its_file() -> None:
    names = names_of_files(fields_of(ALL_SECTIONS).values())
    assert {"JWT_SECRET_FILE", "DATABASE_URL_FILE", "REDIS_URL_FILE", "YELLOWSTONE_X_TOKEN_FILE"} <= set(names)
    assert "JWKS_FILE" not in names  # a setting of its own, whose file holds public keys
