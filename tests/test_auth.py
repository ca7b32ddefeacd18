"""A key becomes exactly what its scheme names, or an error that does not show it; what is signed verifies, a token is
fetched once, and no proof is in anything but the request it proves."""

import asyncio
import base64
import calendar
import io
import itertools
import json
import logging
import re
import traceback
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox import AsyncClient, Client
from polyvox.auth import SCHEMES, Tools, credentials, prover, query, rekeyed
from polyvox.auth import rs256 as tokens
from polyvox.auth.google import METADATA, AccessToken
from polyvox.auth.sigv4 import AwsKeys, Scope, Signable, sign
from polyvox.catalog import AUTH_SCHEMES, Provider, load
from polyvox.client.access import proof_carrier
from polyvox.config import load as load_settings
from polyvox.dialects import Reply
from polyvox.errors import AuthError, BadResponseError, ConfigError, MissingKeyError, PolyvoxError, ServerError
from polyvox.keys import Secret, allowed_host, find_key, redact
from polyvox.testing.fault_server import FaultServer, answer
from polyvox.transports import Outgoing
from tests.scripted import Answer, Scripted, failed, said, streamed


def provider(**more):
    return Provider(**{"name": "p", "dialect": "openai.chat", "base_url": "https://p.test/v1", **more})


@pytest.mark.parametrize(
    ("row", "headers"),
    [
        ({"auth": "bearer"}, {"authorization": "Bearer k-123"}),
        ({"auth": "header", "auth_header": "X-Api-Key"}, {"x-api-key": "k-123"}),
        ({"auth": "query", "auth_header": "key"}, {}),
        ({"auth": "azure"}, {"api-key": "k-123"}),
        ({"auth": "google"}, {"authorization": "Bearer k-123"}),
        ({"auth": "sigv4"}, {"authorization": "Bearer k-123"}),
        ({"auth": "none"}, {}),
    ],
)
def test_each_scheme_makes_its_header(row, headers):
    assert credentials(provider(**row), Secret("k-123")) == headers


def test_a_key_for_the_url_is_encoded_into_it():
    assert query(provider(auth="query", auth_header="key"), Secret("a&b=c d")) == "key=a%26b%3Dc%20d"
    assert query(provider(), Secret("k")) == query(provider(auth="query", auth_header="key"), None) == ""


def test_a_token_of_entra_goes_where_a_key_of_azure_would_not():
    token = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln"
    assert credentials(provider(auth="azure"), Secret(token)) == {"authorization": f"Bearer {token}"}


def test_a_key_that_signs_or_fetches_is_in_no_header_that_stays():
    assert credentials(provider(auth="sigv4"), Secret("AKID:secret")) == {}
    assert credentials(provider(auth="google"), Secret('{"type": "x"}')) == {}
    assert credentials(provider(auth="google"), Secret(METADATA)) == {}


def test_every_scheme_a_row_may_name_is_there():
    assert set(SCHEMES) == set(AUTH_SCHEMES)


def test_without_a_key_nothing_is_claimed():
    assert credentials(provider(), None) == {}
    assert credentials(provider(), Secret("")) == {}


def test_secret_headers_go_along_with_and_without_a_key():
    row = provider(secret_headers={"CF-Access-Client-Secret": Secret("s-1")})
    assert credentials(row, None) == {"cf-access-client-secret": "s-1"}
    assert credentials(row, Secret("k")) == {"cf-access-client-secret": "s-1", "authorization": "Bearer k"}


@pytest.mark.parametrize(
    ("url_source", "sent"),
    [("argument", False), ("env OPENAI_BASE_URL", False), ("/c.toml:2", True), ("/.env:1", False)],
)
def test_secret_headers_do_not_follow_an_address_from_elsewhere(url_source, sent):
    overrides = {"openai": {"base_url": "https://evil.test/v1", "secret_headers": {"x-key": Secret("s-1")}}}
    origins = {"providers.openai.base_url": url_source, "providers.openai.secret_headers.x-key": "/c.toml:3"}
    row = load().with_overrides(overrides, origins).providers["openai"]
    if sent:
        assert credentials(row, None) == {"x-key": "s-1"}
    else:
        with pytest.raises(AuthError, match=r"not sent to evil\.test"):
            credentials(row, None)


@pytest.mark.parametrize("value", ["canary\nX-Evil: 1", "canary\r", " canary", "canary…", "can\x00ary", "canary\x7f"])
def test_a_key_that_cannot_stand_in_a_header_is_refused_unseen(value):
    with pytest.raises(AuthError) as caught:
        credentials(provider(), Secret(value))
    assert "canary" not in str(caught.value) + repr(caught.value.describe())
    assert caught.value.sent == "no" and caught.value.hint


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "X-API-KEY", "api-key", "x-goog-api-key", "Cookie"])
def test_a_clients_own_proof_never_goes_on(name):
    headers = {name: "Bearer theirs", "anthropic-beta": "a,b", "User-Agent": "x"}
    passed = rekeyed(headers, {"authorization": "Bearer ours"})
    assert passed == {"anthropic-beta": "a,b", "user-agent": "x", "authorization": "Bearer ours"}


