"""TLS on a real socket with a real certificate: exchanged, broken, too old a version, and never-ending handshakes."""

import asyncio
import contextlib
import datetime
import socket
import ssl
from pathlib import Path
from typing import cast

import pytest
import uvloop
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headrace.gateway.settings import AdmissionSettings, TlsSettings
from headrace.gateway.transports.tls import Certificate
from headrace.model.errors import ConfigError
from tests.gateway.running_gateway import Raw, RunningGateway, run_gateway


def write_pair(folder: Path, name: str, *, of_another_key: bool = False) -> TlsSettings:
    """A self-signed certificate for localhost with `name` in it, and its key (or not its key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    settings = TlsSettings(cert_file=str(folder / "cert.pem"), key_file=str(folder / "key.pem"))
    if of_another_key:
        key = ec.generate_private_key(ec.SECP256R1())
    Path(settings.cert_file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    Path(settings.key_file).write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return settings


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the machine's authorities, which take 25 ms to read
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def name_shown(port: int) -> str:
    """The name in the certificate that a new connection is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context())
    shown = cast("ssl.SSLObject", writer.get_extra_info("ssl_object")).getpeercert(binary_form=True)
    writer.transport.abort()
    assert shown is not None
    (name,) = x509.load_der_x509_certificate(shown).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


async def nobody_waits(running: RunningGateway) -> None:
    async with asyncio.timeout(30):
        while running.gateway.keeper.waiting:  # noqa: ASYNC110  (a departure is told to nobody)
            await asyncio.sleep(0.001)


async def test_a_reloaded_certificate_keeps_open_connections(tmp_path: Path) -> None:
    async with run_gateway(tls=write_pair(tmp_path, "old")) as running:
        url = f"wss://localhost:{running.port}/ws?subscriptions=slots"
        trust = ssl.create_default_context(cafile=tmp_path / "cert.pem")
        async with websockets.connect(url, ssl=trust) as client:
            await client.recv()
            await client.recv()
            assert await name_shown(running.port) == "old"
            write_pair(tmp_path, "new")
            await asyncio.to_thread(running.gateway.reload_certificate)
            assert await name_shown(running.port) == "new"
            await running.publish("slots")
            assert '"offset":"1"' in str(await client.recv())
        assert client.close_code == 1000


@pytest.mark.parametrize("how", ["another key", "half a file", "gone"])
async def test_a_broken_pair_is_refused_and_the_former_stays(tmp_path: Path, how: str) -> None:
    settings = write_pair(tmp_path, "old")
    async with run_gateway(tls=settings) as running:
        if how == "another key":
            write_pair(tmp_path, "new", of_another_key=True)
        elif how == "half a file":
            (tmp_path / "cert.pem").write_bytes((tmp_path / "cert.pem").read_bytes()[:100])
        else:
            (tmp_path / "key.pem").unlink()
        await asyncio.to_thread(running.gateway.reload_certificate)
        assert await name_shown(running.port) == "old"


def test_a_certificate_without_its_own_key_is_refused(tmp_path: Path) -> None:
    settings = write_pair(tmp_path, "x", of_another_key=True)
    with pytest.raises(ConfigError, match="TLS_CERT_FILE"):
        Certificate(settings)
    with pytest.raises(ConfigError, match="TLS_KEY_FILE"):
        Certificate(TlsSettings(cert_file=settings.cert_file))


async def test_versions_before_1_2_are_refused(tmp_path: Path) -> None:
    assert Certificate(write_pair(tmp_path, "x")).door.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_bytes_that_are_no_handshake_are_dropped_and_counted(tmp_path: Path) -> None:
    async with run_gateway(tls=write_pair(tmp_path, "x")) as running:
        raw = await Raw.connect(running.port)
        raw.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await raw.reader.read() is not None
        await nobody_waits(running)
        assert running.metric("gateway_refused_total", status="tls") == 1


