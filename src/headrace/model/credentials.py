"""What somebody shows to prove who they are. Never written, logged or told: its `repr` says only what it is."""

from typing import Literal, NamedTuple


class Credential(NamedTuple):
    """A token that says who its bearer is, or a ticket that stands for one."""

    kind: Literal["token", "ticket"]
    secret: str

    def __repr__(self) -> str:
        return f"<{self.kind}>"
