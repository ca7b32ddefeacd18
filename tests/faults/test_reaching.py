"""Names that lead nowhere or slowly, certificates that prove nothing, proxies that refuse, servers that send elsewhere:
what a caller is told, and that nothing goes where it should not."""

import datetime as dt
import ipaddress
import socket
import ssl
import sys
import time
from contextlib import contextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from polyvox.testing.fault_server import FaultServer, answer, refused_port, send, stall, tunnel
from tests.faults.calls import CHAT, KEY, ONE_FACE, QUICK, good

NAME = "models.test"
SLOW = 1.5  # seconds that a slow name takes; more than three tries at the connect limit


# ---- names (3, 4, 5) --------------------------------------------------------------------------


@pytest.fixture
def name_server(monkeypatch):
    """Answers for NAME with the addresses it is given, or as it is told. Its loop must be asyncio's own, which asks
    Python for addresses."""
    real = socket.getaddrinfo

    def name_server(found):
        asked = []

        def getaddrinfo(host, port, *rest, **more):
            if host != NAME:
                return real(host, port, *rest, **more)
            asked.append(host)
            addresses = found() if callable(found) else found
            return [_row(address, port) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return name_server


def _row(address, port):
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))


@ONE_FACE
@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_AGAIN], ids=["no such name", "no name server"])
def test_a_name_that_leads_nowhere_is_tried_again_and_told_as_such(told, stream, name_server, code):
    def nowhere():
        raise socket.gaierror(code, "so it is")

    asked = name_server(nowhere)
    heard = told(f"https://{NAME}", stream=stream)
    heard.ended_in("connection", sent="no", tries=3, says=f"DNS: the name of {NAME}:443 cannot be resolved: so it is")
    assert heard.error.retryable and len(asked) == 3 and "host name" in heard.error.hint


def test_a_name_that_nobody_ever_gives_is_told_by_any_loop(told, stream):
    heard = told("https://models.invalid", stream=stream)
    heard.ended_in("connection", sent="no", tries=3, says="DNS: the name of models.invalid:443")


@contextmanager
def silent(address, port):
    """An address at which nobody accepts: connecting to it hangs."""
    sockets = [socket.socket()]
    try:
        sockets[0].bind((address, port))
        sockets[0].listen(0)
        for _ in range(8):
            sockets.append(socket.socket())
            sockets[-1].setblocking(False)
            sockets[-1].connect_ex((address, port))
        yield
    finally:
        for each in sockets:
            each.close()


@ONE_FACE
@pytest.mark.parametrize("first", ["100::1", "127.0.0.3", "127.0.0.2"], ids=["no way", "refused", "silent"])
@pytest.mark.skipif(
    sys.platform != "linux", reason="all of 127.0.0.0/8 is this machine, and queues drop, on Linux only"
)
def test_of_several_addresses_one_that_cannot_be_reached_costs_no_try(told, serve, stream, name_server, first):
    server = serve(good(CHAT, stream))
    asked = name_server([first, "127.0.0.1"])
    with silent("127.0.0.2", server.port):
        told(f"http://{NAME}:{server.port}", stream=stream, allow_http=True, connect_timeout=5).ended_well()
    assert len(asked) == len(server.requests) == 1


@ONE_FACE
def test_a_slow_name_counts_into_the_connect_limit_and_holds_nobody_up(told, stream, name_server):
    def slowly():
        time.sleep(SLOW)
        return ["127.0.0.1"]

    name_server(slowly)
    heard = told(f"https://{NAME}", stream=stream, connect_timeout=QUICK)
    heard.ended_in("timeout", sent="no", tries=3, says=f"connect: no connection to {NAME}:443 within {QUICK:g} s")
    assert all(attempt.seconds < SLOW for attempt in heard.error.attempts)  # the loop went on while it took


# ---- TLS (6) ----------------------------------------------------------------------------------


