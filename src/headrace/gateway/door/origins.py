"""Origins of pages: the form that a browser sends, the form in a setting, and whether they match. Pure."""

import difflib
import ipaddress
import re
from typing import Final, NamedTuple

import httpx

EXPECTED: Final = (
    "https://host, https://host:port, https://*.example.com (one name below), an app's scheme://host as "
    "capacitor://localhost, null (pages of files) or *"
)

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_NEVER: Final = frozenset({"ws", "wss", "ftp", "about", "blob", "data", "javascript"})
"""Schemes that are never the origin of a page."""

_ORIGIN: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#@\s\\]*)")
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:*]*)(?::([0-9]{1,5}))?")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_NULL: Final = frozenset({"null", "file://"})
"""Origins that browsers send for a page opened as a file: `null`, or `file://` in the web views of some apps."""


class Site(NamedTuple):
    """A host in normal form, and its port; None for the default port of the scheme."""

    host: str
    port: int | None


class Origin(NamedTuple):
    """Origin of a page. With `any_label`, every page whose host has exactly one label before `site.host`."""

    scheme: str
    site: Site
    any_label: bool = False

    def covers(self, other: "Origin") -> bool:
        """Return whether this configured origin allows pages from `other`."""
        if self.scheme != other.scheme:
            return False
        return self.covers_site(other.site)

    def covers_site(self, site: Site) -> bool:
        """Return whether a page of this scheme from `site` is allowed."""
        if not self.any_label:
            return self.site == site
        label, _, parent = site.host.partition(".")
        return self.site == Site(parent, site.port) and _LABEL.fullmatch(label) is not None


NULL: Final = Origin("null", Site("", None))


def sent(text: str) -> Origin | None:
    """Parse the `Origin` of a request; None for text that no browser sends."""
    if text.lower() in _NULL:
        return NULL
    parts = _ORIGIN.fullmatch(text)
    if parts is None:
        return None
    scheme = parts[1].lower()
    site = site_of(parts[2], scheme)
    return None if site is None or not site.host else Origin(scheme, site)


def configured(text: str) -> Origin:
    """Parse an origin from a setting.

    Raises ValueError naming the expected form if no page can have this origin.
    """
    if text.lower() in _NULL:
        return NULL
    parts = _ORIGIN.fullmatch(text.removesuffix("/"))
    scheme = parts[1].lower() if parts is not None else ""
    if parts is None or scheme in _NEVER or (scheme not in _DEFAULT_PORTS and _is_typo(scheme)):
        raise ValueError(EXPECTED)
    below, any_label = parts[2], parts[2].startswith("*.")
    if any_label:
        below = below.removeprefix("*.")
        name = below.partition(":")[0]
        if scheme not in _DEFAULT_PORTS or ("." not in name.strip(".") and name != "localhost") or _is_address(name):
            raise ValueError(f"{EXPECTED}; * stands for one name before a host of at least two")
    site = site_of(below, scheme)
    if site is None or not site.host:
        raise ValueError(EXPECTED)
    return Origin(scheme, site, any_label)


def site_of(authority: str, scheme: str) -> Site | None:
    """Parse `host` or `host:port` as a browser does with this scheme; None for any other text."""
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        return None
    host, port = _host(parts[1]), None if parts[2] is None else int(parts[2])
    if host is None or (port is not None and port > 65_535):
        return None
    return Site(host, None if port == _DEFAULT_PORTS.get(scheme) else port)


def _host(text: str) -> str | None:
    """Return the normal form of a host: lower case, IDNA for non-ASCII, IPv6 addresses in their shortest form."""
    if text.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(text[1:-1])}]"
        except ValueError:
            return None
    if text.isascii():
        return text.lower()
    try:
        return httpx.URL(scheme="https", host=text).raw_host.decode("ascii")
    except (httpx.InvalidURL, UnicodeError):
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_typo(scheme: str) -> bool:
    """Return whether the scheme looks like a misspelling of http or https."""
    return bool(difflib.get_close_matches(scheme, _DEFAULT_PORTS, 1, 0.75))
