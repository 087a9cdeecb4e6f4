"""On whose behalf an instruction ran: programs name a router's authority where a router called them. Pure."""

from collections.abc import Iterator, Sequence

from headrace.model.updates import Instruction, TransactionUpdate


def on_behalf(named: str | None, path: tuple[int, ...], update: TransactionUpdate) -> tuple[str | None, str | None]:
    """(user, authority) of the swap at `path` whose program names `named` as its trader.

    A trader who signed the transaction is the user, and there is no authority. Else `named` is the authority (of a
    router, a vault), and the user is the signer among the accounts of the nearest caller that has any; of several the
    first who owns a token account. Without the transaction's signers (`update.signers` is 0) nothing is known: the user
    is who is named.
    """
    signers = update.account_keys[: update.signers]
    if not signers or named in signers:
        return named, None
    if len(signers) == 1:
        return signers[0], named
    for accounts in _accounts_of_callers(path, update.instructions):
        found = [key for key in accounts if key in signers]
        if found:
            owners = {held.owner for held in (*update.pre_token_balances, *update.post_token_balances)}
            return next((key for key in found if key in owners), found[0]), named
    return signers[0], named


def _accounts_of_callers(path: tuple[int, ...], instructions: Sequence[Instruction]) -> Iterator[tuple[str, ...]]:
    """The accounts of the instruction at `path`, then of its caller, up to the top-level one.

    Where a node left out stack heights, only the top-level instruction is a certain caller.
    """
    height: int | None = None
    reached = False
    for instruction in reversed(instructions):
        if instruction.path == path:
            reached, height = True, instruction.stack_height
            yield instruction.accounts
        elif reached and instruction.path[0] == path[0]:
            is_top = len(instruction.path) == 1
            above = height is not None and instruction.stack_height is not None and instruction.stack_height < height
            if is_top or above:
                height = instruction.stack_height
                yield instruction.accounts
