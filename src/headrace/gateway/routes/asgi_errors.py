"""What is read and answered below the framework, where no handler has been looked for yet."""

from collections.abc import Iterable
from typing import TypeAlias

from litestar.types import Scope, Send

from headrace.gateway.door.admission import Admission
from headrace.gateway.problems import PROBLEM_TYPE, Refused, problem

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]


def values(scope: Scope, name: bytes) -> list[str]:
    """All that a request says under this header; `name` in small letters."""
    return [value.decode("latin-1") for key, value in scope.get("headers", ()) if key == name]


def address_of(scope: Scope, admission: Admission) -> str:
    """Whom limits for one address hold to account."""
    client = scope["client"]
    return admission.address_of(client[0] if client else "", values(scope, b"x-forwarded-for"))


async def refuse(send: Send, refused: Refused) -> None:
    """Answer with the problem."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in refused.headers.items()]
    await answer(send, refused.status, problem(refused.status, refused.detail), headers)


async def answer(send: Send, status: int, body: bytes, headers: Headers = ()) -> None:
    """`body` is a problem, or empty."""
    kind = [(b"content-type", PROBLEM_TYPE.encode()), (b"content-length", str(len(body)).encode())] if body else []
    await send({"type": "http.response.start", "status": status, "headers": [*kind, *headers]})
    await send({"type": "http.response.body", "body": body, "more_body": False})