def test_what_belongs_to_the_clients_connection_stays_there():
    headers = {"Connection": "close, X-Hop", "x-hop": "1", "Host": "gate", "Content-Length": "5", "x-stainless-os": "L"}
    assert rekeyed(headers, {}) == {"x-stainless-os": "L"}


# ---- SigV4 ------------------------------------------------------------------------------------

AWS = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
VANILLA = calendar.timegm((2015, 8, 30, 12, 36, 0))
NOON = calendar.timegm((2026, 11, 21, 12, 0, 0))
RUNTIME = "https://bedrock-runtime.us-east-1.amazonaws.com"
ARN = "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fx"
JSON = {"Content-Type": "application/json"}


def signature_of(headers):
    return headers["authorization"].rpartition("Signature=")[2]


@pytest.mark.parametrize(
    ("request_", "service", "now", "signature"),
    [
        # The first three are AWS's own: get-vanilla and post-vanilla of its test suite, and ListUsers of its guide.
        (Signable("GET", "https://example.amazonaws.com/", {}, b""), "service", VANILLA,
         "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (Signable("POST", "https://example.amazonaws.com/", {}, b""), "service", VANILLA,
         "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (Signable("GET", "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08",
                  {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}, b""), "iam", VANILLA,
         "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"),
        # The others are botocore's, 1.44.
        (Signable("POST", f"{RUNTIME}/model/us.amazon.nova-lite-v1%3A0/converse", JSON, b'{"messages":[]}'),
         "bedrock", NOON, "4dc1f3c9eb72e7bc036235391b947f0fa05c3c7a953f6552b90c88c0967e6059"),
        (Signable("GET", "https://bedrock.us-east-1.amazonaws.com/foundation-models?byProvider=meta&a=b%20c&a=a",
                  {}, b""), "bedrock", NOON, "627eb8d00217686b7e177e1ce144af19122439410d5ef1b9cea1d6ac7d96587e"),
        (Signable("POST", "http://127.0.0.1:8443/a/b/", {**JSON, "X-Amz-Extra": "  a   b "}, '{"é":"€"}'.encode()),
         "bedrock", NOON, "3c4928c531d3f00c9dc334045a35052fe325c4d7be412e66b5e0e894b6c046c0"),
        (Signable("GET", "https://x.amazonaws.com/a//b/../c/./d~e%20f", {}, b""), "bedrock", NOON,
         "dae85db8ba5e0c318859b5ca8602304cfcda4516ff71855dc9eb7c2eab03334f"),
        (Signable("GET", "https://x.amazonaws.com", {}, b""), "bedrock", NOON,
         "7c9f132934688127b8f0bd223a8e37da86ca222dc0c0a2beae35a57a40ec2fd9"),
    ],
)  # fmt: skip
def test_a_request_is_signed_as_aws_signs_it(request_, service, now, signature):
    made = sign(request_, AWS, Scope("us-east-1", service), now)
    assert signature_of(made) == signature
    assert "x-amz-security-token" not in made


def test_a_temporary_key_sends_its_token_and_signs_it():
    keys = AwsKeys(AWS.id, AWS.secret, "FwoGZXIvYXdzEXAMPLE==")
    request = Signable("POST", f"{RUNTIME}/model/{ARN}/converse-stream", JSON, b"{}")
    made = sign(request, keys, Scope("us-east-1", "bedrock"), NOON)
    assert signature_of(made) == "a68bc2043a19334ad621ecab46cc64db5e8c5a50440e24c0153265c396c2b832"  # botocore's
    assert made["x-amz-security-token"] == "FwoGZXIvYXdzEXAMPLE==" and made["x-amz-date"] == "20261121T120000Z"
    names = "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token,"
    assert f"Credential={AWS.id}/20261121/us-east-1/bedrock/aws4_request, {names}" in made["authorization"]


@given(st.binary(max_size=40), st.integers(0, 39), st.integers(1, 255))
def test_a_body_with_one_byte_changed_has_another_signature(body, at, change):
    changed = bytearray(body or b"x")
    changed[at % len(changed)] ^= change
    scope = Scope("us-east-1", "bedrock")
    one, other = (
        sign(Signable("POST", f"{RUNTIME}/m", {}, bytes(data)), AWS, scope, NOON) for data in (body or b"x", changed)
    )
    assert signature_of(one) != signature_of(other)


