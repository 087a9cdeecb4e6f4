"""Admission of clients: from which pages and addresses they may come, how many at once, and how fast."""

import ipaddress
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Final, TypeAlias

import structlog

from headrace.gateway.door.deadlines import Deadlines
from headrace.gateway.door.origins import NULL, Origin, configured, sent, site_of
from headrace.gateway.problems import Refused, retry_after
from headrace.gateway.settings import AdmissionSettings
from headrace.model.errors import ConfigError
from headrace.protocol.session import TokenBucket
from headrace.runtime.clock import Clock

_ADDRESS_BITS: Final = 64
"""Prefix length of IPv6. One customer usually has a whole /64 network, which counts as one address."""

_MAPPED_BITS: Final = 96
"""Prefix length in bits of the IPv6 addresses that represent IPv4 addresses."""

_ADDRESS_LENGTH_MAX: Final = 64
"""Longest text, in characters, whose parsed address is cached. A longer text is hardly an address."""

_ORIGINS_LOGGED_MAX: Final = 100

FULL_RETRY_AFTER_S: Final = 60

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_log = structlog.get_logger("gateway")


class _Visitor:
    """The connections of one address, and how fast it may open more."""

    __slots__ = ("bucket", "count")

    def __init__(self, bucket: TokenBucket) -> None:
        self.bucket = bucket
        self.count = 0


