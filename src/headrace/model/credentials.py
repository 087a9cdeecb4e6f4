"""What somebody shows to prove who they are. Never written, logged or told: its `repr` says only what it is."""

import re
from typing import Final, Literal, NamedTuple

_TOKEN: Final = re.compile(r"[\w.-]+", re.ASCII)


def is_token(text: str) -> bool:
    """Say whether `text` has the characters of a JSON Web Token, so that headers and subprotocols can carry it."""
    return _TOKEN.fullmatch(text) is not None


class Credential(NamedTuple):
    """A token that says who its bearer is, or a ticket that stands for one."""

    kind: Literal["token", "ticket"]
    secret: str

    def __repr__(self) -> str:
        return f"<{self.kind}>"
