"""Transfers of tokens between token accounts."""

from typing import Literal, NamedTuple, TypeAlias

TransferKind: TypeAlias = Literal["transfer", "mint", "burn"]


class TokenTransfer(NamedTuple):
    """One movement of tokens, in base units of `mint`, by an instruction of a token program.

    `source` and `destination` are token accounts: a mint has no source, a burn has no destination. Owners, `mint` and
    `decimals` are None where the transaction does not show them. `amount` leaves the source; the destination receives
    `amount - fee`. `fee` is what a Token-2022 mint withholds at the destination, None where the transaction does not
    show how much. `path` is the instruction's; `ordinal` counts the movements of one instruction, which are several in
    a batch.
    """

    path: tuple[int, ...]
    ordinal: int
    kind: TransferKind
    program_id: str
    mint: str | None
    decimals: int | None
    source: str | None
    source_owner: str | None
    destination: str | None
    destination_owner: str | None
    amount: int
    fee: int | None
    authority: str | None
