"""What `headrace config` prints: every setting in force, where it came from, and the warnings."""

from itertools import groupby
from typing import Any

import msgspec

from headrace.config.effective import Config, Row

_VALUE_WIDTH_MAX = 60


def render(config: Config, *, as_json: bool) -> str:
    """A table for people, or one JSON object `{"settings": […], "warnings": […]}`; secrets are `***` in both."""
    rows = config.describe()
    if as_json:
        settings = [row._asdict() for row in rows]
        document = {"settings": settings, "warnings": list(config.warnings)}
        return msgspec.json.format(msgspec.json.encode(document)).decode()
    lines = [_table(rows)] if rows else []
    lines += [f"warning: {warning}" for warning in config.warnings]
    return "\n".join(lines)


def _table(rows: list[Row]) -> str:
    names = {row.key: row.key.partition(".")[2] + ("" if not row.live else " ~") for row in rows}
    values = {row.key: _text(row.value) for row in rows}
    name_width = max(map(len, names.values()))
    value_width = min(_VALUE_WIDTH_MAX, max(map(len, values.values())))
    lines = []
    for section, members in groupby(rows, key=lambda row: row.key.partition(".")[0]):
        lines.append(f"[{section}]")
        lines += [
            f"  {names[row.key]:<{name_width}}  {values[row.key]:<{value_width}}  {row.origin}".rstrip()
            for row in members
        ]
    return "\n".join([*lines, "", "~ may change while running: edit the file, or send SIGHUP"])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return "" if value is None else str(value)