def certificate(folder, *, ends=1, name="127.0.0.1", by=None):
    """A certificate and its key as PEM files, and who signed it: a CA that is made with it."""
    now = dt.datetime.now(dt.UTC)

    def made(subject, key, issuer, issuer_key, ca, names):
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(9)).not_valid_after(now + dt.timedelta(1 if ca else ends))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    def titled(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = made(titled("a root"), root_key, titled("a root"), root_key, True, ())
    try:
        names = [x509.IPAddress(ipaddress.ip_address(name))]
    except ValueError:
        names = [x509.DNSName(name)]
    leaf = made(titled("a server"), key, titled("a root"), root_key, False, names)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(leaf.public_bytes(form[0]) + key.private_bytes(*form))
    (folder / "root.pem").write_bytes(root.public_bytes(form[0]))
    return folder


def serving(folder):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


UNPROVED = {
    "expired": ({"ends": -1}, True, "expired"),
    "wrong name": ({"name": "other.test"}, True, "not valid for"),
    "unknown signer": ({}, False, "certificate"),
}


@pytest.mark.parametrize(("facts", "trusted", "says"), UNPROVED.values(), ids=UNPROVED)
def test_a_server_that_does_not_prove_who_it_is_is_asked_nothing(told, stream, tmp_path, facts, trusted, says):
    folder = certificate(tmp_path, **facts)
    given = {"ca_bundle": str(folder / "root.pem")} if trusted else {}
    with FaultServer(good(CHAT, stream), tls=serving(folder)) as server:
        heard = told(server.url, stream=stream, **given)
        assert server.requests == []
        heard.ended_in("connection", sent="no", says=f"TLS with 127.0.0.1:{server.port} failed: ")
    assert says in heard.error.message and not heard.error.retryable and "ca_bundle" in heard.error.hint


# What a server of TLS 1.0 says to whoever offers no less than 1.2: that it goes on so, or an alert (RFC 5246, E.1).
OLD_HELLO = b"\x03\x01" + bytes(32) + b"\x00\xc0\x14\x00"
OLD = {
    "hello": b"\x16\x03\x01\x00\x2a\x02\x00\x00\x26" + OLD_HELLO,
    "alert": b"\x15\x03\x01\x00\x02\x02\x46",
}


@pytest.mark.parametrize("said", OLD.values(), ids=OLD)
def test_a_server_that_speaks_only_an_old_tls_is_asked_nothing_and_not_met_half_way(told, stream, said):
    with FaultServer(send(said), stall, read_requests=False) as server:
        heard = told(server.url.replace("http", "https"), stream=stream)
        assert server.wait_for(lambda it: it.open_connections == 0) and server.connections == 1
        heard.ended_in("connection", sent="no", says=f"TLS with 127.0.0.1:{server.port} failed: ")
    assert not heard.error.retryable and "ca_bundle" in heard.error.hint


def test_a_server_whose_signer_is_trusted_is_asked(told, stream, tmp_path):
    folder = certificate(tmp_path)
    with FaultServer(good(CHAT, stream), tls=serving(folder)) as server:
        told(server.url, stream=stream, ca_bundle=str(folder / "root.pem")).ended_well()
        assert len(server.requests) == 1


# ---- proxies (8) ------------------------------------------------------------------------------


def test_a_proxy_that_wants_other_credentials_is_named_and_not_asked_again(told, serve, stream):
    proxy = serve(answer(b"", status="407 Proxy Authentication Required"))
    named = proxy.url.replace("//", "//me:hunter2@")
    heard = told(f"https://{NAME}", stream=stream, proxy=named)
    heard.ended_in("connection", sent="no", says=f"through the proxy 127.0.0.1:{proxy.port}: it answered 407")
    assert "credentials" in heard.error.hint and "hunter2" not in str(heard.error) and not heard.error.retryable
    assert [request.split()[0] for request in proxy.requests] == [b"CONNECT"]
    assert KEY.encode() not in b"".join(proxy.requests)


def test_a_proxy_that_is_down_is_named_and_tried_again(told, stream):
    port = refused_port()
    heard = told(f"https://{NAME}", stream=stream, proxy=f"http://me:hunter2@127.0.0.1:{port}")
    heard.ended_in("connection", sent="no", tries=3, says=f"127.0.0.1:{port}")
    assert NAME in heard.error.message and "hunter2" not in str(heard.error) and heard.error.retryable


def test_this_machine_is_never_asked_through_a_proxy(told, serve, stream, monkeypatch):
    proxy = f"http://127.0.0.1:{refused_port()}"
    monkeypatch.setenv("HTTP_PROXY", proxy)
    told(serve(good(CHAT, stream)), stream=stream, proxy=proxy).ended_well()


def test_a_proxy_sees_of_an_encrypted_call_where_it_goes_and_no_more(told, stream, tmp_path):
    folder = certificate(tmp_path, name=NAME)
    with FaultServer(good(CHAT, stream), tls=serving(folder)) as server:
        with FaultServer(tunnel("127.0.0.1", server.port)) as proxy:
            given = {"proxy": proxy.url, "ca_bundle": str(folder / "root.pem")}
            told(f"https://{NAME}", stream=stream, **given).ended_well()
    assert [request.split()[:2] for request in proxy.requests] == [[b"CONNECT", f"{NAME}:443".encode()]]
    assert KEY.encode() in server.requests[0] and KEY.encode() not in proxy.requests[0]


# ---- redirects (14) ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_nobody_goes_where_a_redirect_points_and_no_key_gets_there(told, serve, stream, status):
    with FaultServer(good(CHAT, stream)) as other:
        server = serve(answer(b"", f"location: {other.url}", status=status))
        heard = told(server, stream=stream, kept=1)
        heard.ended_in("bad_response", sent="yes", tries=2, says="redirect")
        assert other.connections == 0 and "base_url" in heard.error.hint
    assert heard.error.status == int(status.split()[0])