def aws_settings(url="https://bedrock-runtime.us-east-1.amazonaws.com", **options):
    row = {"dialect": "openai.chat", "base_url": url, "options": {"region": "us-east-1", **options}}
    return load_settings(arguments={"providers": {"bedrock": row}}, files=[], env={})


def test_what_arrives_verifies_with_the_key_that_signed_it():
    with FaultServer(answer(b'{"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]}')) as server:
        settings = aws_settings(server.url + "v1")
        with Client("bedrock/m", api_key=f"{AWS.id}:{AWS.secret}:tok", settings=settings, retries=0) as client:
            assert client.ask("grüße").text == "ok"
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    came = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    when = came["x-amz-date"]
    now = calendar.timegm((int(when[:4]), int(when[4:6]), int(when[6:8]), int(when[9:11]), int(when[11:13]),
                           int(when[13:15])))  # fmt: skip
    signed = came["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "content-type", "x-amz-date", "x-amz-security-token"} == set(signed)
    request = Signable("POST", f"http://{came['host']}{first.split()[1]}", {name: came[name] for name in signed}, body)
    again = sign(request, AwsKeys(AWS.id, AWS.secret, "tok"), Scope("us-east-1", "bedrock"), now)
    assert again["authorization"] == came["authorization"]


@pytest.mark.parametrize("streaming", [False, True])
def test_every_attempt_is_signed_anew(streaming, monkeypatch):
    clock = itertools.count(NOON, 7)
    monkeypatch.setattr("time.time", lambda: next(clock))
    transport = Scripted(failed(500), streamed("ok") if streaming else said("ok"))
    client = Client("bedrock/m", api_key=f"{AWS.id}:{AWS.secret}", settings=aws_settings(), transport=transport)
    client._async._engine.sleep = lambda _: asyncio.sleep(0)
    assert (client.stream("hi").finish() if streaming else client.ask("hi")).text == "ok"
    first, second = transport.sent
    assert first.headers["x-amz-date"] < second.headers["x-amz-date"]
    assert first.headers["authorization"] != second.headers["authorization"]
    assert (first.body, first.url) == (second.body, second.url)


@pytest.mark.parametrize("key", ["AKID:", ":secret", "a:b:c:d", "AKID:sec\nret"])
def test_a_key_that_is_no_access_key_is_refused_unseen(key):
    row = provider(auth="sigv4", options={"region": "us-east-1", "service": "bedrock"})
    with pytest.raises(AuthError) as caught:
        prover(row, Secret(key), Tools(None, float))
    assert caught.value.sent == "no" and "secret" not in str(caught.value)


def test_the_parts_of_an_access_key_are_one_key_and_a_token_goes_before_them():
    row = load().providers["bedrock"]
    env = {"AWS_ACCESS_KEY_ID": "AKIDX", "AWS_SECRET_ACCESS_KEY": "secret-part", "AWS_SESSION_TOKEN": "session-part"}
    found = find_key(row, env=env)
    assert (found.secret.reveal(), found.source) == ("AKIDX:secret-part:session-part", "env AWS_ACCESS_KEY_ID")
    assert find_key(row, env={**env, "AWS_SESSION_TOKEN": ""}).secret.reveal() == "AKIDX:secret-part"
    assert find_key(row, env={**env, "AWS_BEARER_TOKEN_BEDROCK": "bearer"}).secret.reveal() == "bearer"
    assert find_key(row, env={"AWS_ACCESS_KEY_ID": "AKIDX", "POLYVOX_HOME": "/nowhere"}) is None


def test_a_dotenv_file_may_hold_the_parts_and_the_region(tmp_path):
    file = tmp_path / ".env"
    file.write_text("AWS_REGION=eu-central-1\nAWS_ACCESS_KEY_ID=AKIDX\nAWS_SECRET_ACCESS_KEY=secret-part\n")
    file.chmod(0o600)
    settings = load_settings(dotenv=file, files=[], env={})
    row = load().with_overrides(settings.providers, settings.origins).providers["bedrock"]
    found = find_key(row, settings, env={"POLYVOX_HOME": str(tmp_path)})
    assert (found.secret.reveal(), found.source) == ("AKIDX:secret-part", f"config {file}:2")
    assert row.options["region"] == "eu-central-1"
    assert settings.origins["providers.bedrock.options.region"] == f"{file}:1"


# ---- tokens of Google -------------------------------------------------------------------------

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SMALL = rsa.generate_private_key(public_exponent=65537, key_size=1024)


def pem(key, form=serialization.PrivateFormat.PKCS8):
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
@settings(deadline=None)
@given(data=st.binary(max_size=100))
def test_a_signature_is_the_one_a_cryptography_library_makes(form, data):
    assert tokens.signature(tokens.read_key(pem(RSA, form)), data) == RSA.sign(
        data, padding.PKCS1v15(), hashes.SHA256()
    )


@pytest.mark.parametrize(
    "text",
    ["", "canary", "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----",
     "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----", pem(SMALL), pem(RSA).replace("M", "N", 3),
     pem(ec.generate_private_key(ec.SECP256R1())), pem(RSA)[:900]],
)  # fmt: skip
def test_what_is_no_rsa_key_is_refused_unseen(text):
    with pytest.raises(ValueError, match="is not an RSA private key") as caught:
        tokens.read_key(text)
    assert "canary" not in str(caught.value) and "Y2Fu" not in str(caught.value)


@given(st.binary(max_size=200))
def test_no_bytes_in_a_pem_block_raise_anything_else(data):
    block = base64.b64encode(data).decode()
    with pytest.raises(ValueError, match="is not an RSA private key"):
        tokens.read_key(f"-----BEGIN PRIVATE KEY-----\n{block}\n-----END PRIVATE KEY-----")


def account(**more):
    return json.dumps({
        "type": "service_account", "client_email": "me@p.iam.gserviceaccount.com", "private_key": pem(RSA),
        "private_key_id": "kid-1", "token_uri": "https://oauth2.googleapis.com/token", **more,
    })  # fmt: skip


LOGIN = json.dumps({
    "type": "authorized_user", "client_id": "id-1", "client_secret": "client-secret-1",
    "refresh_token": "refresh-token-1", "quota_project_id": "quota-1",
})  # fmt: skip
TOKEN = "ya29.canary-token-0123456789"


class Server:
    """A token server: counts what it is asked, and gives a new token each time."""

    def __init__(self, *replies, seconds=3600):
        self.replies = list(replies)
        self.seconds = seconds
        self.asked = []
        self.pause = 0.0

    async def __call__(self, method, url, headers, body):
        self.asked.append((method, url, dict(headers), body))
        await asyncio.sleep(self.pause)
        if self.replies:
            reply = self.replies.pop(0)
            if isinstance(reply, BaseException):
                raise reply
            return reply
        return token_reply(f"{TOKEN}-{len(self.asked)}", self.seconds)


def token_reply(token, seconds=3600):
    return Reply(200, {}, json.dumps({"access_token": token, "expires_in": seconds, "token_type": "Bearer"}).encode())


class Clock:
    now = float(NOON)

    def __call__(self):
        return self.now


def test_a_service_account_signs_a_token_that_verifies_with_its_public_key():
    server = Server()
    headers = asyncio.run(AccessToken(account(), server, Clock()).headers())
    assert headers == {"authorization": f"Bearer {TOKEN}-1"}
    ((method, url, _, body),) = server.asked
    assert (method, url) == ("POST", "https://oauth2.googleapis.com/token")
    form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    said_part, _, signature = form["assertion"].rpartition(".")
    head, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in said_part.split("."))
    assert head == {"alg": "RS256", "typ": "JWT", "kid": "kid-1"}
    assert (claims["iss"], claims["aud"]) == ("me@p.iam.gserviceaccount.com", url)
    assert (claims["iat"], claims["exp"]) == (NOON, NOON + 3600)
    RSA.public_key().verify(
        base64.urlsafe_b64decode(signature + "=="), said_part.encode(), padding.PKCS1v15(), hashes.SHA256()
    )


