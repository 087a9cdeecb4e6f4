"""Names for programs without an IDL: the runtime's own, and a few that are in nearly every transaction."""

from typing import Any, Final, NamedTuple

from headrace.model.keys import SYSTEM_PROGRAM, TOKEN_2022_PROGRAM, TOKEN_PROGRAM, b58encode


class _Command(NamedTuple):
    """An instruction: its name, its arguments (a code for each, and their names) and its accounts.

    Codes: I is a u32, Q a u64, K a public key, S text after a u64 length.
    """

    name: str
    codes: str = ""
    fields: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()


class _Native(NamedTuple):
    """A program without an IDL.

    Instruction data begins with a little-endian number of `tag_size` bytes: the index in `commands`.
    """

    name: str
    tag_size: int = 0
    commands: tuple[_Command, ...] = ()


_SYSTEM: Final = (
    _Command("create_account", "QQK", ("lamports", "space", "owner"), ("from", "new")),
    _Command("assign", "K", ("owner",), ("account",)),
    _Command("transfer", "Q", ("lamports",), ("from", "to")),
    _Command(
        "create_account_with_seed", "KSQQK", ("base", "seed", "lamports", "space", "owner"), ("from", "new", "base")
    ),
    _Command("advance_nonce_account", "", (), ("nonce", "recent_blockhashes", "authority")),
    _Command("withdraw_nonce_account", "Q", ("lamports",), ("nonce", "to", "recent_blockhashes", "rent", "authority")),
    _Command("initialize_nonce_account", "K", ("authority",), ("nonce", "recent_blockhashes", "rent")),
    _Command("authorize_nonce_account", "K", ("new_authority",), ("nonce", "authority")),
    _Command("allocate", "Q", ("space",), ("account",)),
    _Command("allocate_with_seed", "KSQK", ("base", "seed", "space", "owner"), ("account", "base")),
    _Command("assign_with_seed", "KSK", ("base", "seed", "owner"), ("account", "base")),
    _Command("transfer_with_seed", "QSK", ("lamports", "seed", "from_owner"), ("from", "base", "to")),
    _Command("upgrade_nonce_account", "", (), ("nonce",)),
)
_COMPUTE_BUDGET: Final = (
    _Command("request_units", "II", ("units", "additional_fee")),
    _Command("request_heap_frame", "I", ("bytes",)),
    _Command("set_compute_unit_limit", "I", ("units",)),
    _Command("set_compute_unit_price", "Q", ("micro_lamports",)),
    _Command("set_loaded_accounts_data_size_limit", "I", ("bytes",)),
)
_TOKEN_ACCOUNT: Final = ("payer", "associated_account", "wallet", "mint", "system_program", "token_program")
_ASSOCIATED_TOKEN: Final = (
    _Command("create", accounts=_TOKEN_ACCOUNT),
    _Command("create_idempotent", accounts=_TOKEN_ACCOUNT),
    _Command("recover_nested"),
)
_LOOKUP_TABLE: Final = (
    _Command("create_lookup_table"),
    _Command("freeze_lookup_table"),
    _Command("extend_lookup_table"),
    _Command("deactivate_lookup_table"),
    _Command("close_lookup_table"),
)
_SIZES: Final = {"I": 4, "Q": 8, "K": 32, "S": 8}
_MEMO: Final = _Native("memo", 0, (_Command("memo"),))

_NATIVE: Final = {
    SYSTEM_PROGRAM: _Native("system_program", 4, _SYSTEM),
    "ComputeBudget111111111111111111111111111111": _Native("compute_budget", 1, _COMPUTE_BUDGET),
    "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL": _Native("associated_token", 1, _ASSOCIATED_TOKEN),
    "AddressLookupTab1e1111111111111111111111111": _Native("address_lookup_table", 4, _LOOKUP_TABLE),
    "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr": _MEMO,
    "Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo": _MEMO,
    "BPFLoaderUpgradeab1e11111111111111111111111": _Native("bpf_loader_upgradeable"),
    "Stake11111111111111111111111111111111111111": _Native("stake"),
    "Vote111111111111111111111111111111111111111": _Native("vote"),
    "Ed25519SigVerify111111111111111111111111111": _Native("ed25519"),
    "KeccakSecp256k11111111111111111111111111111": _Native("secp256k1"),
    "Secp256r1SigVerify1111111111111111111111111": _Native("secp256r1"),
    "metaqbxxUerdq28cj1RbAWkYQm3ybzjb6a8bt518x1s": _Native("token_metadata"),
}

SILENT: Final = frozenset(program_id for program_id, native in _NATIVE.items() if native.name[:4] in {"ed25", "secp"})
"""Precompiles, which run without a log line."""

CALL_NOBODY: Final = frozenset(
    {
        SYSTEM_PROGRAM,
        TOKEN_PROGRAM,
        TOKEN_2022_PROGRAM,
        "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL",
        "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr",
        "Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo",
        "pfeeUxB6jkeY1Hxd7CsFCAjcbHA9rWtchMGdZ6VojVZ",
    }
)
"""Programs that never call a program of their caller's choice: system, tokens, memo, pump's fees.

The hook that Token-2022 calls for some mints is an instruction of its own.
"""


def program_name(program_id: str) -> str | None:
    """Return the name of a program in this module's table; None for other programs."""
    native = _NATIVE.get(program_id)
    return None if native is None else native.name


class NamedCommand(NamedTuple):
    """Known parts of an instruction.

    `args` (wire JSON, so integers above 32 bits are text) is set only if all are known.
    """

    name: str
    args: dict[str, Any] | None = None
    accounts: tuple[str, ...] = ()


def command(program_id: str, data: bytes) -> NamedCommand | None:
    """Return the names in an instruction of a program in the table; None for other programs or instructions."""
    known = _known(program_id, data)
    if known is None:
        return None
    if known.name == "memo":
        return NamedCommand("memo", {"text": data.decode("utf-8", "replace")})
    return NamedCommand(known.name, _arguments(known, data, _NATIVE[program_id].tag_size), known.accounts)


def command_name(program_id: str, data: bytes) -> tuple[str, tuple[str, ...]] | None:
    """Return the names of an instruction and of its accounts. None in the same cases as for `command`."""
    known = _known(program_id, data)
    return None if known is None else (known.name, known.accounts)


def _known(program_id: str, data: bytes) -> _Command | None:
    native = _NATIVE.get(program_id)
    if native is None or not native.commands:
        return None
    tag = int.from_bytes(data[: native.tag_size], "little")
    return native.commands[tag] if tag < len(native.commands) else None


def _arguments(known: _Command, data: bytes, at: int) -> dict[str, Any] | None:
    """Return the arguments as wire JSON; None if they do not fill the data exactly."""
    args: dict[str, Any] = {}
    for code, name in zip(known.codes, known.fields, strict=True):
        size = _SIZES[code]
        raw = data[at : at + size]
        at += size
        if code == "S":
            raw, at = data[at : at + int.from_bytes(raw, "little")], at + int.from_bytes(raw, "little")
            args[name] = raw.decode("utf-8", "replace")
        elif code == "K":
            args[name] = b58encode(raw)
        else:
            args[name] = int.from_bytes(raw, "little") if code == "I" else str(int.from_bytes(raw, "little"))
    return args if at == len(data) or not (args or data) else None
