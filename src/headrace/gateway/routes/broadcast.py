"""`POST /api/ws/broadcast`, with which applications send messages."""

from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import Request, post

from headrace.gateway.broadcasts import Broadcast, BroadcastAnswer
from headrace.gateway.problems import Refused
from headrace.gateway.routes import guards
from headrace.gateway.routes.context import context_of
from headrace.gateway.routes.schema_parts import problems


@post(
    "/api/ws/broadcast",
    operation_id="broadcast",
    summary="Send a message to a topic, to users, or to everyone",
    tags=["server"],
    status_code=HTTPStatus.OK,
    guards=[guards.admin_only],
    responses=problems(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.CONFLICT,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def broadcast(request: Request[Any, Any, Any]) -> BroadcastAnswer:
    """Send a message. With an `idempotency_key`, a repeat within a day gets the first answer and sends nothing.

    Another message under the same key is refused with 422; a key whose message is still being sent, with 409.
    """
    # With any other content type, a page of another origin could send JSON without a preflight.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
    return await context_of(request).broadcasts.send(_read(await request.body()))


def _read(body: bytes) -> Broadcast:
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:  # the text names members and types, never values
        raise Refused(HTTPStatus.BAD_REQUEST, f"no broadcast: {error}") from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refused(HTTPStatus.BAD_REQUEST, "not JSON") from error


_decoder: Final = msgspec.json.Decoder(Broadcast)

BODIES: Final = {"/api/ws/broadcast": Broadcast}
"""Path → shape of its body, for the OpenAPI document."""

HANDLERS: Final = (broadcast,)