def test_a_users_login_is_exchanged_and_its_project_pays():
    server = Server()
    headers = asyncio.run(AccessToken(LOGIN, server, Clock()).headers())
    assert headers == {"authorization": f"Bearer {TOKEN}-1", "x-goog-user-project": "quota-1"}
    form = parse_qs(server.asked[0][3].decode())
    assert (form["grant_type"], form["refresh_token"]) == (["refresh_token"], ["refresh-token-1"])


def test_the_machine_itself_is_asked_only_when_that_is_the_key():
    server = Server()
    asyncio.run(AccessToken(METADATA, server, Clock()).headers())
    method, url, headers, _ = server.asked[0]
    assert (method, headers) == ("GET", {"metadata-flavor": "Google"})
    assert url.startswith("http://metadata.google.internal/")


def test_the_way_to_the_machine_itself_is_no_proxys_and_no_recordings():
    def never():
        raise AssertionError("the usual transport is not for this")

    with FaultServer(answer(token_reply(TOKEN).body)) as server:
        reply = asyncio.run(proof_carrier(None, never)("GET", f"{server.url}token", {"metadata-flavor": "Google"}, b""))
        assert b"metadata-flavor: Google" in server.requests[0]
    assert reply.body == token_reply(TOKEN).body


def test_a_token_is_kept_until_shortly_before_it_expires():
    server, clock = Server(), Clock()

    async def go():
        token = AccessToken(account(), server, clock)
        seen = []
        for seconds in (0, 3000, 299, 2, 1):
            clock.now += seconds
            seen.append((await token.headers())["authorization"][-1])
        return seen

    assert asyncio.run(go()) == ["1", "1", "1", "2", "2"]


