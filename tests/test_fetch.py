"""A URL is fetched only from where the public internet is, and never turned against our own network. Row numbers are
those of the project's list of attacks."""

import asyncio
import base64
import gzip
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
import threading
import zlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox import fetch
from polyvox.errors import InputError
from polyvox.fetch import CODES, Rules
from polyvox.fetch.kinds import media_type_of
from polyvox.fetch.places import is_public, place_of
from polyvox.testing.fault_server import FaultServer, answer, drip, fin, refused_port, send, sleep, stall

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
PUBLIC = "93.184.216.34"


class Names:
    """A resolver that answers by script, and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def __call__(self, host, port):
        self.asked.append(host)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        return found


def here(server, **more):
    """Rules that let the test's own server be reached, and nothing else of this machine."""
    return Rules(**{"allow_http": True, "ports": (server.port,), "allow_private": ("127.0.0.1",), **more})


def refused(url, rules=None, resolver=None, seconds=2.0):
    """The error of a URL that must not be fetched, with the promise that no socket was opened for it."""
    opened = []

    class Watched(socket.socket):
        def connect(self, address):
            opened.append(address)
            raise OSError("no")

    real, socket.socket = socket.socket, Watched
    try:
        with pytest.raises(InputError) as caught:
            fetch.get(url, rules or Rules(allow_http=True, seconds=seconds), resolver=resolver or Names([PUBLIC]))
    finally:
        socket.socket = real
    assert not opened
    error = caught.value
    assert error.code in CODES and error.param == "url" and error.hint and error.sent == "no"
    return error


@pytest.fixture
def forbidden():
    """A server on an address of this machine that the rules do not name; it must never see a connection."""
    listener = socket.socket()
    listener.bind(("127.0.0.2", 0))
    listener.listen()
    listener.settimeout(0.2)
    yield listener.getsockname()[1]
    with pytest.raises(TimeoutError):
        listener.accept()
    listener.close()


# ---- row 17: metadata of clouds ---------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "168.63.129.16", "100.100.100.200", "169.254.170.2", "192.0.0.192", "[fd00:ec2::254]",
     "metadata.google.internal", "metadata", "METADATA.Google.Internal."],
)  # fmt: skip
def test_row_17_metadata_services_are_not_reached(host):
    assert refused(f"http://{host}/latest/meta-data/").code == "url_private"


@pytest.mark.parametrize("address", ["169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254"])
def test_row_17_a_public_name_does_not_lead_to_metadata(address):
    assert refused("https://pictures.example/a.png", resolver=Names([address])).code == "url_private"


def test_row_17_an_allowed_network_does_not_open_the_metadata_in_it():
    wide = Rules(allow_http=True, allow_private=("169.254.0.0/16", "pictures.example"))
    assert refused("http://169.254.169.254/", wide).code == "url_private"
    assert refused("http://pictures.example/", wide, Names(["169.254.169.254"])).code == "url_private"


# ---- row 18: spellings of this machine --------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("0.0.0.0", "url_private"), ("127.0.0.1", "url_private"), ("127.1", "url_invalid"),
        ("0177.0.0.1", "url_invalid"), ("2130706433", "url_invalid"), ("0x7f.1", "url_invalid"),
        ("0x7f000001", "url_invalid"), ("127.0.0.1.", "url_private"), ("[::]", "url_private"), ("[::1]", "url_private"),
        ("[::ffff:127.0.0.1]", "url_private"), ("[::ffff:7f00:1]", "url_private"), ("[::127.0.0.1]", "url_private"),
        ("[64:ff9b::7f00:1]", "url_private"), ("[64:ff9b:1::7f00:1]", "url_private"),
        ("[2002:7f00:1::]", "url_private"),
        ("[2001:0:53aa:64c:0:fbff:80ff:fffe]", "url_private"), ("[::ffff:0:7f00:1]", "url_private"),
        ("[fe80::1]", "url_private"), ("[fe80::1%25eth0]", "url_private"), ("[fec0::1]", "url_private"),
        ("localhost", "url_private"), ("localhost.", "url_private"), ("a.localhost", "url_private"),
        ("\u24dbocalhost", "url_private"), ("127\u30020\u30020\u30021", "url_private"),
        ("\uff11\uff12\uff17.0.0.1", "url_private"), ("127\uff0e0\uff0e0\uff0e1", "url_private"),
        ("printer", "url_private"), ("nas.local", "url_private"), ("db.internal", "url_private"),
        ("10.0.0.8", "url_private"), ("172.16.0.1", "url_private"), ("192.168.1.1", "url_private"),
        ("100.64.0.1", "url_private"), ("224.0.0.1", "url_private"), ("[ff02::1]", "url_private"),
        ("240.0.0.1", "url_private"), ("255.255.255.255", "url_private"), ("192.0.2.1", "url_private"),
        ("198.18.0.1", "url_private"), ("[2001:db8::1]", "url_private"), ("[3fff::1]", "url_private"),
    ],
)  # fmt: skip
def test_row_18_no_spelling_of_an_address_that_is_not_public_is_reached(host, code):
    assert refused(f"http://{host}/", resolver=Names(["127.0.0.1"])).code == code


