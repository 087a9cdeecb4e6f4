"""`headrace history`: what happened, printed for people and as JSON."""

import json
from pathlib import Path

from tests.cli.conftest import Headrace, in_thread
from tests.flow.test_history import MINUTE_S, told
from tests.history_facts import key, signature


async def test_the_past_is_printed_as_tables_and_as_json(headrace: Headrace, tmp_path: Path) -> None:
    async with told(tmp_path) as client:
        url = ("--url", str(client.http.base_url))
        shown = await in_thread(headrace, "history", "trades", "--mint", key("M"), "--limit", "3", "--json", *url)
        trades = [json.loads(line) for line in shown.out.splitlines()]
        assert [item["signature"] for item in trades] == [signature(f"{n}") for n in (3, 2, 1)]
        shown = await in_thread(headrace, "history", "trades", "--from", str(MINUTE_S + 60), *url)
        lines = shown.out.splitlines()
        assert lines[0].split()[:3] == ["TIME", "SLOT", "SIDE"]
        assert [line.split()[:5] for line in lines[1:]] == [
            ["2026-09-21T14:15:30Z", "10", "buy", "2000", "4000"],
            ["2026-09-21T14:15:00Z", "9", "buy", "2000", "3000"],
        ]
        shown = await in_thread(headrace, "history", "candles", key("M"), "--interval", "1h", *url)
        assert shown.out.splitlines()[1].split()[1:] == ["0.0005", "0.002", "0.0005", "0.002", "8000", "10000", "4"]
        shown = await in_thread(headrace, "history", "tokens", *url)
        assert shown.out.splitlines()[1].split()[1:3] == [key("M"), "M"]
        shown = await in_thread(headrace, "history", "gaps", "--to", "8", *url)
        assert shown.out.splitlines()[1].split() == ["8", "9", "unrecoverable", "logs:P", "lost"]
        shown = await in_thread(headrace, "history", "slots", "--from", "8", "--limit", "1", *url)
        assert shown.out.splitlines()[1].split() == ["11", "dead", "fork"]
        refused = await in_thread(headrace, "history", "trades", "--from", "2", "--to", "1", *url)
        assert (refused.status, refused.out) == (1, "")
        assert "from is after `to`" in refused.err