def test_many_calls_at_once_fetch_one_token_also_when_one_of_them_gives_up():
    server = Server()
    server.pause = 0.02

    async def go():
        token = AccessToken(account(), server, Clock())
        calls = [asyncio.create_task(token.headers()) for _ in range(50)]
        await asyncio.sleep(0)
        calls[0].cancel()
        return await asyncio.gather(*calls, return_exceptions=True)

    first, *others = asyncio.run(go())
    assert isinstance(first, asyncio.CancelledError) and len(server.asked) == 1
    assert others == [{"authorization": f"Bearer {TOKEN}-1"}] * 49


def test_one_token_serves_several_event_loops():
    server = Server()
    token = AccessToken(account(), server, Clock())
    assert asyncio.run(token.headers()) == asyncio.run(token.headers())
    assert len(server.asked) == 1


def test_a_failed_fetch_is_told_to_each_caller_and_tried_anew_by_the_next():
    server = Server(Reply(503, {}, b"busy"))
    server.pause = 0.01

    async def go():
        token = AccessToken(account(), server, Clock())
        failures = await asyncio.gather(token.headers(), token.headers(), return_exceptions=True)
        return failures, await token.headers()

    (one, other), headers = asyncio.run(go())
    assert isinstance(one, ServerError) and isinstance(other, ServerError) and one is not other
    assert (one.retryable, one.sent, one.status) == (True, "no", 503)
    assert headers["authorization"].endswith("-2")


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(400, {}, b'{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}'), AuthError),
        (Reply(401, {}, b"no"), AuthError),
        (Reply(500, {}, b""), ServerError),
        (Reply(200, {}, b"<html>canary</html>"), BadResponseError),
        (Reply(200, {}, b'{"id_token": "canary"}'), BadResponseError),
        (Reply(200, {}, b'["canary"]'), BadResponseError),
        (Reply(200, {}, b'{"access_token": "can\\nary"}'), BadResponseError),
    ],
)
def test_no_token_is_an_error_of_ours_that_says_so(reply, kind):
    with pytest.raises(kind, match="no access token") as caught:
        asyncio.run(AccessToken(account(), Server(reply), Clock()).headers())
    assert caught.value.sent == "no" and "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "is not JSON"), (' {"a": 1', "is not JSON"), ("{}", "is of type 'None'"),
        ('{"type": "external_account"}', "is of type 'external_account'"),
        (account(private_key=""), "has no private_key"), (account(client_email=5), "has no client_email"),
        (account(private_key="canary"), "is not an RSA private key"),
        (account(token_uri="http://evil.test/token"), "no https URL"), (account(token_uri=5), "no https URL"),
        ('{"type": "authorized_user", "client_id": "i", "client_secret": "canary"}', "has no refresh_token"),
    ],
)  # fmt: skip
def test_a_key_file_that_cannot_be_used_says_why_and_shows_nothing(text, what):
    with pytest.raises(AuthError) as caught:
        prover(provider(auth="google"), Secret(text), Tools(Server(), Clock()))
    assert what in str(caught.value) and "canary" not in str(caught.value)
    assert caught.value.provider == "p"


def vertex_settings(**row):
    options = {"project": "p-1", "location": "global"}
    row = {"dialect": "openai.chat", "options": options, **row}
    return load_settings(arguments={"providers": {"vertex": row}}, files=[], env={})


def test_a_call_gets_its_token_first_and_two_models_share_it():
    token = Answer(token_reply(TOKEN).body)
    transport = Scripted(token, said("one"), said("two"))
    client = Client("vertex/a", api_key=account(), settings=vertex_settings(), transport=transport)
    assert (client.ask("hi").text, client.ask("hi", model="vertex/b").text) == ("one", "two")
    fetched, first, second = transport.sent
    assert fetched.url == "https://oauth2.googleapis.com/token"
    assert first.headers["authorization"] == second.headers["authorization"] == f"Bearer {TOKEN}"
    assert first.url.startswith("https://aiplatform.googleapis.com/v1/projects/p-1/locations/global/")


def test_a_key_file_is_found_where_google_puts_it_and_one_that_is_named_must_be_there(tmp_path):
    row = load().providers["vertex"]
    env = {"HOME": str(tmp_path), "POLYVOX_HOME": str(tmp_path)}
    assert find_key(row, env=env) is None
    usual = tmp_path / ".config/gcloud/application_default_credentials.json"
    usual.parent.mkdir(parents=True)
    usual.write_text(LOGIN)
    found = find_key(row, env=env)
    assert (found.secret.reveal(), found.source) == (LOGIN, f"file {usual}")
    assert found.secret.fingerprint in ("…", '…-1"}')
    (tmp_path / "key.json").write_text(account())
    named = {**env, "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")}
    assert find_key(row, env=named).source == "env GOOGLE_APPLICATION_CREDENTIALS"


