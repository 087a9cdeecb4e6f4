"""Who may see what over HTTP: each route that shows a topic or the server's inside asks here first."""

from http import HTTPStatus
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from headrace.gateway.problems import Refused, wrong
from headrace.model import topics
from headrace.model.errors import RequestError

_PERSONAL: Final = frozenset({"user", "orders", "order"})


def check_topic(name: str) -> None:
    """Refuses a topic that can't exist."""
    try:
        topics.parse(name)
    except RequestError as error:
        raise Refused(
            HTTPStatus.NOT_FOUND, error.message, errors=[wrong("topic", "no topic can have this name", name)]
        ) from error


def is_listed(name: str) -> bool:
    """Whether a topic may be named to anyone: those of users and their orders are not."""
    return name.partition(":")[0] not in _PERSONAL


def administrators(_connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """A guard of what is for administrators. Lets everyone in, as this server knows no authentication yet."""