class Admission:
    """Checks a new connection in this order: `check_host`, `check_origin`, `address_of`, `enter`.

    At its end, call `leave`.
    - `local`: the server listens on this machine only, so pages from this machine are allowed.
    - `demo`: the server plays a public recording, so a page opened as a file may read it.

    Raises ConfigError for settings that can't be parsed.
    """

    def __init__(self, clock: Clock, settings: AdmissionSettings | None = None, *, demo: bool = False) -> None:
        self._clock, self._demo = clock, demo
        self.local = False
        self.inside = 0
        self.users: Counter[str] = Counter()
        """Open streams by user, order streams included."""
        self._visitors: dict[str, _Visitor] = {}
        self._gone: Deadlines[str] = Deadlines(1.0)  # after this time the bucket is full again
        self._origins_logged: set[str] = set()
        self._proxy_logged = False
        self.apply(settings or AdmissionSettings())

    def apply(self, settings: AdmissionSettings) -> None:
        """Change the settings that may change while running. If it raises ConfigError, nothing is changed."""
        origins = frozenset(_origin(text) for text in settings.origins if text != "*")
        self._proxies = tuple(map(_network, settings.trusted_proxies))
        self._origins, self._any_origin = origins, "*" in settings.origins
        self._patterns = tuple(origin for origin in origins if origin.any_label)
        self.settings = settings

    def allows(self, origin: str, host: str) -> bool:
        """Return whether pages from `origin` may use the server under the name `host`."""
        if self._any_origin:
            return True
        page = sent(origin)
        if page is None:
            return False
        if page in self._origins or any(pattern.covers(page) for pattern in self._patterns):
            return True
        if page == NULL:
            return self._demo
        if page.scheme not in ("http", "https"):
            return False
        return page.site == site_of(host, page.scheme) or (self.local and _is_loopback(page.site.host))

    def check_host(self, hosts: Sequence[str]) -> None:
        """Raise Refused 400 for several names, and 421 for a public name if the server listens on this machine only.

        A page may make its own name resolve to 127.0.0.1 (DNS rebinding), and every browser then treats this server as
        the page's own. If a proxy on this machine forwards public names, make it a trusted proxy, or add its name to
        the origins.
        """
        if len(hosts) > 1:  # a proxy in front of this server may have read another name
            raise Refused(HTTPStatus.BAD_REQUEST, "more than one Host")
        if not self.local or self._proxies or self._any_origin:
            return
        for host in hosts:
            if _is_public_name(host) and not self._names(host):
                hint = "behind a proxy set TRUSTED_PROXIES, or name the site in ALLOWED_ORIGINS"
                raise Refused(HTTPStatus.MISDIRECTED_REQUEST, f"this server is for its own machine; {hint}")

    def _names(self, host: str) -> bool:
        """Return whether `host` is the site of an allowed origin."""
        sites = ((origin, site_of(host, origin.scheme)) for origin in self._origins)
        return any(site is not None and origin.covers_site(site) for origin, site in sites)

    def check_origin(self, origins: Sequence[str], hosts: Sequence[str]) -> None:
        """Raise Refused for a browser whose page is from another site and not from an allowed origin."""
        if not origins:
            return  # not a browser
        if len(origins) == 1 and len(hosts) == 1 and self.allows(origins[0], hosts[0]):
            return
        origin = origins[0][:200]
        if origin not in self._origins_logged and len(self._origins_logged) < _ORIGINS_LOGGED_MAX:
            self._origins_logged.add(origin)
            _log.warning("origin_refused", origin=origin, hint="pages of it may connect once it is in ALLOWED_ORIGINS")
        raise Refused(HTTPStatus.FORBIDDEN, "pages of this origin may not connect: it is not in ALLOWED_ORIGINS")

    def address_of(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the address to which limits apply: `peer`, or the client that a trusted proxy names.

        Each proxy appends the address from which it received the request. So the right-most address that does not
        belong to a trusted proxy is the last one that a trusted proxy saw. Addresses to its left may be made up.
        """
        address = _address(peer)
        if address is None or not self._is_proxy(address):
            if forwarded and not self._proxy_logged:
                self._proxy_logged = True
                _log.info("proxy_not_trusted", peer=peer, hint="limits count it as one client; see TRUSTED_PROXIES")
            return _key(address)
        for text in reversed(",".join(forwarded).split(",")):
            before = _address(text.strip())
            if before is None:
                break
            address = before
            if not self._is_proxy(address):
                break
        return _key(address)

    def is_proxy(self, peer: str) -> bool:
        """Return whether the peer is a trusted proxy, through which many clients may come."""
        address = _address(peer)
        return address is not None and self._is_proxy(address)

    def enter(self, address: str) -> None:
        """Count a new connection.

        Raises Refused 429 if the address has too many connections, or opens them too fast.
        """
        now_s = self._clock.monotonic()
        for gone in self._gone.due(now_s):
            del self._visitors[gone]
        visitor = self._visitors.get(address)
        if visitor is None:
            visitor = self._visitors[address] = _Visitor(TokenBucket(self.settings.connects_per_s, now_s))
        if not visitor.count:
            self._gone.set(address, now_s)
        visitor.bucket.per_s = (
            self.settings.connects_per_s
        )  # the setting may have changed since the address was first seen
        wait_s = visitor.bucket.take(now_s)
        if wait_s:
            raise _too_many("too many new connections from this address", wait_s)
        if visitor.count >= self.settings.per_address_max:
            raise _too_many("too many connections from this address", FULL_RETRY_AFTER_S)
        visitor.count += 1
        self.inside += 1
        self._gone.clear(address)

    def leave(self, address: str) -> None:
        """Count one connection less for this address."""
        visitor = self._visitors[address]
        visitor.count -= 1
        self.inside -= 1
        if not visitor.count:
            self._gone.set(address, self._clock.monotonic())

    def enter_user(self, user_id: str) -> bool:
        """Count one more stream of this user. Returns False, and counts nothing, if the user has the maximum number."""
        if self.has_enough(user_id):
            return False
        self.users[user_id] += 1
        return True

    def leave_user(self, user_id: str) -> None:
        """Count one stream less for this user."""
        self.users[user_id] -= 1
        if not self.users[user_id]:
            del self.users[user_id]

    def has_enough(self, user_id: str) -> bool:
        """Return whether the user has the maximum number of streams."""
        return self.users[user_id] >= self.settings.per_user_max

    def _is_proxy(self, address: _Address) -> bool:
        return any(address in network for network in self._proxies)


def _too_many(what: str, retry_after_s: float) -> Refused:
    return Refused(HTTPStatus.TOO_MANY_REQUESTS, what, headers=retry_after(retry_after_s))


def _address(text: str) -> _Address | None:
    """Parse an address with or without a port, brackets or a zone; None for any other text."""
    return _read_address(text) if len(text) <= _ADDRESS_LENGTH_MAX else _read_address.__wrapped__(text)


@lru_cache(maxsize=4096)
def _read_address(text: str) -> _Address | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


@lru_cache(maxsize=4096)
def _key(address: _Address | None) -> str:
    if address is None:
        return "local"  # a Unix socket has no address
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(address) >> _ADDRESS_BITS << _ADDRESS_BITS, _ADDRESS_BITS)))
    return str(address)


def _network(text: str) -> _Network:
    """Parse an address or a network. An IPv4 network written as IPv6 becomes IPv4, like client addresses."""
    try:
        network = ipaddress.ip_network(text.removeprefix("[").removesuffix("]") if text.startswith("[") else text)
    except ValueError as error:
        raise ConfigError("TRUSTED_PROXIES", text, _expected_network(text)) from error
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= _MAPPED_BITS:
        return ipaddress.ip_network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def _expected_network(text: str) -> str:
    expected = "an address or a network like 10.0.0.0/8"
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return expected
    return f"{expected}: {text} lies in the network {meant}"


def _origin(given: str) -> Origin:
    try:
        return configured(given)
    except ValueError as error:
        raise ConfigError("ALLOWED_ORIGINS", given, str(error)) from None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _is_public_name(host: str) -> bool:
    """Return whether the name is public: neither an address nor a name that only this machine resolves."""
    name = host.lower().partition(":")[0].removesuffix(".")
    return "." in name and _address(host) is None and not name.endswith(".localhost")
