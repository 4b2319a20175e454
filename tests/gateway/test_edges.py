"""What the request's headers say: who asks, from where, in which trace. Pure."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.gateway.access import (
    Cors,
    Peer,
    is_public,
    peer_of,
    presented_secret,
    to_network,
    trace_of,
)

header_bytes = st.binary(max_size=60)
any_headers = st.lists(
    st.tuples(
        st.sampled_from(
            [
                b"authorization", b"x-api-key", b"traceparent", b"tracestate", b"x-forwarded-for",
                b"x-forwarded-proto", b"origin", b"access-control-request-method", b"access-control-request-headers",
            ]
        ),
        header_bytes,
    )
)  # fmt: skip


@given(any_headers)
def test_no_header_breaks_anything(headers):
    presented_secret(headers)
    trace_of(headers)
    peer_of("10.0.0.1", "http", headers, [to_network("10.0.0.0/8")])
    for origins in [(), ("*",), ("https://a.example",)]:
        cors = Cors(origins)
        lines = [*cors.headers(headers), *(cors.preflight("OPTIONS", headers) or [])]
        assert not any(b"\n" in value or b"\r" in value or b"\x00" in value for _, value in lines)


# The secret.


@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ([(b"authorization", b"Bearer abc")], b"abc"),
        ([(b"Authorization", b"bearer  abc ")], b"abc"),
        ([(b"x-api-key", b"abc")], b"abc"),
        ([(b"authorization", b"Basic abc"), (b"x-api-key", b"def")], b"def"),
        ([(b"x-api-key", b"def"), (b"authorization", b"Bearer abc")], b"abc"),
        ([(b"authorization", b"Bearer "), (b"x-api-key", b"")], None),
        ([(b"authorization", b"abc")], None),
        ([], None),
    ],
)
def test_where_a_secret_is_found(headers, secret):
    assert presented_secret(headers) == secret


@pytest.mark.parametrize(
    ("method", "path", "public"),
    [
        ("GET", "/livez", True),
        ("HEAD", "/readyz", True),
        ("GET", "/health", True),
        ("POST", "/livez", False),
        ("GET", "/livez/", False),
        ("GET", "//livez", False),
        ("GET", "/v1/models", False),
        ("OPTIONS", "/v1/models", True),
    ],
)
def test_public_routes(method, path, public):
    assert is_public(method, path) is public


# The trace.

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "parent",
    [PARENT, PARENT.replace("00-", "01-", 1), PARENT.replace("00-", "cc-", 1) + "-more"],
)
def test_a_trace_goes_on(parent):
    assert trace_of([(b"traceparent", parent.encode())]).parent == parent


@pytest.mark.parametrize(
    "parent",
    [
        "", "nonsense", PARENT + "-more", PARENT.upper(), PARENT.replace("00-", "ff-", 1), PARENT[:-1], "0" + PARENT,
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        PARENT.replace("00-", "01-", 1) + "more", PARENT.replace("00-", "01-", 1) + "-" + "x" * 1000,
    ],
)  # fmt: skip
def test_another_trace_begins(parent):
    found = trace_of([(b"traceparent", parent.encode()), (b"tracestate", b"a=1")])
    assert found.parent != parent
    assert found.state == ""
    assert trace_of([(b"traceparent", found.parent.encode())]) == found


def test_two_parents_are_none():
    headers = [(b"traceparent", PARENT.encode())] * 2
    assert trace_of(headers).parent != PARENT


@pytest.mark.parametrize(
    ("states", "joined"),
    [
        (["a=1"], "a=1"),
        (["a=1,b=2", "c@d=3 4"], "a=1,b=2,c@d=3 4"),
        (["a=1, ,b=2,"], "a=1,b=2"),
        (["a=1,a=2"], ""),
        (["A=1"], ""),
        (["a"], ""),
        (["a=1=2"], ""),
        ([",".join(f"k{n}=1" for n in range(32))], ",".join(f"k{n}=1" for n in range(32))),
        ([",".join(f"k{n}=1" for n in range(33))], ""),
    ],
)
def test_the_state_of_a_trace(states, joined):
    headers = [(b"traceparent", PARENT.encode()), *((b"tracestate", state.encode()) for state in states)]
    assert trace_of(headers).state == joined


# Proxies.

TRUSTED = [to_network("10.0.0.0/8"), to_network("fd00::1")]


@pytest.mark.parametrize(
    ("connected", "forwarded", "client"),
    [
        ("203.0.113.9", "1.2.3.4", "203.0.113.9"),
        ("10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4, nonsense", "10.0.0.1"),
        ("10.0.0.1", "nonsense, 1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "1.2.3.4:5678", "1.2.3.4"),
        ("fd00::1", "[2001:db8::1]:5678", "2001:db8::1"),
        ("::ffff:10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("somewhere", "1.2.3.4", "somewhere"),
    ],
)
def test_who_is_behind_the_proxies(connected, forwarded, client):
    headers = [(b"x-forwarded-for", forwarded.encode())]
    assert peer_of(connected, "http", headers, TRUSTED).address == client


@given(st.lists(st.ip_addresses(v=4), min_size=1), st.lists(st.text(max_size=20), max_size=3))
def test_a_client_cannot_pass_for_another(path, inventions):
    # The last address in the list that is no proxy of ours was written by one of them.
    told = ",".join([*inventions, *map(str, path)]).encode("utf-8", "replace")
    found = peer_of("10.0.0.1", "http", [(b"x-forwarded-for", told)], TRUSTED)
    outside = [address for address in path if address not in TRUSTED[0]]
    if outside:
        assert ipaddress.ip_address(found.address) == outside[-1]


@pytest.mark.parametrize(
    ("connected", "proto", "scheme"),
    [
        ("10.0.0.1", "https", "https"),
        ("10.0.0.1", "http, https", "https"),
        ("10.0.0.1", "gopher", "http"),
        ("1.1.1.1", "https", "http"),
    ],
)
def test_the_scheme_that_the_client_has_used(connected, proto, scheme):
    assert peer_of(connected, "http", [(b"x-forwarded-proto", proto.encode())], TRUSTED).scheme == scheme


def test_without_trusted_proxies_nobody_is_believed():
    headers = [(b"x-forwarded-for", b"1.2.3.4"), (b"x-forwarded-proto", b"https")]
    assert peer_of("127.0.0.1", "http", headers, ()) == Peer("127.0.0.1", "http")


# Pages of other origins.

PAGE = "https://chat.example.org"


def asks(origin=PAGE, *more):
    return [(b"origin", origin.encode()), (b"access-control-request-method", b"POST"), *more]


def test_without_origins_nothing_is_said():
    assert Cors().headers(asks()) == []
    assert Cors().preflight("OPTIONS", asks()) is None


def test_an_origin_that_is_named_may_ask():
    cors = Cors([PAGE])
    wanted = (b"access-control-request-headers", b"authorization, x-stainless-os")
    lines = dict(cors.preflight("OPTIONS", asks(PAGE, wanted)) or [])
    assert lines[b"access-control-allow-headers"] == wanted[1]
    assert b"POST" in lines[b"access-control-allow-methods"]
    assert dict(cors.headers(asks()))[b"access-control-allow-origin"] == PAGE.encode()
    assert cors.preflight("POST", asks()) is None
    assert cors.preflight("OPTIONS", [(b"origin", PAGE.encode())]) is None


@pytest.mark.parametrize(
    "origin", ["https://evil.example", PAGE + ".evil.example", "http://chat.example.org", "null", ""]
)
def test_another_origin_may_not(origin):
    cors = Cors([PAGE])
    assert cors.preflight("OPTIONS", asks(origin)) is None
    assert cors.headers(asks(origin)) == [(b"vary", b"Origin")]


def test_two_origins_are_none():
    twice = [*asks(), (b"origin", b"https://evil.example")]
    assert Cors([PAGE]).headers(twice) == [(b"vary", b"Origin")]
    assert Cors(["*"]).preflight("OPTIONS", twice) is None


def test_every_page_may_ask_but_not_with_credentials():
    assert dict(Cors(["*"]).headers(asks("null")))[b"access-control-allow-origin"] == b"*"
    assert b"access-control-allow-credentials" not in dict(Cors(["*"]).headers(asks()))
    assert dict(Cors([PAGE], credentials=True).headers(asks()))[b"access-control-allow-credentials"] == b"true"
    with pytest.raises(ValueError, match="credentials"):
        Cors(["*", PAGE], credentials=True)


@pytest.mark.parametrize("origin", ["chat.example.org", f"{PAGE}/", "https://", "null", "", "https://a b"])
def test_what_is_no_origin_is_refused(origin):
    with pytest.raises(ValueError, match="origin"):
        Cors([origin])
