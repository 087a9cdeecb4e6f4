"""The OpenAPI document is whole: every route is in it, each with what it is, takes, answers and refuses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from headrace.gateway.problems import PROBLEM_TYPE
from headrace.ingest.bodies import slot_body
from headrace.model.events import Publication
from tests.flow.desk import desk
from tests.gateway.running_gateway import RunningGateway, join, run_gateway

NOT_TOLD = {
    "/": "a page",
    "/dashboard.css": "a page's",
    "/dashboard.js": "a page's",
    "/icon.svg": "a page's",
    "/client/headrace.js": "a program",
    "/client/subscription.js": "a part of it",
    "/schema": "the document itself",
    "/schema/asyncapi.json": "a document",
    "/ws": "AsyncAPI tells it",
    "/api/orders/{order_id}/stream": "AsyncAPI tells it",
}


@pytest.fixture
async def document(tmp_path: Path) -> dict[str, Any]:
    """Of a server with everything switched on."""
    async with desk(tmp_path) as client:
        found: dict[str, Any] = (await client.http.get("/schema")).json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            yield f"{verb} {path}", operation


async def test_every_operation_is_described_completely(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(names) == len(set(names)) >= 14
    for which, operation in operations(document):
        assert operation["operationId"].isalnum(), which
        assert operation["operationId"][0].islower(), which  # one of ours, not made up from the path
        assert operation["summary"], which
        assert len(operation.get("description") or "") > 10, which
        assert operation["tags"], which
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], (which, parameter)
            assert parameter["schema"], (which, parameter)
        (problem,) = operation["responses"]["default"]["content"]
        assert problem == PROBLEM_TYPE
        for status, response in operation["responses"].items():
            assert response["description"], (which, status)
            if status == "304":
                assert "content" not in response
                continue
            (content,) = response["content"].values()
            assert content["schema"], (which, status)
            if status.startswith(("4", "5")) and status != "503":
                assert list(response["content"]) == [PROBLEM_TYPE], (which, status)


async def test_patterns_are_those_of_json_schema(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    assert '"pattern"' in text
    assert not any(json.dumps(anchor)[1:-1] in text for anchor in (r"\A", r"\Z"))  # Python's


async def test_refusals_are_described(document: dict[str, Any]) -> None:
    refusals = {
        "/api/topics": {"400", "503"},
        "/api/topics/{topic}/history": {"400", "404", "410", "503"},
        "/api/topics/{topic}/sse": {"400", "404", "429", "503"},
    }
    for path, statuses in refusals.items():
        assert set(document["paths"][path]["get"]["responses"]) == {"200", "401", "429", "default", *statuses}


async def test_every_route_is_described(tmp_path: Path, document: dict[str, Any]) -> None:
    """A route that is neither in the document nor on the list above is found."""
    async with desk(tmp_path) as client:
        assert client.service.gateway is not None
        application: Any = client.service.gateway._http.app
        while not hasattr(application, "routes"):
            application = application._app
        routes = {route.path_format for route in application.routes}
    assert routes == {*document["paths"], *NOT_TOLD}


def checked(document: dict[str, Any], path: str, response: httpx.Response) -> Any:
    """The body of an answer, which is as the document says."""
    told = document["paths"][path]["get"]["responses"]
    content = told.get(str(response.status_code), told["default"])["content"]
    media_type = response.headers["content-type"].partition(";")[0]
    whole = {**content[media_type]["schema"], "components": document["components"]}
    jsonschema.Draft202012Validator(whole).validate(response.json())
    return response.json()


async def ask(running: RunningGateway, document: dict[str, Any], path: str, query: str = "", topic: str = "") -> Any:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", verify=False) as http:
        return checked(document, path, await http.get(path.replace("{topic}", topic) + query))


async def test_real_answers_match_their_schemas(document: dict[str, Any]) -> None:
    history = "/api/topics/{topic}/history"
    async with run_gateway() as running:
        await running.bus.publish([Publication.on("slots", "event", slot_body(7, "confirmed", 6, "a"))] * 3)
        raw = await join(running, "/ws?subscriptions=slots")
        for path in ("/health/live", "/health/ready", "/api/info", "/api/ws/connections", "/api/topics"):
            assert await ask(running, document, path), path
        assert (await ask(running, document, "/api/topics", "?limit=1"))["total"] == 1
        assert (await ask(running, document, "/api/topics", "?limit=0"))["status"] == 400
        assert len((await ask(running, document, history, topic="slots"))["items"]) == 3
        assert (await ask(running, document, history, "?limit=1", "slots"))["next"]
        assert (await ask(running, document, history, "?epoch=x&offset=1", "slots"))["newest"]["offset"] == "3"
        assert (await ask(running, document, history, topic="nope"))["status"] == 404
        raw.leave()


async def test_a_wrong_answer_is_detected(document: dict[str, Any]) -> None:
    """Else the test above proves nothing."""
    document["components"]["schemas"]["TopicList"]["properties"]["total"] = {"type": "string"}
    async with run_gateway() as running:
        with pytest.raises(jsonschema.ValidationError):
            await ask(running, document, "/api/topics")