async def test_handshakes_that_never_end_are_bounded_in_number_and_time(tmp_path: Path) -> None:
    settings = AdmissionSettings(http_per_address_max=3)
    async with run_gateway(tls=write_pair(tmp_path, "x"), admission=settings, request_s=0.5) as running:
        silent = [await Raw.connect(running.port) for _ in range(3)]
        async with asyncio.timeout(30):
            while running.gateway.keeper.waiting["127.0.0.1"] < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        one_more = await Raw.connect(running.port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(one_more.reader.readexactly(1), 5)
        for raw in silent:
            assert await asyncio.wait_for(raw.reader.read(), 5) == b""
        await nobody_waits(running)
        assert await name_shown(running.port) == "x"


async def test_a_request_right_behind_the_handshake_is_answered(tmp_path: Path) -> None:
    async with run_gateway(tls=write_pair(tmp_path, "x")) as running:
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=client_context())
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)
            writer.transport.abort()


async def test_stopping_reaches_clients_over_tls(tmp_path: Path) -> None:
    async with run_gateway(tls=write_pair(tmp_path, "x")) as running:
        client = await websockets.connect(f"wss://127.0.0.1:{running.port}/ws", ssl=client_context())
        await client.recv()
        await running.gateway.stop(5.0)
        await client.wait_closed()
        assert client.close_code == 4001


async def test_a_defect_in_a_handshake_ends_its_connection_only(tmp_path: Path) -> None:
    async with run_gateway(tls=write_pair(tmp_path, "here")) as running:
        certificate = running.gateway._certificate
        assert certificate is not None
        sound, certificate.door = certificate.door, None  # type: ignore[assignment]  # start_tls raises TypeError
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
        certificate.door = sound
        assert await name_shown(running.port) == "here"
        await nobody_waits(running)


def hello() -> bytes:
    """What a client says first."""
    sent, tls = ssl.MemoryBIO(), client_context()
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    return sent.read()


def test_an_early_handshake_is_answered_on_uvloop(tmp_path: Path) -> None:
    tls = write_pair(tmp_path, "early")

    async def many() -> None:
        async with run_gateway(tls=tls) as running, asyncio.timeout(30):
            for _ in range(10):
                with socket.socket() as client:
                    client.setblocking(False)
                    client.connect_ex(("127.0.0.1", running.port))  # the kernel accepts it
                    client.send(hello())
                    assert (await asyncio.get_running_loop().sock_recv(client, 1)) == b"\x16"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(many())


async def check_exchanges(tmp_path: Path, exchanges: int, at_once: int) -> None:
    """Certificates are exchanged while clients shake hands without a pause: each gets one that was in use, and in.

    Every other time files that do not fit each other lie there first, and are refused.
    """
    shown: list[str] = []
    async with run_gateway(tls=write_pair(tmp_path, "0")) as running:
        exchanging = True

        async def come_again_and_again() -> None:
            while exchanging:
                shown.append(await name_shown(running.port))

        async with asyncio.TaskGroup() as clients:
            for _ in range(at_once):
                clients.create_task(come_again_and_again())
            for number in range(1, exchanges + 1):
                for broken in (True, False) if number % 2 else (False,):
                    seen = len(shown)
                    write_pair(tmp_path, "broken" if broken else str(number), of_another_key=broken)
                    await asyncio.to_thread(running.gateway.reload_certificate)
                    while len(shown) < seen + at_once:  # noqa: ASYNC110  (each client adds what it saw)
                        await asyncio.sleep(0.001)
            exchanging = False
        assert await name_shown(running.port) == str(exchanges)
        await nobody_waits(running)
        assert not running.metric("gateway_refused_total", status="tls")
    assert set(shown) <= set(map(str, range(exchanges + 1)))
    assert len(set(shown)) > 1
    print(f"{len(shown)} handshakes over {exchanges} certificates")


async def test_certificates_are_exchanged_under_handshakes(tmp_path: Path) -> None:
    await check_exchanges(tmp_path, 5, 4)


@pytest.mark.long
async def test_certificates_are_exchanged_under_many_handshakes(tmp_path: Path) -> None:
    await check_exchanges(tmp_path, 40, 16)
