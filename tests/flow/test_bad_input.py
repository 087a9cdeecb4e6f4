"""What clients send by mistake or malice: it is refused, or taken as the text that it is, and changes nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.model.errors import ConfigError
from headrace.orders.limits import AmountLimits
from tests.flow.desk import BODY, KEY, Desk, ask, desk

FIELDS = [
    "tokenIn", "tokenOut", "amount", "uiAmount", "slippage", "slippageBps", "type", "minOut", "priority", "expiresAt",
    "userId", "clientOrderId", "execution", "limitPrice", "limitRate", "stopPrice", "stopRate",
]  # fmt: skip
SQL = [
    "' or 1=1 --",
    "'; drop table orders; --",
    '" union select * from orders --',
    "\\'; delete from orders; --",
    "%00",
]
TRICKS = [
    "a\u202eb", "a\u200bb", "\u0430nn", "ann\u0301", "\uff41nn", "a\x00b", "a\nb", "", "x" * 129, "\u0661",
]  # fmt: skip
HUGE: list[Any] = [2**64, 2**63, 10**30, 1e308, 1e300, "9" * 21, "9" * 5000, -1, "-1", -(2**63), "0", 0]
FRACTIONS: list[Any] = ["1.5", "1e3", "0x10", "1_000", " 1", "1 ", "+1", "٣", "½", "1,5"]
NO_NUMBERS: list[Any] = [
    "1_0",
    " 1.5",
    "1.5\n",
    "+1",
    "1.",
    ".5",
    "１.５",
    "٣",
    "½",
    "1,5",
    "0x10",
    "NaN",
    "Infinity",
    True,
    [],
]


async def untouched(client: Desk, order_id: str) -> None:
    """The one order that there was is there, alone."""
    page = (await client.http.get("/api/orders")).json()
    assert [order["orderId"] for order in page["orders"]] == [order_id]


async def refused(client: Desk, body: dict[str, Any], *fields: str) -> None:
    answer = await client.post({name: value for name, value in body.items() if value is not ...})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["fate"]) == (400, "invalid_order", "not_executed"), body
    named = {wrong["name"] for wrong in problem["errors"]}
    assert named & set(fields), (body, named)


async def test_sql_in_every_field_and_path_and_query(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client:
        order_id = await client.place()
        for sql in SQL:
            await _try_sql(client, sql, order_id)
        for number, sql in enumerate(SQL, 2):
            mine = await client.post({**BODY, "clientOrderId": sql}, **{"Idempotency-Key": sql})
            assert (mine.status_code, mine.json()["clientOrderId"]) == (201, sql)
            assert (await client.post({**BODY, "clientOrderId": sql})).json() == mine.json()
            assert len((await client.http.get("/api/orders")).json()["orders"]) == number
        for sql in SQL:
            theirs = await client.place(userId=sql)
            listed = (await client.http.get("/api/orders", params={"user": sql})).json()["orders"]
            assert [order["orderId"] for order in listed] == [theirs]


async def _try_sql(client: Desk, sql: str, order_id: str) -> None:
    """Wherever text is read."""
    for field in FIELDS:
        if field not in ("clientOrderId", "userId"):
            twice = {"uiAmount": "amount", "slippageBps": "slippage"}  # BODY gives these already
            await refused(client, {**BODY, field: sql}, twice.get(field, field))
    for name in ("user", "status", "mint", "cursor"):
        answer = await client.http.get("/api/orders", params={name: sql})
        assert answer.status_code in (200, 400)
        if name in ("user", "cursor") and answer.status_code == 200:
            assert name == "cursor" or answer.json()["orders"] == []
    for path in ("{}", "{}/events", "{}/stream"):
        answer = await client.http.get("/api/orders/" + path.format(sql.replace("/", "").replace("%", "%25")))
        assert answer.status_code in (404, 426)
    assert (await client.http.get("/api/portfolio", params={"user": sql})).json()["fills"] == 0
    await untouched(client, order_id)


async def test_unicode_tricks_in_ids(tmp_path: Path) -> None:
    quick = {"ORDERS_WORK_HERE": "false", "WEBSOCKET_COMMANDS_PER_S": "100"}
    async with desk(tmp_path, **quick) as client, client.connect() as socket:
        order_id = await client.place(userId="ann")
        for trick in TRICKS:
            await refused(client, {**BODY, "userId": trick}, "userId")
            await refused(client, {**BODY, "clientOrderId": trick}, "clientOrderId")
            for kind in ("order.get", "order.cancel"):
                unknown = await ask(socket, kind, {"orderId": trick})
                assert unknown["data"]["reason"] == "unknown_order"
            portfolio = await client.http.get("/api/portfolio", params={"user": trick})
            assert portfolio.status_code == 400
            listed = await client.http.get("/api/orders", params={"user": trick})
            assert listed.json().get("orders", []) == []
        await untouched(client, order_id)


async def test_numbers_that_are_none_and_numbers_beyond_all_bounds(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client:
        order_id = await client.place()
        for value in HUGE:
            await refused(client, {**BODY, "amount": value}, "amount")
            await refused(client, {**BODY, "amount": ..., "uiAmount": value}, "uiAmount")
            await refused(client, {**BODY, "minOut": value}, "minOut")
            if value not in (0, "0"):
                await refused(client, {**BODY, "priority": value}, "priority")
                await refused(client, {**BODY, "slippageBps": value, "slippage": ...}, "slippageBps")
            if value not in (2**63, 2**64, 10**30):  # as a price of whole tokens these could be
                await refused(client, {**BODY, "type": "limit", "limitPrice": value}, "limitPrice")
        for value in FRACTIONS:
            await refused(client, {**BODY, "amount": value}, "amount")
            await refused(client, {**BODY, "minOut": value}, "minOut")
            await refused(client, {**BODY, "type": "stop", "stopRate": value}, "stopRate")
        for value in NO_NUMBERS:
            await refused(client, {**BODY, "amount": ..., "uiAmount": value}, "uiAmount")
            await refused(client, {**BODY, "type": "limit", "limitPrice": value}, "limitPrice")
        await refused(client, {**BODY, "amount": ..., "uiAmount": "0.0000000001"}, "uiAmount")
        await untouched(client, order_id)


async def test_a_fault_has_the_name_of_the_field_that_was_given_over_both_ways(tmp_path: Path) -> None:
    wrong = [("uiAmount", "amount", 0), ("slippageBps", "slippage", 10_001)]
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client, client.connect() as socket:
        for name, other, value in wrong:
            body = {**BODY, other: None, name: value}
            await refused(client, body, name)
            frame = await ask(socket, "order.execute", body)
            assert [each["name"] for each in frame["data"]["errors"]] == [name]


async def test_limits_of_amount_and_user_are_kept(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false", ORDER_AMOUNT_MAX="2000000000", ORDERS_PER_USER="2") as client:
        await refused(client, {**BODY, "amount": 2.000000001}, "amount")
        assert [(await client.post({**BODY, "userId": "ann"})).status_code for _ in range(3)] == [201, 201, 429]
        over = await client.post({**BODY, "userId": "ann"})
        problem = over.json()
        assert (problem["code"], problem["retryable"], problem["fate"]) == ("rate_limited", True, "not_executed")
        assert 0 < problem["retryAfterMs"] <= 30_000
        assert int(over.headers["Retry-After"]) >= 1
        assert (await client.post({**BODY, "userId": "bob"})).status_code == 201


async def test_amounts_have_limits_by_token_and_user(tmp_path: Path) -> None:
    limits = "SOL=2000000000,ann:SOL=3000000000,auth0|a=b:SOL=7:SOL=4000000000,bob:SOL=0,USDC=1"
    async with desk(tmp_path, ORDERS_WORK_HERE="false", ORDER_AMOUNT_LIMITS=limits) as client:
        for user, most in (("eve", 2), ("ann", 3), ("auth0|a=b:SOL=7", 4)):
            assert await client.place(userId=user, amount=most)
            await refused(client, {**BODY, "userId": user, "amount": most + 0.000000001}, "amount")
        await refused(client, {**BODY, "userId": "bob", "amount": "1"}, "amount")
        await refused(client, {**BODY, "userId": "bob", "amount": ..., "uiAmount": "1"}, "uiAmount")
        await refused(client, {**BODY, "tokenIn": "USDC", "tokenOut": "SOL", "amount": "2"}, "amount")
        assert await client.place(tokenIn="USDT", amount="999")


async def test_resting_orders_of_a_user_have_a_limit(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false", RESTING_ORDERS_PER_USER="2") as client:
        body = {**BODY, "type": "limit", "limitPrice": "100", "slippage": None, "userId": "ann"}
        assert [(await client.post(body)).status_code for _ in range(3)] == [201, 201, 409]
        problem = (await client.post(body)).json()
        assert (problem["code"], problem["fate"], problem["retryable"]) == ("too_many_resting", "not_executed", False)
        assert (await client.post({**body, "userId": "bob"})).status_code == 201
        assert (await client.post({**BODY, "userId": "ann"})).status_code == 201


async def test_resting_orders_of_all_users_have_a_limit(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false", RESTING_ORDERS="2") as client:
        body = {**BODY, "type": "limit", "limitPrice": "100", "slippage": None}
        answers = [await client.post({**body, "userId": user}) for user in ("ann", "bob", "eve")]
        assert [answer.status_code for answer in answers] == [201, 201, 503]
        problem = answers[-1].json()
        assert (problem["code"], problem["fate"]) == ("too_many_resting_in_all", "not_executed")
        assert (problem["retryable"], problem["retryAfterMs"], answers[-1].headers["Retry-After"]) == (
            True,
            60_000,
            "60",
        )
        assert (await client.post({**BODY, "userId": "eve"})).status_code == 201


@pytest.mark.parametrize("text", ["SOL", "SOL=", "SOL=1.5", "SOL=-1", "nothing=1", "é:SOL=1", "=1", "SOL=١"])
def test_limits_that_can_not_be_read_are_refused_at_the_start(text: str) -> None:
    with pytest.raises(ConfigError, match="ORDER_AMOUNT_LIMITS"):
        AmountLimits.parse([text])


async def test_mints(tmp_path: Path) -> None:
    """Any valid key is a mint; of one that nobody knows here, base units are the only amount."""
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client:
        assert await client.place(tokenIn=KEY, amount="5")
        await refused(client, {**BODY, "tokenIn": KEY}, "amount")
        for mint in (KEY[:-1], KEY + "1", KEY.replace("4", "0"), KEY.replace("4", "l"), "sol", "1" * 44, "", None, 7):
            await refused(client, {**BODY, "tokenIn": mint}, "tokenIn")
        wrapped = "So11111111111111111111111111111111111111112"
        await refused(client, {**BODY, "tokenOut": wrapped}, "tokenOut")


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (json.dumps({"a": {"b": 1}})[:-2] + ',"b":2}}', "application/json", 400, "malformed_json"),
        (json.dumps(BODY)[:-1] + ',"tokenIn":"USDC"}', "application/json", 400, "malformed_json"),
        (json.dumps(BODY)[:-1] + ',"token\\u0049n":"USDC"}', "application/json", 400, "malformed_json"),
        (json.dumps(BODY), "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (json.dumps(BODY), "", 415, "unsupported_media_type"),
        (json.dumps(BODY), "application/jsonp", 415, "unsupported_media_type"),
        (json.dumps(BODY) + "x", "application/json", 400, "malformed_json"),
        ("\ufeff" + json.dumps(BODY), "application/json", 400, "malformed_json"),
        ('{"a":' * 12_000, "application/json", 400, "malformed_json"),
        ('{"amount":' + "1" * 60_000 + "}", "application/json", 400, "malformed_json"),
        (" " * 66_000, "application/json", 413, None),
    ],
)
async def test_bodies_that_are_no_order(
    tmp_path: Path, body: str, content_type: str, status: int, code: str | None
) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client:
        order_id = await client.place()
        headers = {"content-type": content_type} if content_type else {}
        answer = await client.http.post("/api/orders/execute", content=body.encode(), headers=headers)
        assert (answer.status_code, answer.json().get("code")) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        await untouched(client, order_id)