@given(st.ip_addresses(v=4, network="10.0.0.0/8") | st.ip_addresses(v=4, network="127.0.0.0/8"))
def test_row_18_no_wrapping_makes_a_private_address_public(address):
    number = int(address)
    for wrapped in (0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80, number):
        assert not is_public(ipaddress.IPv6Address(wrapped))
    assert not is_public(address)


@pytest.mark.parametrize("text", [PUBLIC, "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808", "2002:808:808::1"])
def test_a_public_address_is_public(text):
    assert is_public(ipaddress.ip_address(text))


# ---- row 19: rebinding ------------------------------------------------------------------------


def test_row_19_a_name_is_resolved_once_and_what_was_checked_is_connected_to(forbidden):
    # The second answer is an address of this machine on which somebody listens at the same port.
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    with FaultServer(answer(PNG)) as server:
        found = fetch.get(f"http://pictures.example:{server.port}/a.png", here(server), resolver=names)
        assert found.data == PNG and names.asked == ["pictures.example"]
        assert f"Host: pictures.example:{server.port}".encode() in server.requests[0]


def test_row_19_each_redirect_is_resolved_anew_and_a_name_that_turned_private_is_refused(forbidden):
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    with FaultServer(answer(b"", f"location: http://pictures.example:{forbidden}/b", status="302 Found")) as server:
        rules = here(server, ports=(server.port, forbidden))
        with pytest.raises(InputError) as caught:
            fetch.get(f"http://pictures.example:{server.port}/a.png", rules, resolver=names)
    assert caught.value.code == "url_private" and names.asked == ["pictures.example"] * 2
    assert "127.0.0" not in str(caught.value)


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], [PUBLIC, "127.0.0.1"], ["10.0.0.1", PUBLIC], [PUBLIC, "::1"], ["fe80::1%eth0"]]
)
def test_row_19_one_private_address_among_several_refuses_the_name(addresses):
    assert refused("https://pictures.example/a.png", resolver=Names(addresses)).code == "url_private"


@pytest.mark.parametrize("failure", [socket.gaierror(-2, "no"), [], ["nonsense"]])
def test_a_name_without_an_address_is_said_to_have_none(failure):
    assert refused("https://pictures.example/", resolver=Names(failure)).code == "url_unresolved"


# ---- row 20: redirects ------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_row_20_a_redirect_to_a_private_address_is_refused(forbidden, status):
    with FaultServer(answer(b"", f"location: http://127.0.0.2:{forbidden}/", status=status)) as server:
        with pytest.raises(InputError) as caught:
            fetch.get(server.url, here(server, ports=(server.port, forbidden)))
    assert caught.value.code == "url_private"


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("file:///etc/passwd", "url_scheme"), ("gopher://127.0.0.1/", "url_scheme"), ("unix:/run/x", "url_scheme"),
        ("data:text/plain,hello", "url_scheme"), ("//user@127.0.0.1/", "url_userinfo"), ("http://[::1/", "url_invalid"),
        ("http://127.0.0.1:22/", "url_port"), ("/a\tb", "url_invalid"), ("\\\\127.0.0.2\\x", "url_invalid"),
        ("http://localhost/", "url_port"), ("", "url_redirects"),
    ],
)  # fmt: skip
def test_row_20_a_redirect_to_what_is_no_such_url_is_refused(location, code):
    with FaultServer(answer(b"", f"location: {location}", status="302 Found")) as server:
        with pytest.raises(InputError) as caught:
            fetch.get(server.url, here(server))
    assert caught.value.code == code


