"""`headrace decode`: prints files, standard input, or a node's answer readably, as JSON or as messages."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from headrace.config import Config
from headrace.decoders.registry import Programs
from headrace.ingest.pipeline import Pipeline
from headrace.inspect.messages import MessageLines
from headrace.inspect.readable import render_text
from headrace.inspect.recognise import chain_name, pieces, recognise
from headrace.inspect.transactions import Result, inspect, owner_id
from headrace.model.errors import BadInputError
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.service.updates import load_programs, open_market, open_rpc

STDIN: Final = "-"
BARE_LENGTH_MIN: Final = 89
"""Minimum length of text on the command line that is itself a transaction: keys and signatures have at most 88
characters."""


def decode(config: Config, names: Sequence[str], *, owner: str | None, as_json: bool, messages: bool) -> int:
    """Decode and print each name: a file, `-`, a signature, a public key, or the text itself.

    With `as_json`, prints one JSON object, or one a line if there are several. With `messages`, prints one line of JSON
    for each message that a stream would publish if it received everything in this order.
    If there is only one input and it can't be decoded, raises BadInputError with the input's name. Among several names,
    JSON lines or items of an array, a bad one is reported on standard error, the others are decoded, and 1 is returned.
    """
    programs = load_programs(config)
    for warning in programs.warnings:
        print(f"headrace: warning: {warning}", file=sys.stderr)
    write = _message_writer(config, programs, owner) if messages else _writer(programs, owner, as_json=as_json)
    errors: list[BadInputError] = []
    count = 0
    for name in names:
        for what, text in _inputs(config, name, owner, errors):
            count += 1
            try:
                with _naming(what):
                    write(text)
            except BadInputError as error:
                errors.append(error)
    if errors and count <= 1 and len(names) == 1:
        raise errors[0]
    for each in errors:
        print(f"headrace: {each}", file=sys.stderr)
    return 1 if errors else 0


def _inputs(config: Config, name: str, owner: str | None, errors: list[BadInputError]) -> Iterator[tuple[str, bytes]]:
    """Yield (label, text) of each piece. A name that can't be read is added to `errors`."""
    shown = "standard input" if name == STDIN else name
    try:
        with _naming(shown):
            texts = pieces(_read(config, name, owner))
    except BadInputError as error:
        errors.append(error)
        return
    for place, text in texts:
        yield f"{shown}, {place}" if place else shown, text


def _writer(programs: Programs, owner: str | None, *, as_json: bool) -> Callable[[bytes], None]:
    """Return a function that decodes a text and prints the result."""

    def write(text: bytes) -> None:
        _print(inspect(text, programs, owner=owner), as_json=as_json)

    return write


def _message_writer(config: Config, programs: Programs, owner: str | None) -> Callable[[bytes], None]:
    """Return a function that prints the messages that a stream would publish for a text."""

    def new_pipeline() -> Pipeline:
        metrics = Metrics()
        return Pipeline(programs, SystemClock(), metrics, market=open_market(config, metrics))

    lines = MessageLines(new_pipeline)

    def write(text: bytes) -> None:
        for line in lines.of(recognise(text, owner=owner_id(owner, programs))):
            print(line.decode())

    return write


def _print(result: Result | list[Result], *, as_json: bool) -> None:
    if not as_json:
        print(render_text(result))
        return
    for each in result if isinstance(result, list) else [result]:
        print(msgspec.json.encode(each).decode())


def _read(config: Config, name: str, owner: str | None) -> bytes:
    if name == STDIN:
        return sys.stdin.buffer.read()
    if os.path.lexists(name):
        return Path(name).read_bytes()
    if chain_name(name):
        return asyncio.run(_fetch(config, name))
    if owner is not None or len(name) >= BARE_LENGTH_MIN:
        return name.encode()
    raise BadInputError("nothing there", "expected a file, - for standard input, a signature or a public key")


async def _fetch(config: Config, name: str) -> bytes:
    """Return the transaction or account with this name, as the node's own JSON.

    Raises BadInputError if there is none.
    """
    rpc = open_rpc(config, SystemClock())
    try:
        if chain_name(name) == "signature":
            found = await rpc.get_transaction(name)
            missing = found is None
        else:
            found = await rpc.call("getAccountInfo", [name, {"encoding": "base64", "commitment": "confirmed"}])
            missing = found["value"] is None
    finally:
        await rpc.aclose()
    if missing:
        raise BadInputError("not found", f"the node knows no such {'transaction' if found is None else 'account'}")
    return msgspec.json.encode({"result": found})


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Put the name of the input, `what`, in front of the message of a BadInputError."""
    try:
        yield
    except BadInputError as error:
        shown = what if len(what) < BARE_LENGTH_MIN else f"{what[:16]}…"
        raise BadInputError(f"{shown}: {error.reason}", error.detail) from error
