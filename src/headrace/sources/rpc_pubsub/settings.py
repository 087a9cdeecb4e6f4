"""Settings of the RPC PubSub source."""

from typing import Annotated, ClassVar
from urllib.parse import urlsplit, urlunsplit

import msgspec

from headrace.config import Setting
from headrace.config.kinds import KINDS
from headrace.model.errors import ConfigError
from headrace.sources.rpc_pubsub.registry import Encoding
from headrace.sources.settings import NodeSourceSettings

_LOCAL_PUBSUB_PORT = 8900
_LOCAL_RPC_PORT = 8899


class RpcPubSubSettings(NodeSourceSettings, frozen=True, forbid_unknown_fields=True):
    """Solana RPC PubSub: endpoints, timeouts and encoding, besides the settings of every source on nodes."""

    ENDPOINTS: ClassVar[str] = "ws_urls"

    ws_urls: Annotated[
        tuple[str, ...],
        msgspec.Meta(min_length=1, max_length=8),
        Setting("WebSocket endpoints, all read at once", env=("SOLANA_RPC_WS", "SOLANA_WS_URL"), kind="ws_url"),
    ] = ("wss://api.mainnet-beta.solana.com",)
    encoding: Annotated[
        Encoding, Setting("encoding of account data; base64 if a node refuses zstd", env=("SOLANA_ENCODING",))
    ] = "base64+zstd"
    connect_timeout_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting("longest time to connect, with TLS and handshake", env=("SOLANA_CONNECT_TIMEOUT_S",)),
    ] = 10.0
    ack_timeout_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting("seconds after which an unanswered subscription counts as refused", env=("SOLANA_ACK_TIMEOUT_S",)),
    ] = 10.0
    ping_interval_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("seconds between WebSocket pings", env=("SOLANA_PING_INTERVAL_S",))
    ] = 15.0
    tick_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting("seconds between checks for missing answers and stalls", env=("SOLANA_TICK_S",)),
    ] = 0.2
    message_bytes_max: Annotated[
        int,
        msgspec.Meta(ge=1024),
        Setting("most bytes of a message; a longer one ends the connection", env=("SOLANA_MESSAGE_BYTES_MAX",)),
    ] = 16 * 1024 * 1024
    transaction_subscribe: Annotated[
        bool,
        Setting(
            "request whole transactions by transactionSubscribe, if the node has it",
            env=("SOLANA_TRANSACTION_SUBSCRIBE",),
        ),
    ] = True

    def rpc_urls(self) -> tuple[str, ...]:
        """Return the HTTP endpoints that belong to the WebSocket endpoints."""
        return http_urls(self.ws_urls)


def check_ws_urls(urls: tuple[str, ...]) -> None:
    """Raise ConfigError for a URL that is not a WebSocket URL."""
    demand = KINDS["ws_url"]
    for url in urls:
        if not demand.accepts(url):
            raise ConfigError("SOLANA_RPC_WS", demand.refused(url), demand.expected)


def http_urls(ws_urls: tuple[str, ...]) -> tuple[str, ...]:
    """Return the HTTP endpoints that belong to WebSocket endpoints.

    These are the same URLs with http(s), and port 8899 in place of a local validator's 8900.
    """
    urls = []
    for url in ws_urls:
        parts = urlsplit(url)
        host = parts.netloc
        if parts.port == _LOCAL_PUBSUB_PORT:
            host = host.removesuffix(str(_LOCAL_PUBSUB_PORT)) + str(_LOCAL_RPC_PORT)
        scheme = "https" if parts.scheme == "wss" else "http"
        urls.append(urlunsplit((scheme, host, parts.path, parts.query, "")))
    return tuple(dict.fromkeys(urls))
