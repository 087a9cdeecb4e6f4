"""Which topics there are to ask for over HTTP, and which are named to anyone; who may read them is said by guards."""

from http import HTTPStatus

from headrace.gateway.problems import Refused, wrong
from headrace.model import topics
from headrace.model.errors import RequestError
from headrace.model.identity import OF_AN_OWNER


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
    return name.partition(":")[0] not in OF_AN_OWNER
