"""`headrace decode`: one file, standard input, or something fetched from the node, printed readably or as JSON."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from headrace.config import Config
from headrace.ingest.inspect import Result, inspect
from headrace.ingest.readable import render_text
from headrace.ingest.recognise import chain_name, pieces
from headrace.model.errors import BadInputError
from headrace.runtime.clock import SystemClock
from headrace.upstream import load_programs, open_rpc

STDIN: Final = "-"
BARE_LENGTH_MIN: Final = 89
"""Text on the command line of this many characters is a transaction itself: names of things on the chain end at 88."""


def decode(config: Config, name: str, *, owner: str | None, as_json: bool) -> int:
    """Print what `name` stands for: a file, `-`, a signature, a public key, or the very text to decode.

    With `as_json` one object, or one a line for several. Raises BadInputError that names `name`. Of JSON lines a bad
    one is told on standard error and the others are decoded all the same; then 1 is returned.
    """
    shown = "standard input" if name == STDIN else name
    with _naming(shown):
        texts = pieces(_read(config, name, owner))
    programs, bad = load_programs(config), 0
    for warning in programs.warnings:
        print(f"headrace: warning: {warning}", file=sys.stderr)
    for number, text in enumerate(texts, 1):
        try:
            with _naming(shown if len(texts) == 1 else f"{shown}, line {number}"):
                _print(inspect(text, programs, owner=owner), as_json=as_json)
        except BadInputError as error:
            if len(texts) == 1:
                raise
            bad += 1
            print(f"headrace: {error}", file=sys.stderr)
    return 1 if bad else 0


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
    """The transaction or account of this name, as the node's own JSON. Raises BadInputError when there is none."""
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
    """Put `what` was read before the message of what is wrong with it."""
    try:
        yield
    except BadInputError as error:
        shown = what if len(what) < BARE_LENGTH_MIN else f"{what[:16]}…"
        raise BadInputError(f"{shown}: {error.reason}", error.detail) from error