def test_row_20_redirects_are_followed_so_far_and_no_further_and_carry_nothing_along():
    with FaultServer(answer(b"", "location: /again", "set-cookie: a=1", status="302 Found")) as server:
        with pytest.raises(InputError) as caught:
            fetch.get(server.url, here(server))
        assert caught.value.code == "url_redirects" and len(server.requests) == 4
        assert not any(b"cookie" in request.lower() or b"referer" in request.lower() for request in server.requests)


def test_row_20_https_does_not_redirect_to_http_unless_http_is_allowed():
    assert refused("http://pictures.example/", Rules()).code == "url_scheme"
    with (
        FaultServer(answer(PNG)) as server,
        FaultServer(answer(b"", f"location: {server.url}x", status="302 F")) as first,
    ):
        found = fetch.get(first.url, here(server, ports=(server.port, first.port)))
        assert found == fetch.Fetched(server.url + "x", PNG, "image/png")


# ---- row 21: URLs that are read in two ways ---------------------------------------------------


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://good.example@evil.example/", "url_userinfo"), ("http://u:p@evil.example/", "url_userinfo"),
        ("http://evil.example\\@good.example/", "url_invalid"), ("http:\\\\evil.example/", "url_invalid"),
        ("http://good%00.evil.example/", "url_invalid"), ("http://good.example%2f@evil.example/", "url_userinfo"),
        ("http://good.example#@evil.example/", "url_userinfo"), ("ht\ttp://evil.example/", "url_invalid"),
        ("http://evil.example/\n", "url_invalid"), (" http://evil.example/", "url_invalid"),
        ("http://evil.example/\x00", "url_invalid"), ("http://evil.example/\x7f", "url_invalid"),
        ("http://evil.example:80:443/", "url_invalid"), ("http://evil.example:port/", "url_invalid"),
        ("http://evil.example:99999/", "url_invalid"), ("http://evil.example:0/", "url_port"),
        ("http://evil.example:22/", "url_port"), ("http:///path", "url_invalid"), ("http://", "url_invalid"),
        ("http://a..b/", "url_invalid"), ("http://-a.example/", "url_invalid"), ("http://[::1/", "url_invalid"),
        ("http://[v1.x]/", "url_invalid"), ("http://ex\u2028ample.example/", "url_invalid"),
        ("http://xn--/", "url_invalid"), ("http://" + "a" * 64 + ".example/", "url_invalid"), ("", "url_invalid"),
        ("http://x.example/" + "a" * 9000, "url_invalid"), (None, "url_invalid"), (b"http://x.example/", "url_invalid"),
        ("http://\ud800.example/", "url_invalid"), ("http://\u0300\u0300.example/", "url_invalid"),
    ],
)  # fmt: skip
def test_row_21_a_url_that_two_programs_may_read_differently_is_refused(url, code):
    assert refused(url).code == code


@given(st.text(max_size=40))
def test_row_21_any_text_is_a_place_on_a_port_that_is_allowed_or_a_refusal(text):
    for url in (text, f"https://{text}", f"https://pictures.example/{text}"):
        try:
            place = place_of(url)
        except InputError as error:
            assert error.code in CODES
        else:
            assert place.scheme == "https" and place.port in (80, 443)
            assert place.host.isascii() and place.target.isascii() and place.target.startswith("/")


