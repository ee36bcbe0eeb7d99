"""What may be called: a table of addresses and of URLs."""

import pytest

from app.webhooks.forbidden_addresses import Forbidden, check_literal, check_url, forbidden_kind, parse_networks

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "93.184.216.34",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.1",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "2001:4860:4860::8888",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]

REFUSED = [
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("::1", "loopback"),
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:7f00:1", "loopback"),
    ("64:ff9b::127.0.0.1", "loopback"),
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "unspecified"),
    ("::", "unspecified"),
    ("::ffff:0.0.0.0", "unspecified"),
    ("10.0.0.1", "private"),
    ("10.255.255.255", "private"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.168.0.1", "private"),
    ("::ffff:192.168.1.1", "private"),
    ("64:ff9b::10.0.0.1", "private"),
    ("fc00::1", "private"),
    ("fdff:ffff::1", "private"),
    ("fec0::1", "private"),
    ("100.64.0.1", "carrier-grade NAT"),
    ("100.127.255.255", "carrier-grade NAT"),
    ("169.254.0.1", "link-local"),
    ("169.254.170.2", "link-local"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local"),
    ("febf::1", "link-local"),
    ("169.254.169.254", "a metadata service"),
    ("::ffff:169.254.169.254", "a metadata service"),
    ("64:ff9b::a9fe:a9fe", "a metadata service"),
    ("100.100.100.200", "a metadata service"),
    ("168.63.129.16", "a metadata service"),
    ("192.0.0.192", "a metadata service"),
    ("fd00:ec2::254", "a metadata service"),
    ("192.0.2.1", "documentation"),
    ("198.51.100.1", "documentation"),
    ("203.0.113.1", "documentation"),
    ("2001:db8::1", "documentation"),
    ("3fff::1", "documentation"),
    ("198.18.0.1", "benchmarking"),
    ("198.19.255.255", "benchmarking"),
    ("2001:2::1", "benchmarking"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.255", "multicast"),
    ("ff02::1", "multicast"),
    ("::ffff:224.0.0.1", "multicast"),
    ("192.0.0.1", "reserved"),
    ("192.88.99.1", "reserved"),
    ("192.31.196.1", "reserved"),
    ("192.52.193.1", "reserved"),
    ("192.175.48.1", "reserved"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "reserved"),
    ("::7f00:1", "reserved"),
    ("::127.0.0.1", "reserved"),
    ("100::1", "reserved"),
    ("64:ff9b:1::1", "reserved"),
    ("2001:10::1", "reserved"),
    ("2001:20::1", "reserved"),
    ("2620:4f:8000::1", "reserved"),
    ("4000::1", "reserved"),
    ("5f00::1", "reserved"),
    ("::ffff:0:127.0.0.1", "reserved"),
    ("2002:7f00:1::", "a tunnel"),
    ("2002:808:808::1", "a tunnel"),
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "a tunnel"),
    ("2606:4700::5efe:10.0.0.1", "a tunnel"),
    ("2606:4700::200:5efe:10.0.0.1", "a tunnel"),
    ("example.com", "not an address"),
    ("", "not an address"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_called(address: str) -> None:
    assert forbidden_kind(address, ()) == ""


@pytest.mark.parametrize(("address", "kind"), REFUSED)
def test_an_address_that_is_not_public_is_refused_and_named(address: str, kind: str) -> None:
    assert forbidden_kind(address, ()) == kind


@pytest.mark.parametrize(
    ("address", "allowed", "may"),
    [
        ("10.1.2.3", ["10.1.0.0/16"], True),
        ("10.2.2.3", ["10.1.0.0/16"], False),
        ("::ffff:10.1.2.3", ["10.1.0.0/16"], True),
        ("64:ff9b::10.1.2.3", ["10.1.0.0/16"], True),
        ("127.0.0.1", ["127.0.0.1"], True),
        ("127.0.0.2", ["127.0.0.1"], False),
        ("fd12::1", ["fd12::/16", "10.0.0.0/8"], True),
        ("2002:a01:203::", ["10.1.0.0/16"], False),
    ],
)
def test_an_allowed_network_may_be_called_and_no_other(address: str, allowed: list[str], may: bool) -> None:
    assert (forbidden_kind(address, parse_networks(allowed)) == "") is may


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://example.com:8443/path?query=1#fragment",
        "http://8.8.8.8/",
        "http://[2606:4700:4700::1111]:8080/",
        "https://bücher.example/",
        "http://123.example.com/",
        "http://a.b.c.d.e.example./",
    ],
)
def test_a_url_that_looks_well_is_taken(url: str) -> None:
    assert check_url(url).host


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://example.com/", "http"),
        ("file:///etc/passwd", "http"),
        ("gopher://example.com/", "http"),
        ("javascript:alert(1)", "http"),
        ("//example.com/", "http"),
        ("http://", "host"),
        ("http:///path", "host"),
        ("http://user@example.com/", "user info"),
        ("http://user:pass@example.com/", "user info"),
        ("http://:pass@example.com/", "user info"),
        ("http://example.com@127.0.0.1/", "user info"),
        ("http://2130706433/", "oddly spelt"),
        ("http://017700000001/", "oddly spelt"),
        ("http://0x7f000001/", "oddly spelt"),
        ("http://0x7F.0.0.1/", "oddly spelt"),
        ("http://127.1/", "oddly spelt"),
        ("http://127.0.1/", "oddly spelt"),
        ("http://0177.0.0.1/", "oddly spelt"),
        ("http://127.0.0.01/", "oddly spelt"),
        ("http://127.0.0.1./", "oddly spelt"),
        ("http://0x/", "oddly spelt"),
        ("http://127.0.0.0x1/", "oddly spelt"),
        ("http://1.2.3.4.5/", "oddly spelt"),
        ("http://256.1.1.1/", "oddly spelt"),
        ("http://１２７.０.０.１./", "oddly spelt"),
        ("http://example.com:99999/", "understood"),
        ("http://example.com:0/", "host"),
        ("http://[::1/", "understood"),
    ],
)
def test_a_url_whose_looks_are_odd_is_refused(url: str, why: str) -> None:
    with pytest.raises(Forbidden, match=why):
        check_url(url)


