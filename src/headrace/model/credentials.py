"""Credentials of clients. A credential is never stored or logged: its `repr` shows only its kind."""

import re
from typing import Final, Literal, NamedTuple

_TOKEN: Final = re.compile(r"[\w.-]+", re.ASCII)


def is_token(text: str) -> bool:
    """Return whether `text` has only characters of a JSON Web Token, so that it fits into headers and subprotocols."""
    return _TOKEN.fullmatch(text) is not None


class Credential(NamedTuple):
    """A JSON Web Token that names its bearer, or a ticket that replaces such a token."""

    kind: Literal["token", "ticket"]
    secret: str

    def __repr__(self) -> str:
        return f"<{self.kind}>"
