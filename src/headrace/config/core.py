"""Settings that belong to no adapter: logs, identity, switches of whole parts, and names kept from earlier versions."""

import platform
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from headrace.config.setting import Setting


def _server_id() -> str:
    """Return the host's name without its domain, reduced to the characters that topics and labels allow."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", platform.node().partition(".")[0])[:64] or "headrace"


class CoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[core]`: settings of the process, and names kept from earlier versions."""

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Setting("least level of messages that are logged", env=("LOG_LEVEL",), live=True),
    ] = "info"
    log_format: Annotated[
        Literal["console", "json"],
        Setting("log lines for a terminal or for machines", env=("LOG_FORMAT",)),
    ] = "console"
    server_id: Annotated[
        str,
        Meta(pattern="^[A-Za-z0-9_.-]{1,64}$"),
        Setting(
            "name of this server; default: the host's name, on a shared bus a made one, kept in SERVER_ID_FILE",
            env=("SERVER_ID",),
        ),
    ] = msgspec.field(default_factory=_server_id)
    redis_url: Annotated[
        str | None,
        Setting(
            "Redis or Valkey, which several servers share; `localhost:6379` may be without a scheme",
            env=("REDIS_URL",),
            kind="redis_url",
        ),
    ] = None
    database_url: Annotated[
        str | None,
        Setting(
            "database of orders, of messages to users and of the history; without it, SQLite files",
            env=("DATABASE_URL",),
            kind="database_url",
        ),
    ] = None
    queue_max_concurrency: Annotated[
        int,
        Meta(ge=1, le=10_000),
        Setting("most orders executed at the same time", env=("QUEUE_MAX_CONCURRENCY",), live=True),
    ] = 10
    queue_rate_limit_per_minute: Annotated[
        int,
        Meta(ge=0, le=1_000_000),
        Setting("most orders started per minute; 0: no limit", env=("QUEUE_RATE_LIMIT_PER_MINUTE",), live=True),
    ] = 100
    commcoin_program_id: Annotated[
        str,
        Setting("program of community coins", env=("COMMCOIN_PROGRAM_ID",), kind="key"),
    ] = "6YuHH4kveCrEeEtVKM2nh18zU4XWFpEWqV8f5GbhdnzX"


class Features(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[features]`: switches of whole parts."""

    stream: Annotated[bool, Setting("receive chain updates", env=("TRANSACTION_LISTENER_ENABLED",), live=True)] = True
    gateway: Annotated[bool, Setting("serve HTTP and WebSocket clients", env=("GATEWAY_ENABLED",))] = True
    dashboard: Annotated[bool, Setting("show the live page at /", env=("DASHBOARD_ENABLED",))] = True
    metrics: Annotated[bool, Setting("serve /metrics", env=("METRICS_ENABLED",))] = True
    history: Annotated[
        bool, Setting("keep trades, tokens, slots and gaps on disk, and answer for them", env=("HISTORY_ENABLED",))
    ] = True
    transfers: Annotated[
        bool, Setting("publish transfers of tokens in whole transactions", env=("TRANSFERS_ENABLED",))
    ] = False
    broker: Annotated[
        bool | None,
        Setting(
            "share the bus by Redis; unset: on if REDIS_URL is set; on without REDIS_URL: `redis://localhost:6379`",
            env=("MESSAGE_BROKER_ENABLED",),
        ),
    ] = None


CORE_SECTIONS: Final[Mapping[str, type[msgspec.Struct]]] = MappingProxyType(
    {"core": CoreSettings, "features": Features}
)
"""The sections of every process. `service/settings.py` adds the sections of other packages and adapters."""
