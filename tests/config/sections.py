"""Settings that the tests load: every type, limit and kind that a room may use."""

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from headrace.config import Setting


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Typical settings of a server."""

    port: Annotated[int, Meta(ge=1, le=65535), Setting("TCP port", env=("SERVER_PORT", "PORT"))] = 8080
    host: Annotated[str, Meta(min_length=1), Setting("address to listen on", env=("GATE_HOST",))] = "127.0.0.1"
    clients_max: Annotated[int, Meta(ge=1), Setting("clients at once", env=("CLIENTS_MAX",), live=True)] = 100
    rate: Annotated[float, Meta(gt=0, le=1), Setting("share", env=("GATE_RATE",), live=True)] = 0.5
    deflate: Annotated[bool, Setting("compress", env=("GATE_DEFLATE",), live=True)] = False
    token: Annotated[str | None, Setting("admin token", env=("ADMIN_TOKEN",), secret=True, live=True)] = None
    pin: Annotated[str | None, Meta(pattern="^[0-9]{4}$"), Setting("pin", env=("ADMIN_PIN",), secret=True)] = None
    tokens: Annotated[tuple[str, ...], Setting("more tokens", env=("MORE_TOKENS",), secret=True)] = ()


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Typical settings of a source."""

    urls: Annotated[tuple[str, ...], Meta(min_length=1), Setting("nodes", env=("NODE_WS",), kind="ws_url")] = (
        "wss://api.mainnet-beta.solana.com",
    )
    rpc_url: Annotated[str | None, Setting("RPC", env=("NODE_RPC",), kind="http_url", live=True)] = None
    commitment: Annotated[
        Literal["processed", "confirmed", "finalized"], Setting("commitment", env=("NODE_COMMITMENT",), live=True)
    ] = "confirmed"
    idls: Annotated[Path | None, Setting("folder of IDLs", env=("IDL_DIR",))] = None
    programs: Annotated[tuple[str, ...], Setting("programs", env=("NODE_PROGRAMS",), kind="key")] = ()
    depth: Annotated[int | None, Meta(ge=0), Setting("depth", env=("NODE_DEPTH",))] = None
    label: Annotated[str, Setting("free text", env=("NODE_LABEL",), live=True)] = "node"
    store: Annotated[str | None, Setting("store", env=("NODE_STORE",), kind="database_url")] = None
    cache: Annotated[str | None, Setting("cache", env=("NODE_CACHE",), kind="redis_url")] = None


SECTIONS: Final[dict[str, type[msgspec.Struct]]] = {"gate": Gate, "node": Node}
KEY: Final = "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P"
