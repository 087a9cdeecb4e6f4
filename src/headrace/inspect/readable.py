"""Results of `inspect` as plain text for a terminal: aligned, and indented by the depth of program calls."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from headrace.inspect.transactions import Result
from headrace.model.amounts import SOL_DECIMALS, decimal_string

_LAMPORTS: Final = "lamports"
_LINE_MAX: Final = 500


def render_text(result: Result | list[Result]) -> str:
    """Return the result as lines without colours.

    Control characters in text from the chain are escaped, because a coin's name can contain commands for a terminal.
    """
    results = result if isinstance(result, list) else [result]
    return "\n\n".join("\n".join(_lines(each)) for each in results)


def _lines(result: Result) -> Iterator[str]:
    if "instructions" not in result:
        yield from _account(result)
        return
    outcome = "ok" if result["err"] is None else f"failed: {_text(result['err'])}"
    if result["events"] is None:
        outcome = "outcome unknown"
    yield f"transaction  {result['signature'] or '(unsigned)'}"
    known = {"slot": result["slot"], "version": result["version"]}
    yield "  ".join([*(f"{name} {value}" for name, value in known.items() if value is not None), outcome])
    if result["events"]:
        yield ""
        yield "events"
    for event in result["events"] or ():
        notes = [event["via"], *(["log truncated"] if event["truncated"] else []), *_leftover(event)]
        yield f"  {event['program']} {event['name']}  ({', '.join(notes)})"
        yield from _fields(event["data"], "    ")
    if result["instructions"]:
        yield ""
        yield "instructions"
    for instruction in result["instructions"]:
        indent = "  " * len(instruction["path"])
        place = ".".join(map(str, instruction["path"]))
        yield f"{indent}{place}  {instruction['program']} {instruction['name'] or '?'}"
        yield from _fields(instruction["args"], indent + "    ")
        yield from _fields(instruction["accounts"], indent + "    @")


def _account(result: Result) -> Iterator[str]:
    where = f"  {result['pubkey']}" if result.get("pubkey") else ""
    yield f"account{where}  {result['program']} {result['name'] or '?'}{''.join(f'  ({n})' for n in _leftover(result))}"
    yield from _fields(result["data"], "  ")


def _leftover(decoded: Mapping[str, Any]) -> list[str]:
    return [f"{decoded['leftover']} bytes left over"] if decoded["leftover"] and decoded["name"] else []


def _fields(data: Mapping[str, Any], indent: str) -> Iterator[str]:
    width = max(map(len, data), default=0)
    for name, value in data.items():
        yield f"{indent}{_printable(name).ljust(width)}  {_text(value)}{_in_sol(name, value)}"


def _in_sol(name: str, value: Any) -> str:
    is_amount = name == _LAMPORTS or name.endswith("_lamports")
    return f"  ({decimal_string(int(value), SOL_DECIMALS)} SOL)" if is_amount and str(value).isdecimal() else ""


def _text(value: Any) -> str:
    shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return _printable(shown if len(shown) <= _LINE_MAX else f"{shown[:_LINE_MAX]}… ({len(shown)} characters)")


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
