"""Converts the error of a failed transaction between bincode bytes (Yellowstone) and the form of JSON-RPC."""

import struct
from typing import Final, cast

from headrace.model.updates import TxError

_TRANSACTION: Final = (
    "AccountInUse", "AccountLoadedTwice", "AccountNotFound", "ProgramAccountNotFound", "InsufficientFundsForFee",
    "InvalidAccountForFee", "AlreadyProcessed", "BlockhashNotFound", "InstructionError", "CallChainTooDeep",
    "MissingSignatureForFee", "InvalidAccountIndex", "SignatureFailure", "InvalidProgramForExecution",
    "SanitizeFailure", "ClusterMaintenance", "AccountBorrowOutstanding", "WouldExceedMaxBlockCostLimit",
    "UnsupportedVersion", "InvalidWritableAccount", "WouldExceedMaxAccountCostLimit",
    "WouldExceedAccountDataBlockLimit", "TooManyAccountLocks", "AddressLookupTableNotFound",
    "InvalidAddressLookupTableOwner", "InvalidAddressLookupTableData", "InvalidAddressLookupTableIndex",
    "InvalidRentPayingAccount", "WouldExceedMaxVoteCostLimit", "WouldExceedAccountDataTotalLimit",
    "DuplicateInstruction", "InsufficientFundsForRent", "MaxLoadedAccountsDataSizeExceeded",
    "InvalidLoadedAccountsDataSizeLimit", "ResanitizationNeeded", "ProgramExecutionTemporarilyRestricted",
    "UnbalancedTransaction", "ProgramCacheHitMaxLimit", "CommitCancelled",
)  # fmt: skip
_INSTRUCTION: Final = (
    "GenericError", "InvalidArgument", "InvalidInstructionData", "InvalidAccountData", "AccountDataTooSmall",
    "InsufficientFunds", "IncorrectProgramId", "MissingRequiredSignature", "AccountAlreadyInitialized",
    "UninitializedAccount", "UnbalancedInstruction", "ModifiedProgramId", "ExternalAccountLamportSpend",
    "ExternalAccountDataModified", "ReadonlyLamportChange", "ReadonlyDataModified", "DuplicateAccountIndex",
    "ExecutableModified", "RentEpochModified", "NotEnoughAccountKeys", "AccountDataSizeChanged",
    "AccountNotExecutable", "AccountBorrowFailed", "AccountBorrowOutstanding", "DuplicateAccountOutOfSync",
    "Custom", "InvalidError", "ExecutableDataModified", "ExecutableLamportChange", "ExecutableAccountNotRentExempt",
    "UnsupportedProgramId", "CallDepth", "MissingAccount", "ReentrancyNotAllowed", "MaxSeedLengthExceeded",
    "InvalidSeeds", "InvalidRealloc", "ComputationalBudgetExceeded", "PrivilegeEscalation",
    "ProgramEnvironmentSetupFailure", "ProgramFailedToComplete", "ProgramFailedToCompile", "Immutable",
    "IncorrectAuthority", "BorshIoError", "AccountNotRentExempt", "InvalidAccountOwner", "ArithmeticOverflow",
    "UnsupportedSysvar", "IllegalOwner", "MaxAccountsDataAllocationsExceeded", "MaxAccountsExceeded",
    "MaxInstructionTraceLengthExceeded", "BuiltinProgramsMustConsumeComputeUnits",
)  # fmt: skip
_OF_AN_ACCOUNT: Final = {"InsufficientFundsForRent", "ProgramExecutionTemporarilyRestricted"}


def transaction_error(raw: bytes) -> TxError:
    """Return the error in the form of `meta.err`, e.g. `{"InstructionError": [2, {"Custom": 6001}]}`.

    An error that this module's table lacks, or bytes that end too early, become `{"bincode": <hex>}`, so that a failed
    transaction never looks successful.
    """
    try:
        (kind,) = struct.unpack_from("<I", raw)
        name = _TRANSACTION[kind]
        if name == "DuplicateInstruction":
            return {name: raw[4]}
        if name in _OF_AN_ACCOUNT:
            return {name: {"account_index": raw[4]}}
        if name != "InstructionError":
            return name
        place, why = struct.unpack_from("<BI", raw, 4)
        reason = _INSTRUCTION[why]
        if reason != "Custom":
            return {name: [place, reason]}
        (code,) = struct.unpack_from("<I", raw, 9)
        return {name: [place, {reason: code}]}
    except (IndexError, struct.error):
        return {"bincode": raw.hex()}


def transaction_error_bytes(err: str | dict[str, object]) -> bytes:
    """Return the bincode bytes of an error in the form of JSON-RPC. Inverse of `transaction_error`.

    Raises ValueError for an error that the table lacks.
    """
    if isinstance(err, str):
        return struct.pack("<I", _TRANSACTION.index(err))
    ((name, value),) = err.items()
    if name == "bincode":
        return bytes.fromhex(str(value))
    kind = struct.pack("<I", _TRANSACTION.index(name))
    if isinstance(value, dict):
        return kind + bytes([value["account_index"]])
    if isinstance(value, int):
        return kind + bytes([value])
    place, reason = cast("list[int | str | dict[str, int]]", value)
    custom = reason.get("Custom") if isinstance(reason, dict) else None
    why = struct.pack("<BI", place, _INSTRUCTION.index("Custom" if isinstance(reason, dict) else str(reason)))
    return kind + why + (b"" if custom is None else struct.pack("<I", custom))
