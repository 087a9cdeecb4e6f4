"""Structured logs without secrets: constant event name plus fields, as JSON for machines or columns for a terminal."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal, TypeAlias

import structlog

from headrace.model.redact import redact as redact  # packages above import it from here
from headrace.model.redact import redact_value

LogFormat: TypeAlias = Literal["json", "console"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_level = logging.INFO
_processors: list[Any] = []


def configure(level: LogLevel = "info", fmt: LogFormat = "console") -> None:
    """Set up logging to stderr for the process. A later call also changes all existing loggers.

    Warnings of libraries that use the standard `logging` are written in the same form, and redacted too.
    """
    set_level(level)
    # The list is changed in place, because cached loggers refer to this list.
    _processors[:] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _add_room,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _hide_secrets,
        structlog.processors.JSONRenderer() if fmt == "json" else structlog.dev.ConsoleRenderer(colors=_is_terminal()),
    ]
    structlog.configure(
        processors=_processors, wrapper_class=_Logger, logger_factory=_Stderr, cache_logger_on_first_use=True
    )
    root = logging.getLogger()
    if not any(isinstance(handler, _FromLibraries) for handler in root.handlers):
        root.addHandler(_FromLibraries(logging.WARNING))


def set_level(level: LogLevel) -> None:
    """Change the level of all loggers at once."""
    global _level
    _level = LEVELS[level]


class _Logger(structlog.BoundLoggerBase):
    """Logger that checks the level first, so that a filtered call builds no event."""

    def debug(self, event: str, **fields: Any) -> None:
        if _level <= logging.DEBUG:
            self._proxy_to_logger("debug", event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        if _level <= logging.INFO:
            self._proxy_to_logger("info", event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        if _level <= logging.WARNING:
            self._proxy_to_logger("warning", event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        self._proxy_to_logger("error", event, **fields)

    critical = error

    def exception(self, event: str, **fields: Any) -> None:
        self._proxy_to_logger("error", event, **{"exc_info": True, **fields})


class _Stderr:
    """Writes rendered lines to the current `sys.stderr`."""

    def __init__(self, room: str = "") -> None:
        self.room = room

    def write(self, line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    debug = info = warning = error = write


class _FromLibraries(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        method = "error" if record.levelno >= logging.ERROR else "warning"
        log = structlog.get_logger(record.name)
        getattr(log, method)("library_message", text=record.getMessage(), exc_info=record.exc_info)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _add_room(logger: _Stderr, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if logger.room:
        event["room"] = logger.room
    return event


def _hide_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        event[key] = redact_value(value, key)
    return event