def test_a_url_keeps_its_path_and_query_to_the_byte_and_loses_its_fragment():
    place = place_of("https://Pictures.EXAMPLE./a%2Fb;c=1,d/é?sig=%2B+=&x=[1]#part")
    assert (place.host, place.port) == ("pictures.example", 443)
    assert place.target == "/a%2Fb;c=1,d/%C3%A9?sig=%2B+=&x=[1]"
    assert place_of("https://bücher.example/").host == "xn--bcher-kva.example"


# ---- row 22: too much -------------------------------------------------------------------------


def test_row_22_a_data_url_is_decoded_here_within_its_bound():
    assert fetch.get("data:image/png;base64," + base64.b64encode(PNG).decode()) == fetch.Fetched("", PNG, "image/png")
    assert fetch.get("data:,a%20b") == fetch.Fetched("", b"a b", "text/plain")
    big = "data:;base64," + "A" * 4000
    assert refused(big, Rules(max_bytes=2999)).code == "url_too_large"
    assert refused("data:," + "%41" * 11, Rules(max_bytes=10)).code == "url_too_large"
    assert refused("data:," + "a" * 11, Rules(max_bytes=10)).code == "url_too_large"
    assert fetch.get(big, Rules(max_bytes=3000)).data == bytes(3000)


@pytest.mark.parametrize("url", ["data:", "data:text/plain", "data:;base64,***", "data:;base64,\u00e9", "data:,\ud800"])
def test_row_22_a_data_url_that_is_none_is_refused(url):
    assert refused(url).code == "url_invalid"


def bomb(size):
    return zlib.compress(bytes(size), 9)


@pytest.mark.parametrize(
    "script",
    [
        [answer(bytes(2000))],
        [send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + bytes(2000)), fin],
        [answer(bomb(50_000_000), "content-encoding: deflate")],
        [answer(gzip.compress(bytes(2000)), "content-encoding: gzip")],
        [answer(b"".join(gzip.compress(b"") for _ in range(100)), "content-encoding: gzip")],
        [send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + (b"3e8\r\n" + bytes(1000) + b"\r\n") * 3)],
    ],
    ids=["length", "until the end", "bomb", "gzip", "many members", "chunks"],
)
def test_row_22_more_than_the_bound_is_not_held_however_it_comes(script):
    with FaultServer(*script) as server, pytest.raises(InputError) as caught:
        fetch.get(server.url, here(server, max_bytes=1000, seconds=5))
    assert caught.value.code == "url_too_large"


def test_row_22_a_picture_is_what_its_bytes_say_and_not_what_a_server_says():
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    with FaultServer(answer(svg, "content-type: image/png")) as server:
        assert fetch.get(server.url, here(server)).media_type == "text/plain"
    with FaultServer(answer(PNG, "content-type: text/html")) as server:
        assert fetch.get(server.url, here(server)).media_type == "image/png"


# ---- row 23: not a URL of the web -------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "/etc/passwd", "C:/x", "ftp://x.example/", "gopher://x.example/", "unix:/run/x",
            "//x.example/", "javascript:alert(1)", "jar:http://x.example/!a"]
)  # fmt: skip
def test_row_23_only_the_web_is_fetched_from(url):
    assert refused(url).code == "url_scheme"


# ---- what is allowed on purpose ---------------------------------------------------------------


@pytest.mark.parametrize("allowed", ["127.0.0.1", "127.0.0.0/8", "files.internal", "Files.Internal."])
def test_a_private_host_is_reached_where_the_rules_name_it_or_its_network(allowed):
    with FaultServer(answer(PNG)) as server:
        rules = here(server, allow_private=(allowed,))
        assert fetch.get(f"http://files.internal:{server.port}/", rules, resolver=Names(["127.0.0.1"])).data == PNG


@pytest.mark.parametrize("allowed", ["127.0.0.2", "10.0.0.0/8", "other.internal", "internal", "::/0"])
def test_another_name_or_network_does_not_open_it(allowed):
    rules = Rules(allow_http=True, allow_private=(allowed,))
    assert refused("http://files.internal/", rules, Names(["127.0.0.1"])).code == "url_private"


def test_a_name_of_ours_that_leads_to_the_public_is_refused_all_the_same():
    rules = Rules(allow_http=True, allow_private=("10.0.0.0/8",))
    assert refused("http://files.internal/", rules, Names([PUBLIC])).code == "url_private"