@pytest.mark.parametrize("path", ["gone.json", ".", "large.json", "bad\0name"])
def test_a_key_file_that_is_named_but_cannot_be_read_is_told_where_the_key_is_missed(path, tmp_path, monkeypatch):
    (tmp_path / "large.json").write_bytes(b" " * 70000)
    home = {"HOME": str(tmp_path / "large.json"), "POLYVOX_HOME": str(tmp_path)}
    row = load().providers["vertex"]
    assert find_key(row, env={**home, "GOOGLE_APPLICATION_CREDENTIALS": f"{tmp_path}/{path}"}) is None
    for name, value in home.items():
        monkeypatch.setenv(name, value)
    for name in (*row.key_env, "CLOUDSDK_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    if "\0" not in path:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", f"{tmp_path}/{path}")
        with pytest.raises(MissingKeyError, match=r"GOOGLE_APPLICATION_CREDENTIALS names .*, which cannot be read"):
            Client("vertex/m", settings=vertex_settings()).ask("hi")


# ---- addresses that need a word ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key", "told"),
    [
        ("azure", "k", "no endpoint is set"), ("bedrock", "k", "no region is set"),
        ("vertex", "k", "no project is set"), ("databricks", "k", "no host is set"),
    ],
)  # fmt: skip
def test_an_address_that_is_not_complete_says_which_variable_and_which_setting(name, key, told):
    settings = load_settings(arguments={"providers": {name: {"dialect": "openai.chat"}}}, files=[], env={})
    with pytest.raises(ConfigError, match=told) as caught:
        Client(f"{name}/m", api_key=key, settings=settings).ask("hi")
    variable = next(iter(load().providers[name].needs.values()))[0]
    option = next(iter(load().providers[name].needs))
    assert variable in caught.value.hint and f"options.{option}" in caught.value.hint
    assert f"[providers.{name}]" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "env", "url"),
    [
        ("azure", {"AZURE_OPENAI_ENDPOINT": "https://mine.openai.azure.com/"}, "https://mine.openai.azure.com/openai/v1"),
        ("azure", {"AZURE_OPENAI_ENDPOINT": "mine.openai.azure.com"}, "https://mine.openai.azure.com/openai/v1"),
        ("bedrock", {"AWS_DEFAULT_REGION": "eu-central-1"}, "https://bedrock-runtime.eu-central-1.amazonaws.com"),
        ("databricks", {"DATABRICKS_HOST": "https://adb-1.2.azuredatabricks.net"},
         "https://adb-1.2.azuredatabricks.net/serving-endpoints"),
        ("vertex", {"GOOGLE_CLOUD_PROJECT": "p-1"},
         "https://aiplatform.googleapis.com/v1/projects/p-1/locations/global/publishers/google"),
        ("vertex", {"GOOGLE_CLOUD_PROJECT": "p-1", "GOOGLE_CLOUD_LOCATION": "us-east5"},
         "https://us-east5-aiplatform.googleapis.com/v1/projects/p-1/locations/us-east5/publishers/google"),
    ],
)  # fmt: skip
def test_the_environment_completes_an_address(name, env, url, monkeypatch):
    monkeypatch.setenv("POLYVOX_HOME", "/nowhere")
    settings = load_settings(arguments={"providers": {name: {"dialect": "openai.chat"}}}, files=[], env=env)
    transport = Scripted(said("ok"))
    Client(f"{name}/m", api_key="k", settings=settings, transport=transport).ask("hi")
    assert transport.sent[0].url == f"{url}/chat/completions"


@pytest.mark.parametrize(
    "value",
    ["evil.test/", "evil.test#", "a@evil.test", "evil.test?x=", "http://mine.openai.azure.com", "a b", "é", "."],
)
@pytest.mark.parametrize("name", ["azure", "bedrock"])
def test_a_word_that_would_turn_the_address_around_is_refused_unseen(name, value):
    option = next(iter(load().providers[name].needs))
    row = {"dialect": "openai.chat", "options": {option: value}}
    settings = load_settings(arguments={"providers": {name: row}}, files=[], env={})
    transport = Scripted(said("ok"))
    with pytest.raises((ConfigError, AuthError)) as caught:
        Client(f"{name}/m", api_key="k", settings=settings, transport=transport).ask("hi")
    assert transport.sent == [] and caught.value.sent == "no"


