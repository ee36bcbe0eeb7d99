"""What may be called: URLs by their looks, addresses by the network that they belong to.

Owns the tables of special-purpose addresses and the forms in which an IPv6 address carries an IPv4 one. Never resolves
a name, never connects. Whatever is not known to be public is refused.

https://www.iana.org/assignments/iana-ipv4-special-registry
https://www.iana.org/assignments/iana-ipv6-special-registry
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from yarl import URL

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _table(*rows: tuple[str, str]) -> tuple[tuple[Network, str], ...]:
    return tuple((ip_network(network), kind) for kind, networks in rows for network in networks.split())


SPECIAL_V4 = _table(
    ("a metadata service", "169.254.169.254 100.100.100.200 168.63.129.16 192.0.0.192"),
    ("unspecified", "0.0.0.0/8"),
    ("loopback", "127.0.0.0/8"),
    ("private", "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16"),
    ("carrier-grade NAT", "100.64.0.0/10"),
    ("link-local", "169.254.0.0/16"),
    ("documentation", "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24"),
    ("benchmarking", "198.18.0.0/15"),
    ("multicast", "224.0.0.0/4"),
    ("reserved", "192.0.0.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.175.48.0/24 240.0.0.0/4"),
)

SPECIAL_V6 = _table(
    ("a metadata service", "fd00:ec2::254 fd20:ce::254"),
    ("unspecified", "::"),
    ("loopback", "::1"),
    ("private", "fc00::/7 fec0::/10"),
    ("link-local", "fe80::/10"),
    ("documentation", "2001:db8::/32 3fff::/20"),
    ("benchmarking", "2001:2::/48"),
    ("multicast", "ff00::/8"),
    ("a tunnel", "2002::/16 2001::/32"),
    ("reserved", "2001::/23 2620:4f:8000::/48 64:ff9b:1::/48 100::/64"),
)

GLOBAL_V6 = IPv6Network("2000::/3")
MAPPED = IPv6Network("::ffff:0:0/96")
NAT64 = IPv6Network("64:ff9b::/96")
ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""Upper halves of the interface ids in which ISATAP puts an IPv4 address (RFC 5214)."""


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks of a setting; ValueError names the first that is none."""
    return tuple(ip_network(text) for text in texts)


def embedded_v4(address: Address) -> Address:
    """The IPv4 address that a mapped or a NAT64 address stands for, or the address itself (without its zone)."""
    if isinstance(address, IPv6Address):
        whole = int(address)
        if address in MAPPED or address in NAT64:
            return IPv4Address(whole & 0xFFFF_FFFF)
        return IPv6Address(whole)
    return address


def special_kind(address: Address) -> str:
    """What kind of address it is that must not be called; "" for a public one."""
    address = embedded_v4(address)
    for network, kind in SPECIAL_V4 if isinstance(address, IPv4Address) else SPECIAL_V6:
        if address in network:
            return kind
    if isinstance(address, IPv6Address):
        if address not in GLOBAL_V6:
            return "reserved"
        if int(address) >> 32 & 0xFFFF_FFFF in ISATAP:
            return "a tunnel"
    return ""


def forbidden_kind(text: str, allowed: Sequence[Network]) -> str:
    """Why an address must not be called, as a kind of address; "" if it may be: public, or of an allowed network."""
    try:
        address = ip_address(text)
    except ValueError:
        return "not an address"
    inner = embedded_v4(address)
    if any(address in network or inner in network for network in allowed):
        return ""
    return special_kind(address)


THIS_MACHINE = frozenset(
    {"localhost", "localhost.localdomain", "localhost6", "localhost6.localdomain6", "ip6-localhost", "ip6-loopback"}
)
"""Names that mean this machine wherever they are resolved: RFC 6761, section 6.3, and what hosts files say."""

HOST_CHARS = 253
"""The longest name, as text: https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4"""

_NUMBER = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)")


class Forbidden(OSError):
    """A URL or an address that we do not call; the text says why, without the URL's path."""


def check_url(text: str) -> URL:
    """The URL, if its looks allow a call: http or https, no user info, a host whose address is not oddly spelt.

    Raises Forbidden. That the host's addresses are public is checked when connecting.
    """
    try:
        # No longer one is a name, and to read one takes a time that grows with its square.
        if len(urlsplit(text).hostname or "") > HOST_CHARS:
            raise ValueError("a host of more characters than any has")
        url = URL(text)
        host, port = url.raw_host, url.port
    except ValueError:
        raise Forbidden("The URL cannot be understood.") from None
    if url.scheme not in ("http", "https"):
        raise Forbidden("Only http and https are called.")
    if url.raw_user is not None or url.raw_password is not None:
        raise Forbidden("A URL with user info is not called.")
    if not host or not port:
        raise Forbidden("The URL has no host.")
    if ":" not in host and _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        _check_dotted(host)
    return url


def check_literal(text: str, allowed: Sequence[Network]) -> None:
    """Raise Forbidden for a URL that is not called, or whose host is a literal address that must not be, or localhost.

    What other names resolve to is found out when connecting: it may change until then, and is told to nobody.
    """
    host = str(check_url(text).raw_host).rstrip(".").lower()
    if host in THIS_MACHINE or host.endswith(".localhost"):
        kind = forbidden_kind("127.0.0.1", allowed) and forbidden_kind("::1", allowed)
    else:
        kind = forbidden_kind(host, allowed) if _is_address(host) else ""
    if kind:
        raise Forbidden(f"The host is not public but {kind}; JOBWIRE_CALLBACK_ALLOW can allow its network.")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _check_dotted(host: str) -> None:
    """Forbidden unless the host is four plain decimal numbers: 127.1, 0x7f000001 and 0177.0.0.1 are 127.0.0.1, too."""
    try:
        IPv4Address(host)
    except AddressValueError:
        raise Forbidden("An oddly spelt address is not called.") from None
