"""A key becomes exactly the header its scheme names, or an error that does not show it."""

import pytest

from polyvox.auth import SCHEMES, credentials, rekeyed
from polyvox.catalog import AUTH_SCHEMES, Provider, load
from polyvox.errors import AuthError
from polyvox.keys import Secret


def provider(**more):
    return Provider(**{"name": "p", "dialect": "openai.chat", "base_url": "https://p.test/v1", **more})


@pytest.mark.parametrize(
    ("row", "headers"),
    [
        ({"auth": "bearer"}, {"authorization": "Bearer k-123"}),
        ({"auth": "header", "auth_header": "X-Api-Key"}, {"x-api-key": "k-123"}),
        ({"auth": "none"}, {}),
    ],
)
def test_each_scheme_makes_its_header(row, headers):
    assert credentials(provider(**row), Secret("k-123")) == headers


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
