"""The output of `headrace config`, and the tables of settings in the documentation."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any, Final

import msgspec

from headrace.config.effective import Config, Row
from headrace.config.fields import Field, fields_of

_VALUE_WIDTH_MAX: Final = 60


def render(config: Config, *, as_json: bool) -> str:
    """Return a table for people, or one JSON object `{"settings": […], "warnings": […]}`. Secrets are `***` in both."""
    rows = config.describe()
    if as_json:
        document = {"settings": [row._asdict() for row in rows], "warnings": list(config.warnings)}
        return msgspec.json.format(msgspec.json.encode(document)).decode()
    lines = [_table(rows)] if rows else []
    lines += [f"warning: {warning}" for warning in config.warnings]
    return "\n".join(lines)


def reference(sections: Mapping[str, type[msgspec.Struct]]) -> str:
    """Return Markdown for the reference page: a table of settings for each section."""
    parts = []
    for section, fields in groupby(fields_of(sections).values(), key=lambda field: field.section):
        head = f"## [{section}]\n\n| Setting | Environment | Default | Accepts | |\n| --- | --- | --- | --- | --- |\n"
        parts.append(head + "\n".join(map(_reference_row, fields)) + "\n")
    return "\n".join(parts)


def _reference_row(field: Field) -> str:
    names = ", ".join(f"`{name}`" for name in field.setting.env)
    if field.info.default is msgspec.NODEFAULT:
        default = "required" if field.required else "computed"
    else:
        text = _text(field.shown(field.info.default))
        default = f"`{text}`" if text else ""
    about = field.setting.about[:1].upper() + field.setting.about[1:] + (" *(live)*" if field.setting.live else "")
    cells = (f"`{field.name}`", names, default, field.expected, about)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _table(rows: list[Row]) -> str:
    names = {row.key: row.key.rpartition(".")[2] + (" ~" if row.live else "") for row in rows}
    values = {row.key: _text(row.value) for row in rows}
    name_width = max(map(len, names.values()))
    value_width = min(_VALUE_WIDTH_MAX, max(map(len, values.values())))
    lines = []
    for section, members in groupby(rows, key=lambda row: row.key.rpartition(".")[0]):
        lines.append(f"[{section}]")
        lines += [
            f"  {names[row.key]:<{name_width}}  {values[row.key] or '-':<{value_width}}  {_place(row)}".rstrip()
            for row in members
        ]
        lines.append("")
    return "\n".join([*lines, "~ may change while running: edit the file, or send SIGHUP"])


def _place(row: Row) -> str:
    """Return the origin of the value. For a default, return the environment name that would replace it."""
    return f"default ({row.env[0]})" if row.origin == "default" and row.env else row.origin


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return "" if value is None else str(value)