@pytest.mark.parametrize(
    "wrong",
    [{"max_bytes": 0}, {"max_bytes": "1"}, {"seconds": 0}, {"seconds": float("nan")}, {"seconds": True},
     {"redirects": -1}, {"ports": (0,)}, {"ports": ("80",)}, {"allow_private": "10.0.0.0/8"},
     {"allow_private": (5,)}, {"allow_private": ("10.0.0/33",)}],
)  # fmt: skip
def test_rules_that_mean_nothing_are_refused(wrong):
    with pytest.raises(InputError) as caught:
        Rules(**wrong)
    assert caught.value.param


# ---- the way there and back -------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for pictures.example with its key, trusted by nobody who is not told to."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pictures.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("pictures.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


TRUSTING = """
import sys
from polyvox import fetch
from polyvox.errors import InputError
async def names(host, port):
    return ["127.0.0.1"]
port = int(sys.argv[1])
rules = fetch.Rules(ports=(port,), allow_private=("127.0.0.1",))
for host in ("pictures.example", "other.example"):
    try:
        print(len(fetch.get(f"https://{host}:{port}/", rules, resolver=names).data))
    except InputError as error:
        print(error.code)
"""


def test_tls_is_made_and_checked_for_the_name_of_the_url_though_an_address_is_connected_to(certificate):
    asked = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda connection, name, context: asked.append(name)
    trusting = {**os.environ, "SSL_CERT_FILE": str(certificate)}
    with FaultServer(answer(PNG), tls=context) as server:
        done = subprocess.run(
            [sys.executable, "-c", TRUSTING, str(server.port)],
            capture_output=True, text=True, timeout=60, check=False, env=trusting,
        )  # fmt: skip
        assert done.stdout.split() == [str(len(PNG)), "url_unreachable"], done.stderr
        assert asked == ["pictures.example", "other.example"] and len(server.requests) == 1


def test_a_certificate_that_nobody_trusts_is_not_accepted(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with FaultServer(answer(PNG), tls=context) as server:
        rules = here(server, allow_http=False)
        with pytest.raises(InputError) as caught:
            fetch.get(f"https://pictures.example:{server.port}/", rules, resolver=Names(["127.0.0.1"]))
        assert caught.value.code == "url_unreachable" and not server.requests


def test_no_proxy_no_cookie_and_no_credentials_go_along(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with FaultServer(answer(PNG)) as server, FaultServer(answer(b"proxied")) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert fetch.get(server.url, here(server)).data == PNG
        assert proxy.connections == 0
        head = server.requests[0].lower()
    assert not any(word in head for word in (b"authorization", b"cookie", b"referer", b"proxy", b"secret"))


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "204 No Content", "304 Not Modified", "401 Who"])
def test_an_error_of_the_server_is_told_without_its_words(status):
    with FaultServer(send(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nx-secret: s3cr3t\r\n\r\n".encode())) as server:
        with pytest.raises(InputError) as caught:
            fetch.get(server.url + "?token=s3cr3t", here(server))
    assert caught.value.code in ("url_status", "url_content") and "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ([send(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nabc"), fin], "url_unreachable"),
        ([send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"), fin], "url_unreachable"),
        ([fin], "url_unreachable"),
        ([send(b"SSH-2.0-x\r\n\r\n"), fin], "url_unreachable"),
        ([send(b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 70_000 + b"\r\n\r\n"), fin], "url_unreachable"),
        ([answer(b"")], "url_content"),
        ([answer(b"abc", "content-encoding: gzip")], "url_encoding"),
        ([answer(gzip.compress(PNG)[:-6], "content-encoding: gzip")], "url_encoding"),
        ([answer(PNG, "content-encoding: br")], "url_encoding"),
        ([answer(gzip.compress(gzip.compress(PNG)), "content-encoding: gzip, gzip")], "url_encoding"),
    ],
)
def test_what_is_not_whole_is_not_taken_for_whole(script, code):
    with FaultServer(*script) as server, pytest.raises(InputError) as caught:
        fetch.get(server.url, here(server))
    assert caught.value.code == code