@pytest.mark.parametrize("host", ["evil.test", "openai.azure.com.evil.test", "xopenai.azure.com", "openai.azure.com"])
def test_a_key_of_azure_goes_to_no_host_but_those_of_azure(host, monkeypatch):
    env = {"AZURE_OPENAI_ENDPOINT": host, "AZURE_OPENAI_API_KEY": "azure-key-0123456789", "POLYVOX_HOME": "/nowhere"}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(files=[], env=env)
    transport = Scripted(said("ok"))
    with pytest.raises(AuthError, match="is not sent to"):
        Client("azure/m", settings=settings, transport=transport).ask("hi")
    assert transport.sent == []


def test_a_host_below_one_that_is_bound_is_bound():
    row = provider(hosts=("*.p.test",))
    assert allowed_host(row, "https://a.b.p.test/v1", "env K")
    for host in ("p.test", "ap.test", "p.test.evil.test"):
        with pytest.raises(AuthError) as refused:
            allowed_host(row, f"https://{host}/v1", "env K")
        # What is said replaces what is bound: the way out that is shown keeps both.
        assert f'hosts = ["*.p.test", "{host}"]' in refused.value.hint


def test_an_account_in_two_dialects_has_one_key(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('[providers.openai]\napi_key = "shared-key-0123456789"\n')
    file.chmod(0o600)
    settings = load_settings(files=[file], env={})
    row = load().providers["openai-responses"]
    env = {"POLYVOX_HOME": str(tmp_path)}
    assert find_key(row, settings, env=env).secret.reveal() == "shared-key-0123456789"
    moved = load_settings(files=[file], env={"OPENAI_BASE_URL": "https://eu.api.openai.com/v1"})
    assert find_key(row, moved, env=env).secret.reveal() == "shared-key-0123456789", "both are moved together"
    file.write_text(file.read_text() + 'base_url = "https://gate.test/v1"\n')
    assert find_key(row, load_settings(files=[file], env={}), env=env) is None, "that key is for the gate"
    with pytest.raises(MissingKeyError, match="polyvox keys set openai "):
        raise_missing(row)


def raise_missing(row):
    from polyvox.keys import missing_key_error

    raise missing_key_error(row)


# ---- canaries ---------------------------------------------------------------------------------

CANARY = "canary0123456789abcdefghijXYZ"
CASES = {
    "bearer": (CANARY, {}),
    "header": (CANARY, {"auth_header": "x-key"}),
    "query": (CANARY, {"auth_header": "k"}),
    "azure": (CANARY, {}),
    "google": (account(), {}),
    "sigv4": (f"AKIDEXAMPLE:{CANARY}:session-{CANARY}", {"options": {"region": "r", "service": "s"}}),
}
PROOFS = (CANARY, TOKEN, pem(RSA).splitlines()[1], pem(RSA).splitlines()[-2])


def clean(*things):
    for thing in things:
        text = thing if isinstance(thing, str) else repr(thing) + str(thing)
        assert not [proof for proof in PROOFS if proof in text or proof[4:] in text]
        assert not re.search(r"Signature=[0-9a-f]{64}", text)


def test_every_scheme_with_a_key_has_its_canary():
    assert set(CASES) == set(SCHEMES) - {"none"}


@pytest.fixture
def everything_logged():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(before)


@pytest.mark.parametrize("scheme", CASES)
@pytest.mark.parametrize("streaming", [False, True])
def test_no_scheme_shows_its_proof_in_a_log_an_error_an_explanation_or_a_recording(
    scheme, streaming, everything_logged, tmp_path
):
    key, facts = CASES[scheme]
    row = {"base_url": "https://p.test/v1", "auth": scheme, **facts}
    settings = load_settings(arguments={"providers": {"p": row}}, files=[], env={})
    echo = f"you sent {key} and {TOKEN} to https://p.test/v1?k={TOKEN if scheme == 'google' else CANARY}"
    answers = [failed(500, echo), failed(401, echo), streamed("fine") if streaming else said("fine")]
    fetch = [Answer(token_reply(TOKEN).body)] if scheme == "google" else []
    transport = Scripted(*fetch, *answers)
    cassette = tmp_path / "cassette.jsonl"
    client = Client("p/m", api_key=key, settings=settings, transport=transport, record=cassette, retries=1)
    client._async._engine.sleep = lambda _: asyncio.sleep(0)

    def ask():
        return client.stream("hi").finish() if streaming else client.ask("hi")

    with pytest.raises(PolyvoxError) as caught:
        ask()
    error = caught.value
    response = ask()
    proof = transport.sent[-1]
    assert proof.headers.keys() & {"authorization", "x-key", "api-key"} or CANARY in proof.url
    clean(error, json.dumps(error.describe()), "".join(traceback.format_exception(error)), vars(error), *error.attempts)
    clean(response, client, vars(client._async), client.explain("hi"), client.explain("hi").curl())
    deployment = client._async._deployments.get("p/m")
    clean(deployment, deployment.prove, client._async._deployments._accesses, everything_logged.getvalue())
    text = cassette.read_text()
    assert text.count("\n") == 3 and '"fine"' in text.replace("\\", "")
    clean(text)


def test_the_secrets_of_a_login_and_a_token_without_a_shape_are_masked_wherever_they_are_repeated():
    echo = Reply(400, {}, b"no such client-secret-1 or refresh-token-1")
    server = Server(echo, token_reply("plain-words-of-a-token"))
    token = AccessToken(LOGIN, server, Clock())
    with pytest.raises(AuthError) as caught:
        asyncio.run(token.headers())
    assert "no such" in str(caught.value)
    assert not re.search("client-secret-1|refresh-token-1", str(caught.value) + repr(caught.value))
    asyncio.run(token.headers())
    assert redact("you said plain-words-of-a-token") == "you said ***"


def test_a_signature_that_somebody_repeats_is_masked_in_any_text():
    made = sign(Signable("GET", RUNTIME, {}, b""), AWS, Scope("us-east-1", "bedrock"), NOON)["authorization"]
    assert signature_of({"authorization": made}) not in redact(f"got {made}; why?") and "why?" in redact(
        made + "; why?"
    )


def test_a_key_in_the_url_reaches_the_server_and_no_error_of_the_way_there(everything_logged):
    row = {"auth": "query", "auth_header": "key"}
    with FaultServer(answer(b"nothing like JSON")) as server:
        facts = {"providers": {"p": {**row, "base_url": server.url + "v1"}}}
        with Client(
            "p/m", api_key=CANARY, settings=load_settings(arguments=facts, files=[], env={}), retries=0
        ) as client:
            with pytest.raises(BadResponseError) as caught:
                client.ask("hi")
        assert server.requests[0].startswith(f"POST /v1/chat/completions?key={CANARY} ".encode())
    clean(caught.value, "".join(traceback.format_exception(caught.value)))
    for url in ("http://far.test/v1", "https://127.0.0.1:9/v1"):
        facts = {"providers": {"p": {**row, "base_url": url}}}
        with Client(
            "p/m", api_key=CANARY, settings=load_settings(arguments=facts, files=[], env={}), retries=0
        ) as client:
            with pytest.raises(PolyvoxError) as caught:
                client.ask("hi")
        clean(caught.value, "".join(traceback.format_exception(caught.value)))
    clean(everything_logged.getvalue())


def test_an_explanation_shows_where_a_key_in_the_url_goes():
    row = {"base_url": "https://p.test/v1", "auth": "query", "auth_header": "key", "api_key_env": "P_KEY"}
    settings = load_settings(arguments={"providers": {"p": row}}, files=[], env={})
    shown = Client("p/m", settings=settings).explain("hi")
    assert shown.url == "https://p.test/v1/chat/completions?key=$P_KEY"
    assert '"https://p.test/v1/chat/completions?key=$P_KEY"' in shown.curl(), "the shell fills it in"


def test_a_replay_needs_no_proof_and_fetches_none(tmp_path):
    cassette = tmp_path / "cassette.jsonl"
    transport = Scripted(Answer(token_reply(TOKEN).body), said("hello"))
    live = Client("vertex/a", api_key=account(), settings=vertex_settings(), transport=transport, record=cassette)
    live.ask("hi")
    again = Client("vertex/a", api_key=account(), settings=vertex_settings(), replay=cassette, retries=0)
    assert again.ask("hi").text == "hello"


def test_a_signed_request_is_refused_before_it_is_sent_when_its_proof_cannot_be_had():
    transport = Scripted(Answer(b'{"error": "invalid_grant"}', status=400))
    client = Client("vertex/a", api_key=account(), settings=vertex_settings(), transport=transport, retries=2)
    with pytest.raises(AuthError, match="no access token") as caught:
        client.ask("hi")
    assert len(transport.sent) == 1 and caught.value.sent == "no" and caught.value.provider == "vertex"


def test_a_prover_gets_the_request_as_it_goes_out():
    seen = []

    async def prove(outgoing):
        seen.append(outgoing)
        return {"x-proof": "1"}

    async def go():
        async with AsyncClient("openai/m", api_key="k", transport=Scripted(said("ok")), settings=load_settings(
            files=[], env={})) as client:  # fmt: skip
            deployment = client._deployments.get("openai/m")
            deployment.prove = prove
            await client.ask("hi")
            return client._deployments._carriers.given.sent[0]

    sent = asyncio.run(go())
    assert sent == Outgoing(sent.method, sent.url, {**seen[0].headers, "x-proof": "1"}, seen[0].body)
