"""Reads environment, `.env` and `headrace.toml` into unchecked values with their origins. Sizes are limited."""

import io
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from dotenv.parser import parse_stream

from headrace.model.errors import ConfigError

FILE_BYTES_MAX: Final = 65_536
LINE_LENGTH_MAX: Final = 4_096


class Origin(NamedTuple):
    """Origin of a setting's value. `place` is the name of a variable or file. `line` counts from 1; None if unknown."""

    kind: Literal["default", "environment", "dotenv", "toml"]
    place: str = ""
    line: int | None = None
    variable: str = ""

    def __str__(self) -> str:
        if self.kind in ("default", "environment"):
            return f"{self.kind} {self.place}".strip()
        where = self.place if self.line is None else f"{self.place}:{self.line}"
        return f"{where} {self.variable}".strip()


class Given(NamedTuple):
    """An unchecked value: text if it is from the environment or `.env`, otherwise a TOML value."""

    value: Any
    origin: Origin


class Inputs(NamedTuple):
    """All values given. The keys of `toml` are `section.field`. `errors` lists everything that could not be read.

    `files` are the existing ones of `.env` and `headrace.toml`. `secret_files` are those that variables name.
    """

    environment: dict[str, Given]
    dotenv: dict[str, Given]
    toml: dict[str, Given]
    files: frozenset[Path]
    errors: tuple[ConfigError, ...]
    warnings: tuple[str, ...]
    secret_files: tuple[Path, ...] = ()


def read_inputs(env: Mapping[str, str], dotenv: Path | None, toml: Path | None, nested: Collection[str] = ()) -> Inputs:
    """Read environment and files once. Blocks.

    A file that does not exist gives no values. Any other problem becomes an error. `nested` are the names of all
    sections. They show which tables within a section are sections themselves (`venues.raydium`).
    """
    environment = {name: Given(text, Origin("environment", name)) for name, text in env.items()}
    errors: list[ConfigError] = []
    warnings: list[str] = []
    texts: dict[Path, str] = {}
    for path in (dotenv, toml):
        try:
            if path is not None and (text := read_text(path, path.name)) is not None:
                texts[path] = text
        except ConfigError as error:
            errors.append(error)
    dotenv_given = _parse_dotenv(dotenv.name, texts[dotenv], errors, warnings) if dotenv in texts else {}
    toml_given = _parse_toml(toml.name, texts[toml], errors, nested) if toml in texts else {}
    return Inputs(environment, dotenv_given, toml_given, frozenset(texts), tuple(errors), tuple(warnings))


def read_text(path: Path, key: str) -> str | None:
    """Return the file's text, or None if there is no file. Blocks.

    Raises ConfigError for `key` if the file is too large, unreadable or not UTF-8.
    """
    expected = f"a readable UTF-8 text file of at most {FILE_BYTES_MAX} bytes"
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(key, "something that is not a file", expected)
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ConfigError(key, getattr(error, "strerror", None) or "an unreadable file", expected) from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(key, "a larger file", expected)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
    raise ConfigError(key, f"bytes that are not UTF-8 on line {line}", expected)


def _parse_dotenv(name: str, text: str, errors: list[ConfigError], warnings: list[str]) -> dict[str, Given]:
    """Parse `NAME=value` lines as python-dotenv does, without interpolation.

    Errors name a bad line only by its number.
    """
    found: dict[str, Given] = {}
    if any(len(line) > LINE_LENGTH_MAX for line in text.splitlines()):
        errors.append(ConfigError(name, "a longer line", f"lines of at most {LINE_LENGTH_MAX} characters"))
        return found
    for binding in parse_stream(io.StringIO(text)):
        original = binding.original
        blank = len(original.string) - len(original.string.lstrip())
        line = original.line + len(re.findall(r"\r\n|\r|\n", original.string[:blank]))
        if binding.error or (binding.key is not None and binding.value is None):
            errors.append(ConfigError(f"{name}:{line}", "a line that cannot be read", "NAME=value or # a comment"))
        elif binding.key is not None and binding.value is not None:
            if binding.key in found:
                first = found[binding.key].origin.line
                warnings.append(f"{binding.key} is set twice in {name}, on lines {first} and {line}; the last counts")
            found[binding.key] = Given(binding.value, Origin("dotenv", name, line, binding.key))
    return found


def _parse_toml(name: str, text: str, errors: list[ConfigError], nested: Collection[str]) -> dict[str, Given]:
    expected = "TOML: [section] lines and field = value lines"
    try:
        document = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number with more digits than Python converts
        wrong = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "a number too long"
        errors.append(ConfigError(name, f"broken TOML: {wrong}", expected))
        return {}
    except RecursionError:
        errors.append(ConfigError(name, "broken TOML: nested too deep", expected))
        return {}
    lines = _lines_of_keys(text)
    found = {}
    for section, table in document.items():
        if not isinstance(table, dict):
            at = Origin("toml", name, lines.get(section))
            errors.append(
                ConfigError(section, "a value outside any section", "a [section] line above it", origin=str(at))
            )
            continue
        for key, value in _values(section, table, nested):
            found[key] = Given(value, Origin("toml", name, lines.get(key, lines.get(section))))
    return found


def _values(section: str, table: dict[str, Any], nested: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield each `section.field` with its value, including nested sections. An empty section yields its own name."""
    if not table:
        yield section, None
    for field, value in table.items():
        key = f"{section}.{field}"
        if key in nested and isinstance(value, dict):
            yield from _values(key, value, nested)
        else:
            yield key, value


def _lines_of_keys(text: str) -> dict[str, int]:
    """Return the line of each `section` and `section.field`.

    tomllib reports no lines, so this function finds keys in their usual spellings. A key in another spelling has no
    line.
    """
    lines: dict[str, int] = {}
    section, inside_string = "", False
    for number, line in enumerate(text.splitlines(), 1):
        if not inside_string:
            if header := re.match(r"\s*\[\s*[\"']?([\w.-]+)[\"']?\s*\]", line):
                section = header[1]
                lines.setdefault(section, number)
            elif key := re.match(r"\s*[\"']?([\w-]+)[\"']?\s*=", line):
                lines.setdefault(f"{section}.{key[1]}" if section else key[1], number)
        if (line.count('"""') + line.count("'''")) % 2:
            inside_string = not inside_string
    return lines