def test_nobody_listening_is_told_as_unreachable_and_nothing_more():
    port = refused_port()
    with pytest.raises(InputError) as caught:
        fetch.get(f"http://127.0.0.1:{port}/", Rules(allow_http=True, ports=(port,), allow_private=("127.0.0.1",)))
    assert caught.value.code == "url_unreachable" and "refused" not in str(caught.value).lower()


@pytest.mark.parametrize(
    "script",
    [[stall], [send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"), stall], [drip(b"HTTP/1.1 200 OK\r\n", 0.1)],
     [sleep(0.2), send(b"HTTP/1.1 302 F\r\nlocation: /a\r\ncontent-length: 0\r\n\r\n")]],
    ids=["head", "body", "drip", "redirects"],
)  # fmt: skip
def test_time_is_bounded_for_all_of_it_together(script):
    with FaultServer(*script) as server, pytest.raises(InputError) as caught:
        fetch.get(server.url, here(server, seconds=0.3, redirects=50))
    assert caught.value.code == "url_timeout"


def test_a_slow_resolver_is_bounded_too_and_blocks_nobody():
    async def slow(host, port):
        await asyncio.sleep(5)

    assert refused("https://pictures.example/", Rules(seconds=0.1), slow).code == "url_timeout"


def test_gzip_is_decoded_and_text_keeps_the_type_it_is_sent_with():
    body = gzip.compress("é,1\n".encode())
    with FaultServer(answer(body, "content-encoding: gzip", "content-type: text/csv; charset=utf-8")) as server:
        assert fetch.get(server.url, here(server)) == fetch.Fetched(server.url, "é,1\n".encode(), "text/csv")


def test_a_fetch_leaves_no_connection_and_no_thread_behind():
    with FaultServer(answer(PNG)) as server:
        fetch.get(server.url, here(server))
        before = threading.active_count(), len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
        for _ in range(3):
            fetch.get(server.url, here(server))
        assert server.wait_for(lambda it: it.open_connections == 0)
        now = threading.active_count(), len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    assert now[0] <= before[0] and now[1] <= before[1] + 1


def test_a_url_named_twice_is_fetched_once_and_the_first_failure_ends_all():
    async def both():
        with FaultServer(answer(PNG)) as server:
            found = await fetch.get_all([server.url, server.url, server.url + "b"], here(server))
            assert {url: one.data for url, one in found.items()} == {server.url: PNG, server.url + "b": PNG}
            assert len(server.requests) == 2
            with pytest.raises(InputError) as caught:
                await fetch.get_all([server.url, "file:///etc/passwd"], here(server))
            assert caught.value.code == "url_scheme"
            with pytest.raises(InputError) as caught:
                await fetch.get_all([f"{server.url}{number}" for number in range(33)], here(server))
            assert caught.value.code == "url_count"

    asyncio.run(both())


@pytest.mark.parametrize(
    ("data", "declared", "kind"),
    [
        (b"\xff\xd8\xff\xe0", "image/png", "image/jpeg"), (b"RIFF\x00\x00\x00\x00WEBPVP8 ", None, "image/webp"),
        (b"XXXX\x00\x00\x00\x00WEBP", "image/webp", "text/plain"), (b"RIFF\x00\x00\x00\x00WAVEfmt ", None, "audio/wav"),
        (b"%PDF-1.7", "text/html", "application/pdf"), (b"\x00\x00\x00\x18ftypmp42", None, "video/mp4"),
        (b" \n<!DOCTYPE html><p>", "image/png", "text/html"), (b'{"a": 1}', "application/json", "application/json"),
        (b"hello", None, "text/plain"), (b"\xfe\xff\x00", "image/png", "application/octet-stream"),
        (b"\xfe\xff\x00", "application/msword", "application/msword"), (b"\xfe\xff", None, "application/octet-stream"),
    ],
)  # fmt: skip
def test_bytes_are_what_they_show_themselves_to_be(data, declared, kind):
    assert media_type_of(data, declared) == kind
