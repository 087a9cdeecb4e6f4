"""Finds the parts of an executed transaction that a node did not store: null, where an empty list says "none". Pure.

Shape: agave `transaction-status-client-types`, `UiTransactionStatusMeta`: both lists are null where the node ran
without `--enable-extended-tx-metadata-storage` (or an earlier form of the setting) when the block was processed. A
transaction that was charged but not executed (`ProgramAccountNotFound`, …) has null for both everywhere, and had
nothing to list.
"""

from typing import Any, Final

_LISTS: Final = ("innerInstructions", "logMessages")


def not_stored(result: Any) -> tuple[str, ...]:
    """Return the names of the parts that a `getTransaction` result (or a block's element) lacks.

    The parts are `meta`, `innerInstructions` and `logMessages`; empty if the result is whole. A value that is no object
    lacks `meta`.
    """
    meta = result.get("meta") if isinstance(result, dict) else None
    if not isinstance(meta, dict):
        return ("meta",)
    err = meta.get("err")
    if err is not None and not (isinstance(err, dict) and "InstructionError" in err):
        return ()
    return tuple(name for name in _LISTS if meta.get(name) is None)
