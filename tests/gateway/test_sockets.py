"""Listening sockets."""

import errno
import socket
import sys

import pytest

from atomr_trio.core import InferenceError
from atomr_trio.gateway import BindError, open_sockets, urls


def close(sockets):
    for sock in sockets:
        sock.close()


def test_a_free_port_with_its_options():
    (sock,) = sockets = open_sockets("127.0.0.1", 0, user_timeout=7)
    try:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert not sock.getblocking()
        assert not sock.get_inheritable()
        if sys.platform == "linux":
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
        assert urls(sockets) == [f"http://127.0.0.1:{sock.getsockname()[1]}"]
    finally:
        close(sockets)


@pytest.mark.skipif(sys.platform != "linux", reason="inheritance of these options is Linux's")
def test_accepted_connections_inherit_the_options():
    sockets = open_sockets("127.0.0.1", 0, user_timeout=7)
    with socket.create_connection(sockets[0].getsockname()):
        sockets[0].setblocking(True)
        accepted, _ = sockets[0].accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
    close(sockets)


def test_a_port_in_use_says_what_to_do():
    sockets = open_sockets("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    with pytest.raises(BindError) as caught:
        open_sockets("127.0.0.1", port)
    close(sockets)
    assert isinstance(caught.value, InferenceError)
    assert (caught.value.host, caught.value.port) == ("127.0.0.1", port)
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "choose another port" in str(caught.value)
    # It was let go, so it can be had again.
    close(open_sockets("127.0.0.1", port))


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        ("127.0.0.1", -1, "0 to 65535"),
        ("127.0.0.1", 65536, "0 to 65535"),
        ("203.0.113.9", 0, "no such address"),
        ("no.such.host.invalid", 0, "no address is known"),
        ("a" * 300, 0, "no address is known"),
    ],
)
def test_what_cannot_be_bound(host, port, reason):
    with pytest.raises(BindError, match=reason):
        open_sockets(host, port)


def test_a_name_with_several_addresses_gets_one_port(monkeypatch):
    families = [
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_INET, ("127.0.0.2", 0)),
        (socket.AF_INET6, ("::1", 0, 0, 0)),
    ]
    found = [(family, socket.SOCK_STREAM, 6, "", address) for family, address in families]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: found)
    sockets = open_sockets("localhost", 0)
    try:
        assert len(sockets) >= 2
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
    finally:
        close(sockets)


def test_a_second_address_that_is_taken_closes_the_first(monkeypatch):
    taken = open_sockets("127.0.0.2", 0)
    port = taken[0].getsockname()[1]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ["127.0.0.1", "127.0.0.2"]]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: found)
    with pytest.raises(BindError):
        open_sockets("localhost", port)
    monkeypatch.undo()
    close(open_sockets("127.0.0.1", port))
    close(taken)


def test_no_address_family_at_all(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"203.0.113.{last}", 0)) for last in [1, 2]]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: found)
    with pytest.raises(BindError, match="no such address"):
        open_sockets("localhost", 0)


def test_a_family_that_the_machine_has_switched_off_is_passed_over(monkeypatch):
    make = socket.socket

    def without_ipv6(family, kind):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "not supported")
        return make(family, kind)

    found = [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0, 0, 0))]
    answers = [(family, socket.SOCK_STREAM, 6, "", address) for family, address in found]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: answers)
    monkeypatch.setattr(socket, "socket", without_ipv6)
    sockets = open_sockets("localhost", 0)
    assert [sock.family for sock in sockets] == [socket.AF_INET]
    close(sockets)
