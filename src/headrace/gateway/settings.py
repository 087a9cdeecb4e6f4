"""Settings of the gateway: its port and limits, admission of clients, and TLS."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated

import msgspec

from headrace.config import Setting
from headrace.protocol.frames import Limits

_Count = msgspec.Meta(ge=1)


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[gateway]`.

    `host` is loopback by default, because without authentication any client can read everything.
    Limits marked as live apply to connections made after the change; `connections_max` applies at once.
    """

    host: Annotated[
        str,
        msgspec.Meta(min_length=1),
        Setting(
            "Address to listen on; 0.0.0.0 lets other machines in (set AUTH_MODE first)",
            ("SERVER_HOST",),
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        msgspec.Meta(ge=0, le=65535),
        Setting("TCP port of HTTP and WebSocket; 0: any free port", ("SERVER_PORT", "PORT")),
    ] = 8080
    connections_max: Annotated[
        int, _Count, Setting("WebSocket connections at once", ("WEBSOCKET_MAX_CONNECTIONS",), live=True)
    ] = 10_000
    http_connections_max: Annotated[
        int, _Count, Setting("Connections at once that are not (yet) WebSockets", ("HTTP_MAX_CONNECTIONS",), live=True)
    ] = 1024
    ping_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("Seconds between heartbeats to a client", ("WEBSOCKET_HEARTBEAT_INTERVAL",))
    ] = 30
    pong_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("Seconds a client has to answer a heartbeat", ("WEBSOCKET_PONG_TIMEOUT",))
    ] = 8
    frame_bytes_max: Annotated[
        int,
        msgspec.Meta(ge=256, le=2**24),
        Setting("Bytes of one message from a client", ("WEBSOCKET_MAX_FRAME_BYTES",), live=True),
    ] = 65_536
    topics_max: Annotated[int, _Count, Setting("Topics of one connection", ("WEBSOCKET_MAX_TOPICS",), live=True)] = 128
    cmd_per_s: Annotated[
        int,
        _Count,
        Setting("Commands a second of one connection, and as many at once", ("WEBSOCKET_COMMANDS_PER_S",), live=True),
    ] = 20
    history_max: Annotated[
        int, _Count, Setting("Messages of one history page", ("WEBSOCKET_HISTORY_LIMIT",), live=True)
    ] = 1000
    recover_max: Annotated[
        int,
        _Count,
        Setting(
            "Messages replayed to one recovering subscription; beyond it recovered is false",
            ("WEBSOCKET_RECOVER_LIMIT",),
            live=True,
        ),
    ] = 10_000
    filter_nodes_max: Annotated[
        int,
        _Count,
        Setting(
            "Most nodes of all distinct filters on one topic, each value counted; a further filter is refused",
            ("WEBSOCKET_MAX_FILTER_NODES",),
            live=True,
        ),
    ] = 20_000
    tick_ms: Annotated[
        float,
        msgspec.Meta(ge=0, le=1000),
        Setting(
            "Longest wait of a message to share a write with others; the first after a pause does not wait",
            ("WEBSOCKET_TICK_MS",),
            live=True,
        ),
    ] = 1
    slow_abort_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting("Seconds a client may take nothing before its connection is dropped", ("WEBSOCKET_SLOW_ABORT_S",)),
    ] = 10
    close_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("Seconds a client has to answer a close", ("WEBSOCKET_CLOSE_S",))
    ] = 5
    request_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("Seconds a client has to send a whole request", ("HTTP_REQUEST_S",))
    ] = 10
    header_bytes_max: Annotated[
        int, msgspec.Meta(ge=1024), Setting("Bytes of a request's URL and headers", ("HTTP_MAX_HEADER_BYTES",))
    ] = 16_384
    body_bytes_max: Annotated[
        int, msgspec.Meta(ge=0), Setting("Bytes of a request's body", ("HTTP_MAX_BODY_BYTES",))
    ] = 65_536
    send_buffer_bytes: Annotated[
        int, msgspec.Meta(ge=4096), Setting("Kernel send buffer of each connection", ("SOCKET_SEND_BUFFER_BYTES",))
    ] = 131_072
    write_buffer_bytes: Annotated[
        int,
        msgspec.Meta(ge=4096),
        Setting("Bytes beyond the kernel's buffer at which a client counts as slow", ("SOCKET_WRITE_BUFFER_BYTES",)),
    ] = 262_144

    compression: Annotated[
        bool,
        Setting(
            "Offer permessage-deflate: fewer bytes for clients that ask for it, compressed once for all of them",
            ("WEBSOCKET_COMPRESSION",),
            live=True,
        ),
    ] = False

    def limits(self) -> Limits:
        """Return the limits that a new connection receives with its welcome."""
        return _limits(self.topics_max, self.frame_bytes_max, self.cmd_per_s, self.history_max)


