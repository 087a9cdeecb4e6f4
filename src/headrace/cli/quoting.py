"""`headrace quote`: the exact result of a swap on one venue, computed from the accounts in a file."""

import argparse
import sys
from typing import Final

import msgspec

from headrace.decoders.registry import Programs
from headrace.inspect.quotes import ShownRefusal, quote, read_accounts, shown, text_of
from headrace.model.errors import BadInputError
from headrace.model.keys import is_key
from headrace.programs.quoting import NoQuoteError

FILE_MAX: Final = 64 * 1024 * 1024


def run(arguments: argparse.Namespace) -> int:
    """Print the quote. If there is none, print why, and return 1. Raises BadInputError for a file without accounts."""
    if not is_key(arguments.input):
        raise BadInputError("not a mint", f"{arguments.input[:50]}, expected a public key")
    path = arguments.accounts
    if path.stat().st_size > FILE_MAX:
        raise BadInputError("file too long", f"{path}, expected at most {FILE_MAX} bytes")
    accounts, clock = read_accounts(path.read_bytes(), Programs.load())
    try:
        found = quote(
            arguments.venue, arguments.input, arguments.amount, accounts, clock, exact_out=arguments.exact_out
        )
    except NoQuoteError as error:
        if arguments.json:
            refusal = ShownRefusal(arguments.venue, arguments.input, error.reason, error.detail, clock.slot)
            print(msgspec.json.encode(refusal).decode())
        print(f"headrace: {arguments.venue} gives no quote: {error}", file=sys.stderr)
        return 1
    result = shown(arguments.venue, found, clock.slot)
    print(msgspec.json.encode(result).decode() if arguments.json else text_of(result))
    return 0
