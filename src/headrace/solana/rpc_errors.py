"""Errors in the answers of Solana nodes. Their classes say whether the same request may succeed later.

Codes: agave `rpc-client-api/src/custom_error.rs` (-32001 … -32019), JSON-RPC 2.0 (-32700, -32600 … -32603).
"""

from typing import Final

from headrace.model.errors import HeadraceError, TransientError

BLOCK_CLEANED_UP: Final = -32001
BLOCK_NOT_AVAILABLE: Final = -32004
NODE_UNHEALTHY: Final = -32005
SLOT_SKIPPED: Final = -32007
LONG_TERM_STORAGE_SLOT_SKIPPED: Final = -32009
TRANSACTION_HISTORY_NOT_AVAILABLE: Final = -32011
BLOCK_STATUS_NOT_AVAILABLE_YET: Final = -32014
UNSUPPORTED_TRANSACTION_VERSION: Final = -32015
MIN_CONTEXT_SLOT_NOT_REACHED: Final = -32016
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
RATE_LIMITED: Final = -32429

_MAY_CHANGE: Final = frozenset(
    {
        BLOCK_NOT_AVAILABLE,
        NODE_UNHEALTHY,
        BLOCK_STATUS_NOT_AVAILABLE_YET,
        MIN_CONTEXT_SLOT_NOT_REACHED,
        INTERNAL_ERROR,
        RATE_LIMITED,
        429,
    }
)
_TOO_FAST: Final = frozenset({RATE_LIMITED, 429})
_ABOUT_THE_REQUEST: Final = frozenset({SLOT_SKIPPED, LONG_TERM_STORAGE_SLOT_SKIPPED, UNSUPPORTED_TRANSACTION_VERSION})


class RpcError(HeadraceError):
    """The node refused the request, and would refuse it again.

    `code` is the JSON-RPC error code, or the HTTP status if the answer has no JSON.
    """

    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"{code} {message}")

    @property
    def everywhere(self) -> bool:
        """Return whether every other node would refuse this request too, so that no other endpoint need be asked."""
        return self.code in _ABOUT_THE_REQUEST

    @property
    def too_fast(self) -> bool:
        """Return whether the node asks for fewer requests."""
        return self.code in _TOO_FAST


class RpcNotYetError(RpcError, TransientError):
    """The node can't answer at present: it is behind the chain, does not have the block yet, or is overloaded."""

    def __init__(self, code: int, message: str) -> None:
        RpcError.__init__(self, code, message)
        self.retry_after_s = None


def rpc_error(code: int, message: str) -> RpcError:
    """Return the error in the class for its code: RpcNotYetError if a retry may succeed, otherwise RpcError."""
    return RpcNotYetError(code, message) if code in _MAY_CHANGE else RpcError(code, message)