@lru_cache(maxsize=4)
def _limits(topics: int, frame: int, cmd_per_s: int, history: int) -> Limits:
    """Return one object with the limits for all connections, because each keeps it even while idle."""
    return Limits(topics=topics, frame=frame, cmd_per_s=cmd_per_s, history=history)


class AdmissionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[admission]`: limits for each client.

    Behind a proxy, set `trusted_proxies`. Otherwise all clients count as one.
    """

    per_address_max: Annotated[
        int,
        _Count,
        Setting("WebSockets and event streams of one address at once", ("WEBSOCKET_MAX_PER_ADDRESS",), live=True),
    ] = 5000
    per_user_max: Annotated[
        int,
        _Count,
        Setting("Streams of one user at once, order streams included", ("WEBSOCKET_MAX_PER_USER",), live=True),
    ] = 100
    connects_per_s: Annotated[
        int,
        _Count,
        Setting(
            "New WebSockets and event streams of one address a second, and as many at once",
            ("WEBSOCKET_CONNECTS_PER_S",),
            live=True,
        ),
    ] = 1000
    http_per_address_max: Annotated[
        int,
        _Count,
        Setting(
            "Connections of one peer at once that are neither WebSocket nor event stream (yet)",
            ("HTTP_MAX_PER_ADDRESS",),
            live=True,
        ),
    ] = 512
    requests_per_s: Annotated[
        int,
        _Count,
        Setting(
            "HTTP requests of one user a second, or of one address if the user is not known; as many at once",
            ("HTTP_REQUESTS_PER_S",),
            live=True,
        ),
    ] = 2000
    trusted_proxies: Annotated[
        tuple[str, ...],
        msgspec.Meta(max_length=64),
        Setting("Addresses or networks whose X-Forwarded-For is believed", ("TRUSTED_PROXIES",), live=True),
    ] = ()
    origins: Annotated[
        tuple[str, ...],
        msgspec.Meta(max_length=256),
        Setting(
            "Pages of other sites that may read and connect: https://app.example.com, https://*.example.com (one name "
            "below), capacitor://localhost; * for all, null for files",
            ("ALLOWED_ORIGINS",),
            live=True,
        ),
    ] = ()
    idle_s: Annotated[
        float,
        msgspec.Meta(ge=0),
        Setting(
            "Seconds without subscription or command before a connection is closed; 0: never", ("WEBSOCKET_IDLE_S",)
        ),
    ] = 0


class TlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[tls]`: both files, or neither. Both are read again on SIGHUP and when they change."""

    cert_file: Annotated[
        str,
        Setting("PEM file with the certificate and its chain; with it the port speaks TLS only", ("TLS_CERT_FILE",)),
    ] = ""
    key_file: Annotated[str, Setting("PEM file with the certificate's private key", ("TLS_KEY_FILE",))] = ""

    def paths(self) -> list[Path]:
        """Return the files to watch."""
        return [Path(name) for name in (self.cert_file, self.key_file) if name]
