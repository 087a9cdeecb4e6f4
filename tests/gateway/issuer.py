"""Who signs tokens in tests: right ones, wrong ones, and an issuer's server that stalls, lies and changes its keys."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from headrace.gateway.auth.settings import AuthSettings

SECRET = "correct-horse-battery-staple-0123456789"
AUDIENCE = "headrace-test"
ISSUER = "https://issuer.test/"

HS256 = AuthSettings(mode="hs256", jwt_secret=SECRET, leeway_s=5)


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One key a name, made once: that takes a while."""
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """The public half as a file would have it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, kid: str | None, **more: Any) -> dict[str, Any]:
    """The public half as a key set's entry."""
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    entry: dict[str, Any] = json.loads(algorithm.to_jwk(key.public_key()))  # type: ignore[arg-type]
    entry.pop("key_ops", None)
    return {**entry, **({} if kid is None else {"kid": kid}), **more}


def token(
    sub: Any = "42",
    *,
    now_s: float,
    ttl_s: float = 3600,
    key: Any = SECRET,
    algorithm: str | None = "HS256",
    header: dict[str, Any] | None = None,
    without: tuple[str, ...] = (),
    **claims: Any,
) -> str:
    """A token that is right, but for what is asked for."""
    payload = {"sub": sub, "exp": now_s + ttl_s, **claims}
    payload = {name: value for name, value in payload.items() if name not in without}
    return jwt.api_jws.encode(json.dumps(payload).encode(), key, algorithm, header)


def raw_token(header: bytes, payload: bytes, signature: bytes = b"") -> str:
    """Three parts, whatever is in them."""
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header, payload, signature))


class Issuer:
    """A server of key sets; after `stall` it answers nothing until it has something to say again."""

    def __init__(self) -> None:
        self.requests = 0
        self.port = 0
        self._answer = b""
        self._talks = asyncio.Event()
        self.publish()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys.json"

    def publish(self, *keys: dict[str, Any]) -> None:
        self.say(json.dumps({"keys": keys}).encode())

    def say(self, body: bytes, status: str = "200 OK", more: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n"
        self._answer = head.encode() + body
        self._talks.set()

    def stall(self) -> None:
        self._talks.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            await self._talks.wait()
            writer.write(self._answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def issuer() -> AsyncIterator[Issuer]:
    served = Issuer()
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        served.publish()
        server.close()
        await server.wait_closed()
