"""`headrace listen` and `orders` where the server asks who they are, and where its certificate is a private one."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from headrace.cli.access import Access
from headrace.sdk import Client, Refused
from tests.cli.command import Result, Running, run, running
from tests.cli.conftest import Headrace, in_thread
from tests.cli.test_orders import server
from tests.gateway.issuer import HS256, SECRET, token
from tests.gateway.running_gateway import RunningGateway, run_gateway
from tests.gateway.test_tls import write_pair

OTHER: Final = "another-secret-that-is-long-enough-0123456789"
HOW_TO: Final = (Path(__file__).parents[2] / "docs" / "how-to" / "authenticate.md").read_text()
WANTS: Final = "it wants a token: --token-file FILE, or HEADRACE_TOKEN"


def made(sub: str = "42", **more: object) -> str:
    return token(sub, now_s=time.time(), **more)  # type: ignore[arg-type]


def kept(folder: Path, text: str, name: str = "token") -> str:
    file = folder / name
    file.write_text(f"{text}\n")
    return str(file)


def arguments_of(command: Running) -> str:
    """What everybody on the machine can read of a process."""
    return Path(f"/proc/{command.process.pid}/cmdline").read_text()


@asynccontextmanager
async def listening(folder: Path, gateway: RunningGateway, *words: str, **env: str) -> AsyncIterator[Running]:
    url = f"ws://127.0.0.1:{gateway.port}/ws"
    async with running(folder, "listen", *words, "--url", url, **env) as command:
        yield command


async def listened(
    headrace: Headrace, gateway: RunningGateway, shown: str | None, *words: str, query: str = ""
) -> Result:
    """How `headrace listen` ends with this token."""
    more = [] if shown is None else ["--token-file", kept(Path.cwd(), shown)]
    return await in_thread(headrace, "listen", *words, "--url", f"ws://127.0.0.1:{gateway.port}/ws{query}", *more)


async def hears(command: Running, gateway: RunningGateway) -> None:
    """It is subscribed, and gets what comes."""
    await gateway.subscriptions(1)
    async with asyncio.timeout(20):
        while not command.out:
            await gateway.publish("trades:pump")
            await asyncio.sleep(0.01)


async def test_listen_shows_the_token_of_a_file_or_of_the_environment(tmp_path: Path) -> None:
    async with run_gateway(auth=HS256) as gateway:
        async with listening(tmp_path, gateway, "trades:pump", "--token-file", kept(tmp_path, made())) as command:
            await hears(command, gateway)
            assert made()[:20] not in arguments_of(command)
        assert command.err == []
        await gateway.subscriptions(0)
        async with listening(tmp_path, gateway, "trades:pump", HEADRACE_TOKEN=made()) as command:
            await hears(command, gateway)
        assert command.err == []


async def test_a_token_that_was_renewed_in_the_file_is_shown_next(tmp_path: Path) -> None:
    settings = HS256.__class__(mode="hs256", jwt_secret=SECRET, leeway_s=0, grace_s=0.1)
    async with run_gateway(auth=settings) as gateway:
        file = kept(tmp_path, made(ttl_s=-100))
        async with listening(tmp_path, gateway, "trades:pump", "--token-file", file) as command:
            await command.says("token expired; trying again until it is there")
            kept(tmp_path, made())
            await hears(command, gateway)


@pytest.mark.parametrize(
    ("words", "shown", "said"),
    [
        (
            ["slots"],
            made("42", key=OTHER),
            "bad token (101); it does not take this token: it was made for another server, or cut off",
        ),
        (["slots"], made("42", ttl_s=-100), "token expired (4005); get a newer token"),
        (["slots"], made("42", topics=[]), "slots: permission denied (103); this token does not allow it"),
        (["order:x"], made("42"), "order:x: permission denied (103); this token does not allow it"),
    ],
)
async def test_listen_says_what_is_wrong_with_a_token(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch, words: list[str], shown: str, said: str
) -> None:
    monkeypatch.setenv("HEADRACE_TOKEN", shown)  # one in a file may be renewed, so then it would wait for that
    async with run_gateway(auth=HS256) as gateway, asyncio.timeout(20):
        result = await listened(headrace, gateway, None, *words)
    assert (result.status, result.out) == (1, "")
    assert f"headrace: the server refused: {said}" in result.err
    assert shown not in result.err


async def test_listen_as_another_user_or_without_a_token_or_with_one_that_nobody_checks(headrace: Headrace) -> None:
    impatient = HS256.__class__(mode="hs256", jwt_secret=SECRET, connect_s=0.2)
    async with run_gateway(auth=impatient) as gateway:
        result = await listened(headrace, gateway, None, "slots")
        said = f"headrace: the server refused: authentication timed out (4002); {WANTS}"
        assert (result.status, result.err.splitlines()[-1]) == (1, said)
        result = await listened(headrace, gateway, made("42"), "slots", query="?user_id=43")
        said = "headrace: the server refused: denied (4507); it is not for the user of this token"
        assert (result.status, result.err.splitlines()[-1]) == (1, said)
    async with run_gateway() as gateway:
        result = await listened(headrace, gateway, made(), "slots")
        assert "authentication is off on this server (401)" in result.err


async def test_orders_of_the_bearer(headrace: Headrace, tmp_path: Path) -> None:
    async def orders(verb: str, shown: str | None, *words: str) -> Result:
        more = [] if shown is None else ["--token-file", kept(tmp_path, shown)]
        return await in_thread(headrace, "orders", verb, *words, "--url", url, *more)

    async with server(tmp_path, AUTH_MODE="hs256", JWT_SECRET=SECRET) as (_, url):
        ann, bob = made("ann"), made("bob")
        placed = await orders("place", ann, "SOL", "USDC", "1.5", "--watch")
        assert placed.status == 0, placed.err
        order, *updates = placed.out.splitlines()
        assert order in (await orders("list", ann)).out
        assert (await orders("events", ann, order)).out.splitlines() == updates
        for verb, *words in (["list"], ["place", "SOL", "USDC", "1"], ["cancel", order], ["watch", order]):
            nobody = await orders(verb, None, *words)
            assert (nobody.status, nobody.out) == (1, "")
            assert "401" in nobody.err
            assert nobody.err.endswith(f"; {WANTS}\n")
        for shown, verb, word, said in (
            (bob, "watch", order, "the server refused: no such order"),
            (made("ann", key=OTHER), "watch", order, "the server refused: bad token; it does not take this token"),
            (made("ann", ttl_s=-100), "watch", order, "the server refused: token expired; get a newer token"),
            (bob, "cancel", order, "404 no such order"),
            (bob, "list", "--user=ann", "403 you may act for yourself only; this token does not allow it"),
        ):
            refused = await orders(verb, shown, word)
            assert (refused.status, refused.out) == (1, "")
            assert f"headrace: {said}" in refused.err


@pytest.mark.parametrize("command", [["listen", "slots"], ["orders", "list"]])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "nothing, expected a token"),
        ("two words", "what is no token"),
        ("a.b.c\r\nX: y", "what is no token"),
        ("é.b.c", "what is no token"),
        ("x" * 20_000, "what is no token"),
        (None, "a file to read (No such file or directory)"),
    ],
)
def test_what_is_no_token(headrace: Headrace, tmp_path: Path, command: list[str], given: str | None, said: str) -> None:
    file = str(tmp_path / "nowhere") if given is None else kept(tmp_path, given)
    result = headrace(*command, "--token-file", file)
    assert (result.status, result.out) == (2, "")
    assert said in result.err
    assert not given or given[:9] not in result.err


def test_a_token_in_the_environment_keeps_no_server_from_starting(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_TOKEN", "a.b.c")
    result = headrace("config")
    assert (result.status, "a.b.c" in result.out) == (0, False)


def test_a_token_that_others_could_read_on_its_way_is_said_to_be_so(capsys: pytest.CaptureFixture[str]) -> None:
    for url in ("ws://127.0.0.1/ws", "http://localhost:1", "ws://[::1]/ws", "wss://stream.example/ws"):
        Access(text="a.b.c").warn(url)
    Access().warn("ws://stream.example/ws")
    assert capsys.readouterr().err == ""
    Access(text="a.b.c").warn("ws://stream.example/ws")
    assert capsys.readouterr().err == "headrace: the token goes to stream.example unencrypted, as the URL is no TLS\n"


@pytest.mark.parametrize("by", ["--ca-file", "SSL_CERT_FILE"])
async def test_a_private_authority(
    headrace: Headrace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    pair = write_pair(tmp_path, "private")
    tls = {"TLS_CERT_FILE": pair.cert_file, "TLS_KEY_FILE": pair.key_file}
    async with server(tmp_path, **tls) as (_, url):
        there = url.replace("127.0.0.1", "localhost")
        place = ("orders", "place", "SOL", "USDC", "1", "--user", "ann", "--url", there)
        refused = await in_thread(headrace, *place)
        assert (refused.status, refused.err.endswith("; --ca-file FILE names whom to trust\n")) == (1, True), refused
        more = ("--ca-file", pair.cert_file) if by == "--ca-file" else ()
        env = {} if more else {by: pair.cert_file}
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        listen = ("listen", "orders:ann", "--url", f"ws{there[4:]}/ws", "--count", "1")
        async with running(tmp_path, *listen, *more, **env) as command:
            async with asyncio.timeout(20):
                while command.process.returncode is None:
                    assert (await in_thread(headrace, *place, *more, "--watch")).status == 0
            result = await command.end()
        assert (result.status, "orders:ann" in result.out) == (0, True), result.err
        if more:
            ended = await run(tmp_path, *listen)
            assert (ended.status, ended.out) == (1, "")
            assert re.search("CERTIFICATE_VERIFY_FAILED.*; --ca-file FILE names whom to trust$", ended.err)
            elsewhere = ("listen", "slots", "--url", f"ws{url[4:]}/ws", *more)  # no certificate for this name
            ended = await run(tmp_path, *elsewhere)
            assert (ended.status, "CERTIFICATE_VERIFY_FAILED" in ended.err) == (1, True), ended


@pytest.mark.parametrize("command", [["listen", "slots"], ["orders", "list"]])
def test_certificates_that_are_none(headrace: Headrace, tmp_path: Path, command: list[str]) -> None:
    scheme = "wss" if command[0] == "listen" else "https"
    (tmp_path / "empty.pem").write_text("no certificate")
    for file in ("empty.pem", "nowhere.pem"):
        result = headrace(*command, "--url", f"{scheme}://localhost:9", "--ca-file", file)
        assert (result.status, result.out) == (2, "")
        assert f"--ca-file: got {file}, expected a PEM file with certificates (" in result.err
    result = headrace(*command, "--ca-file", "empty.pem")
    assert "--ca-file: got empty.pem, expected an https:// or wss:// --url" in result.err


@pytest.mark.parametrize("token", [made(), None], ids=["token", "none"])
async def test_a_redirect_to_another_server_is_a_refusal(token: str | None) -> None:
    heard: list[bytes] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:%d/ws\r\nContent-Length: 0\r\n\r\n" % other)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(elsewhere, "127.0.0.1", 0) as thief:
        other = thief.sockets[0].getsockname()[1]
        async with await asyncio.start_server(redirect, "127.0.0.1", 0) as server_there:
            url = f"ws://127.0.0.1:{server_there.sockets[0].getsockname()[1]}/ws"
            async with asyncio.timeout(10), Client(url, token=token) as client:
                with pytest.raises(Refused, match=r"HTTP Found \(302\)"):
                    await anext(client.subscribe("slots"))
    assert heard == []


async def test_the_how_to_page(headrace: Headrace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands as they stand, against a server of their own."""
    mint, listen, orders = re.findall(r"^headrace .*token\.txt$", HOW_TO, re.MULTILINE)
    secret = re.findall(r"AUTH_MODE=hs256 JWT_SECRET=(\S+) headrace serve", HOW_TO)[0]
    async with server(tmp_path, AUTH_MODE="hs256", JWT_SECRET=secret) as (_, url):
        monkeypatch.setenv("AUTH_MODE", "hs256")
        monkeypatch.setenv("JWT_SECRET", secret)
        words, file = mint.split(" > ")
        minted = await in_thread(headrace, *words.split()[1:])
        kept(tmp_path, minted.out, file)
        listed = await in_thread(headrace, *orders.split()[1:], "--url", url)
        assert (listed.status, listed.out.split()[0]) == (0, "ORDER"), listed.err
        words, topic = listen.split()[1:], "orders:42"
        words[1] = topic  # which can be brought about here
        async with running(tmp_path, *words, "--url", f"ws{url[4:]}/ws", "--count", "1") as command:
            async with asyncio.timeout(20):
                while command.process.returncode is None:
                    place = ("orders", "place", "SOL", "USDC", "1", "--token-file", file, "--url", url, "--watch")
                    assert (await in_thread(headrace, *place)).status == 0
            result = await command.end()
        assert (result.status, topic in result.out) == (0, True), result.err
