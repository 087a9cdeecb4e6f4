"""Settings of the Yellowstone source."""

from typing import Annotated, ClassVar, Literal, TypeAlias

import msgspec

from headrace.config import Setting
from headrace.sources.settings import NodeSourceSettings

Compression: TypeAlias = Literal["none", "gzip", "zstd"]
ReceiverName: TypeAlias = Literal["grpcio", "own"]


class YellowstoneSettings(NodeSourceSettings, frozen=True, forbid_unknown_fields=True):
    """Settings of Yellowstone gRPC, besides the settings that all sources on nodes share."""

    ENDPOINTS: ClassVar[str] = "urls"

    urls: Annotated[
        tuple[str, ...],
        msgspec.Meta(max_length=8),
        Setting("gRPC endpoints, all read at once; https is TLS", env=("YELLOWSTONE_URLS",), kind="http_url"),
    ] = ()
    x_token: Annotated[
        str, Setting("token that every endpoint gets as x-token", env=("YELLOWSTONE_X_TOKEN",), secret=True)
    ] = ""
    filters: Annotated[
        str,
        Setting(
            "filters that subscriptions have no word for, as TOML: [accounts.NAME], [transactions.NAME] …",
            env=("YELLOWSTONE_FILTERS",),
            live=True,
        ),
    ] = ""
    receiver: Annotated[ReceiverName, Setting("what reads the stream", env=("YELLOWSTONE_RECEIVER",))] = "own"
    compression: Annotated[
        Compression,
        Setting("how a node may compress messages; zstd by the own receiver only", env=("YELLOWSTONE_COMPRESSION",)),
    ] = "none"
    ca_file: Annotated[
        str,
        Setting("PEM file of the certificates to trust, in place of the machine's", env=("YELLOWSTONE_CA_FILE",)),
    ] = ""
    replay: Annotated[
        bool, Setting("ask a node after a loss to send again what was missed", env=("YELLOWSTONE_REPLAY",))
    ] = True
    connect_timeout_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("TCP, TLS and HTTP/2 together", env=("YELLOWSTONE_CONNECT_TIMEOUT_S",))
    ] = 10.0
    ack_timeout_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting("a request that no update of slots follows for so long", env=("YELLOWSTONE_ACK_TIMEOUT_S",)),
    ] = 30.0
    keepalive_s: Annotated[
        float, msgspec.Meta(ge=1), Setting("between HTTP/2 pings", env=("YELLOWSTONE_KEEPALIVE_S",))
    ] = 15.0
    keepalive_timeout_s: Annotated[
        float,
        msgspec.Meta(ge=1),
        Setting("an HTTP/2 ping unanswered for so long", env=("YELLOWSTONE_KEEPALIVE_TIMEOUT_S",)),
    ] = 10.0
    tick_s: Annotated[float, msgspec.Meta(gt=0), Setting("between looks at stalls", env=("YELLOWSTONE_TICK_S",))] = 0.2
    message_bytes_max: Annotated[
        int,
        msgspec.Meta(ge=1024, le=2**30),
        Setting("a longer message ends the connection", env=("YELLOWSTONE_MESSAGE_BYTES_MAX",)),
    ] = 64 * 1024 * 1024
    waiting_bytes_max: Annotated[
        int,
        msgspec.Meta(ge=64 * 1024, le=2**30),
        Setting(
            "messages of a connection that wait to be read; more are left with the node",
            env=("YELLOWSTONE_WAITING_BYTES_MAX",),
        ),
    ] = 16 * 1024 * 1024