def test_full_width_digits_are_the_address_that_they_look_like() -> None:
    url = check_url("http://１２７.０.０.１/")
    assert forbidden_kind(str(url.raw_host), ()) == "loopback"


INWARD = [
    "http://127.0.0.1/",
    "http://127.0.0.1./",
    "http://127.8.9.10:8080/x",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://017700000001/",
    "http://0x7f.1/",
    "http://127.1/",
    "http://１２７.０.０.１/",
    "http://10.0.0.1/",
    "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data",
    "http://0.0.0.0/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:a00:1]:80/",
    "http://[0:0:0:0:0:ffff:10.0.0.1]/",
    "http://[64:ff9b::10.0.0.1]/",
    "http://[fd00::1]/",
    "http://[fe80::1]/",
    "http://localhost/",
    "http://LOCALHOST:80/",
    "http://localhost./",
    "http://ｌｏｃａｌｈｏｓｔ/",
    "http://a.b.localhost/",
    "http://a.localhost./",
    "https://localhost.localdomain/",
]


@pytest.mark.parametrize("url", INWARD)
def test_a_literal_address_that_is_not_public_is_known_by_its_looks(url: str) -> None:
    with pytest.raises(Forbidden):
        check_literal(url, ())


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost.example.com/",
        "http://notlocalhost/",
        "http://8.8.8.8/",
        "http://[2606:4700:4700::1111]/",
        "http://[::ffff:8.8.8.8]/",
        "http://10.0.0.1.example.com/",
        "http://intranet/",
    ],
)
def test_other_names_and_public_addresses_are_taken(url: str) -> None:
    check_literal(url, ())


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://127.0.0.1:1/", "127.0.0.0/8"),
        ("http://localhost/", "127.0.0.0/8"),
        ("http://localhost/", "::1"),
        ("http://[::ffff:10.1.2.3]/", "10.1.0.0/16"),
        ("http://[fd12::1]/", "fd12::/16"),
    ],
)
def test_a_literal_address_of_an_allowed_network_is_taken(url: str, allowed: str) -> None:
    check_literal(url, parse_networks([allowed]))
    with pytest.raises(Forbidden):
        check_literal(url, parse_networks(["10.9.0.0/16"]))
