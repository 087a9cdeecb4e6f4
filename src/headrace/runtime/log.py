"""Structured logs: one constant event name plus fields, JSON for machines or columns for a terminal, no secrets."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal, TypeAlias

import structlog

LogFormat: TypeAlias = Literal["json", "console"]
LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_SECRET_KEYS: Final = re.compile(
    r"token|secret|password|passwd|authorization|api[-_]?key|private|credential|ticket", re.I
)
_URL_SECRETS: Final = re.compile(
    r"(\w+://)[^\s/@]*@|([?&][^=\s&]*(?:key|token|secret|auth|password)[^=\s&]*=)[^&\s\"']*", re.I
)
_URL_PATH_KEY: Final = re.compile(r"(\w+://[^\s/]+/)(?:[^\s?\"']*/)?[A-Za-z0-9_-]{20,}")

_level = logging.INFO


def redact(text: str) -> str:
    """`text` with passwords, keys in queries and key-like path parts of URLs replaced by `***`."""
    text = _URL_SECRETS.sub(lambda m: f"{m[1]}***@" if m[1] else f"{m[2]}***", text)
    return _URL_PATH_KEY.sub(r"\1***", text)


def configure(level: str = "info", fmt: LogFormat = "console") -> None:
    """Set up logging to stderr for the process; `level` may be changed later with `set_level`."""
    set_level(level)
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if fmt == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    processors: list[Any] = [
        _filter_level,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _hide_secrets,
        renderer,
    ]
    structlog.configure(
        processors=processors, logger_factory=structlog.PrintLoggerFactory(sys.stderr), cache_logger_on_first_use=False
    )


def set_level(level: str) -> None:
    """Change the level of all loggers at once: debug, info, warning or error."""
    global _level
    _level = LEVELS[level]


def _filter_level(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if LEVELS.get(method, logging.ERROR) < _level:
        raise structlog.DropEvent
    return event


def _hide_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if _SECRET_KEYS.search(key) and not key.endswith(("_id", "_mint")):
            event[key] = "***"
        elif isinstance(value, str):
            event[key] = redact(value)
    return event
