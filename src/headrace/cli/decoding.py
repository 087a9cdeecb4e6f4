"""`headrace decode`: one file, standard input, or something fetched from the node, printed readably or as JSON."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from headrace import app
from headrace.config import Config
from headrace.ingest.inspect import inspect
from headrace.ingest.readable import render_text
from headrace.ingest.recognise import chain_name
from headrace.model.errors import BadInputError
from headrace.runtime.clock import SystemClock

STDIN: Final = "-"
BARE_LENGTH_MIN: Final = 89
"""Text on the command line of this many characters is a transaction itself: names of things on the chain end at 88."""


def decode(config: Config, name: str, *, owner: str | None, as_json: bool) -> int:
    """Print what `name` stands for: a file, `-`, a signature, a public key, or the very text to decode.

    With `as_json` one object, or one a line for several. Raises BadInputError that names `name`.
    """
    with _naming("standard input" if name == STDIN else name):
        result = inspect(_read(config, name, owner), app.load_programs(config), owner=owner)
    if as_json:
        for each in result if isinstance(result, list) else [result]:
            print(msgspec.json.encode(each).decode())
    else:
        print(render_text(result))
    return 0


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
    rpc = app.open_rpc(config, SystemClock())
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
