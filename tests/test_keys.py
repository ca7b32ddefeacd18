"""A key is found where it should be, goes where it may, and shows itself nowhere."""

import base64
import copy
import io
import json
import logging
import os
import pickle
import re
import stat
import subprocess
import sys
import time
import traceback
import urllib.parse
from collections.abc import Iterator

import keyring
import keyring.backend
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox import config
from polyvox.catalog import load
from polyvox.errors import AuthError, ConfigError, UsageError
from polyvox.keys import (
    FoundKey,
    KeyStore,
    Secret,
    allowed_host,
    config_dir,
    find_key,
    install_redaction,
    is_secret_name,
    missing_key_error,
    redact,
    remember,
    secret_of,
    write_atomically,
)

CANARY = "canary-7f3k9q2m5x8w1z4v"
OPENAI = load().providers["openai"]
GEMINI = load().providers["gemini"]


@pytest.fixture
def store(tmp_path):
    return KeyStore(tmp_path / "home" / "keys.json", env={})


# ---- Secret -----------------------------------------------------------------------------------


def test_a_secret_shows_itself_in_no_form():
    secret = Secret(CANARY)
    shown = [
        repr(secret), str(secret), f"{secret}", f"{secret:>30}", str([secret]),
        str({"k": secret}), repr(FoundKey(secret, "argument")), json.dumps(secret, default=str),
        str(msgspec.structs.asdict(FoundKey(secret, "argument"))), repr(copy.copy(secret)), repr(copy.deepcopy(secret)),
    ]  # fmt: skip
    assert not any(CANARY in text for text in shown)
    assert secret.reveal() == CANARY


def test_a_secret_leaves_the_process_in_no_serial_form():
    with pytest.raises(TypeError):
        json.dumps(Secret(CANARY))
    with pytest.raises(TypeError):
        msgspec.json.encode(FoundKey(Secret(CANARY), "argument"))
    with pytest.raises(UsageError) as caught:
        pickle.dumps(Secret(CANARY))
    assert CANARY not in str(caught.value)
    with pytest.raises(TypeError):
        vars(Secret(CANARY))


def test_a_traceback_that_prints_locals_does_not_show_it():
    secret = Secret(CANARY)
    try:
        raise ValueError(secret)
    except ValueError as error:
        text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "secret = " in text and CANARY not in text


def test_secrets_equal_only_secrets():
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert not Secret("") and Secret("x")


@pytest.mark.parametrize(
    ("value", "fingerprint"),
    [
        ("sk-abcdefghijklmnopqrst1234", "sk-…1234"),
        ("abcdefghijklmnopqrst9876", "…9876"),
        ("sk-short", "…"),
        ("x" * 19, "…"),
    ],
)
def test_a_fingerprint_tells_long_keys_apart_and_short_ones_not_at_all(value, fingerprint):
    assert Secret(value).fingerprint == fingerprint


# ---- redaction --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        str,
        lambda value: json.dumps(value),
        lambda value: json.dumps(value, ensure_ascii=False),
        lambda value: urllib.parse.quote(value, safe=""),
        lambda value: urllib.parse.quote_plus(value),
        lambda value: base64.b64encode(value.encode()).decode(),
        lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    ],
)
def test_a_known_secret_is_masked_in_every_dress(form):
    value = 'pass "word"/+&é~long-enough?'
    remember(Secret(value))
    dressed = form(value).strip('"').rstrip("=")
    assert dressed not in redact(f"before {form(value)} after")
    assert redact(f"before {form(value)} after").startswith("before ")


@given(st.text(min_size=8, max_size=60).filter(lambda text: len(text.strip()) >= 8), st.text(max_size=30))
def test_no_text_keeps_a_known_secret(value, around):
    secret = secret_of(value)
    assert secret.reveal() not in redact(f"{around} {secret.reveal()} {around}")


def test_a_longer_secret_leaves_no_tail_behind():
    remember(Secret("prefix-prefix"))
    remember(Secret("prefix-prefix-and-tail"))
    assert "tail" not in redact("x prefix-prefix-and-tail y")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("key sk-proj-abcdefghijklmnop123 end", "key *** end"),
        ("-".join(("sk", "ant", "api03", "x" * 20)), "***"),
        ("Incorrect API key provided: sk-proj-************WXYZ.", "Incorrect API key provided: ***."),
        ("AIzaSyA1234567890abcdefghijklmnop", "***"),
        ("gsk_abcdefghij0123456789", "***"),
        ("xai-abcdefghij0123456789", "***"),
        ("hf_abcdefghij0123456789", "***"),
        ("AKIAABCDEFGHIJKLMNOP", "***"),
        ("ya29.a0AfH6SMBabcdefghijk", "***"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.sig-nature_x", "***"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- ok", "*** ok"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEcut off", "***"),
        ("https://user:pa55@host/x", "https://***@host/x"),
        ("GET /v1?key=abc&x=1", "GET /v1?key=***&x=1"),
        ("GET /v1?a=1&access_token=abc", "GET /v1?a=1&access_token=***"),
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer ***"),
        ("authorization: Basic dXNlcjpwYXNzd29yZA==", "authorization: Basic ***"),
        ("{'x-api-key': 'abcd1234efgh'}", "{'x-api-key': '***'}"),
        ("(b'x-goog-api-key', b'abcd1234efgh')", "(b'x-goog-api-key', b'***')"),
        ('{"api_key": "abcd1234efgh"}', '{"api_key": "***"}'),
    ],
)
def test_what_is_shaped_like_a_key_is_masked_and_no_more(text, masked):
    assert redact(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "a risk-assessment-of-some-length and a task-force-for-something",
        "Missing bearer authentication in header",
        '{"code":"invalid_api_key","message":"no"}',
        "env POLYVOX_TIMEOUT: timeout: must be a number",
        "providers.openai.api_key: expected text here",
        "https://api.openai.com:443/v1/models?limit=20",
        "gpt-6-luna answered at 12:30 for user@example.org",
    ],
)
def test_ordinary_text_is_left_alone(text):
    assert redact(text) == text


@pytest.mark.parametrize(
    "unit",
    [
        "eyJ",
        "eyJ-",
        "eyJaaaaaaaaaaaa.",
        "sk-",
        "://a",
        "://a:",
        "?key=",
        "x-api-key:",
        "bearer ",
        "-----BEGIN ",
        "AKIA",
    ],
)
def test_redaction_takes_linear_time_on_text_made_to_slow_it(unit):
    text = unit * (400_000 // len(unit))
    started = time.perf_counter()
    redact(text)
    assert time.perf_counter() - started < 3


def test_short_values_are_not_remembered_lest_words_be_masked():
    remember(Secret("ollama"))
    assert redact("ollama runs here") == "ollama runs here"


def test_names_that_hold_secrets_are_known():
    assert all(map(is_secret_name, ("X-Api-Key", "Authorization", "cookie", "my_token", "client-secret")))
    assert not any(map(is_secret_name, ("X-Title", "HTTP-Referer", "accept")))


# ---- logs -------------------------------------------------------------------------------------


@pytest.fixture
def logged() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    stream = io.StringIO()
    logger = logging.getLogger("httpx2.a_child_made_late")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s %(url)s", defaults={"url": ""}))
    logger.addHandler(handler)
    logger.propagate = False
    yield logger, stream
    logger.removeHandler(handler)


def test_logs_of_http_libraries_are_masked_in_message_arguments_trace_and_extra(logged):
    logger, stream = logged
    install_redaction()
    install_redaction()
    remember(Secret(CANARY))
    logger.warning("GET %s", f"https://x.test/?q={CANARY}")
    logger.warning("with extra", extra={"url": f"https://x.test/{CANARY}"})
    logger.warning("does not fit %d", CANARY)
    try:
        raise ValueError(CANARY)
    except ValueError:
        logger.exception("failed")
    text = stream.getvalue()
    assert CANARY not in text
    assert text.count("***") == 3
    assert "Traceback" in text
    assert len(logger.filters) == 1


def test_ordinary_records_pass_unchanged(logged):
    logger, stream = logged
    install_redaction()
    logger.warning("%d of %d", 1, 2)
    assert stream.getvalue() == "1 of 2 \n"


# ---- the store --------------------------------------------------------------------------------


def test_a_key_is_kept_in_a_file_only_its_owner_can_read(store):
    assert store.set("openai", f" {CANARY}\n") == "keys file"
    assert store.get("openai").reveal() == CANARY
    assert store.find("openai") == (Secret(CANARY), "keys file")
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    assert [path.name for path in store.path.parent.iterdir()] == ["keys.json"]


def test_keys_are_listed_without_being_shown_and_can_be_removed(store):
    store.set("openai", "sk-abcdefghijklmnopqrst1234")
    store.set("groq", "short-one")
    assert [(key.name, key.source, key.fingerprint) for key in store.list()] == [
        ("groq", "keys file", "…"),
        ("openai", "keys file", "sk-…1234"),
    ]
    assert store.remove("openai") and not store.remove("openai")
    assert store.get("openai") is None and store.get("groq")


def test_an_empty_store_has_nothing(store):
    assert store.list() == () and store.get("openai") is None and not store.remove("openai")
    with pytest.raises(ConfigError, match="empty"):
        store.set("openai", "  ")


def test_a_file_others_can_write_is_refused_and_one_they_can_read_is_closed(store, caplog):
    store.set("openai", CANARY)
    store.path.chmod(0o644)
    assert store.get("openai").reveal() == CANARY
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert "could be read by other users" in caplog.text and CANARY not in caplog.text
    store.path.chmod(0o620)
    with pytest.raises(ConfigError, match="chmod 600"):
        store.get("openai")


def test_a_folder_others_can_write_is_closed(store, caplog):
    store.path.parent.mkdir()
    store.path.parent.chmod(0o777)
    store.set("openai", CANARY)
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o755
    assert "it no longer can" in caplog.text


@pytest.mark.parametrize("content", ["{", "[]", f'{{"openai": ["{CANARY}"]}}', f'{{"openai": "{CANARY}"'])
def test_a_damaged_file_is_an_error_that_shows_nothing_of_it(store, content):
    store.path.parent.mkdir()
    store.path.write_text(content)
    store.path.chmod(0o600)
    with pytest.raises(ConfigError, match="damaged") as caught:
        store.get("openai")
    shown = "".join(traceback.format_exception(caught.value))
    assert CANARY not in shown and "openai" not in str(caught.value)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def full(handle):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new", 0o600)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_linked_key_file_stays_a_link(store, tmp_path):
    real = tmp_path / "elsewhere.json"
    real.write_text("{}")
    real.chmod(0o600)
    store.path.parent.mkdir()
    store.path.symlink_to(real)
    store.set("openai", CANARY)
    assert store.path.is_symlink() and CANARY in real.read_text()


def test_processes_that_set_keys_at_once_lose_none(tmp_path):
    code = """if True:
        import sys
        from polyvox.keys import KeyStore
        KeyStore(env={"POLYVOX_HOME": sys.argv[1]}).set(sys.argv[2], "key")
    """
    names = [f"p{number}" for number in range(4)]
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in names]
    assert [process.wait(60) for process in running] == [0] * 4
    assert [key.name for key in KeyStore(env={"POLYVOX_HOME": str(tmp_path)}).list()] == names


class MemoryKeyring(keyring.backend.KeyringBackend):
    """A keyring as a desktop has it, but in memory."""

    priority = 1

    def __init__(self):
        super().__init__()
        self.kept = {}

    def get_password(self, service, username):
        return self.kept.get((service, username))

    def set_password(self, service, username, password):
        self.kept[service, username] = password

    def delete_password(self, service, username):
        del self.kept[service, username]


@pytest.fixture
def ring():
    before = keyring.get_keyring()
    backend = MemoryKeyring()
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(before)


def test_a_keyring_is_used_when_asked_for_and_the_file_then_holds_no_key(tmp_path, ring):
    asked = KeyStore(tmp_path / "keys.json", env={"POLYVOX_KEYRING": "1"})
    assert asked.set("openai", CANARY) == "keyring"
    assert CANARY not in asked.path.read_text()
    plain = KeyStore(tmp_path / "keys.json", env={})
    assert plain.find("openai") == (Secret(CANARY), "keyring")
    assert [(key.source, key.fingerprint) for key in plain.list()] == [("keyring", "…")]
    assert plain.remove("openai") and ring.kept == {}


def test_a_keyring_that_does_not_work_is_said_so_without_the_key(tmp_path, ring):
    def locked(service, username, password):
        raise RuntimeError(f"cannot store {password}")

    ring.set_password = locked
    with pytest.raises(ConfigError, match="refused") as caught:
        KeyStore(tmp_path / "keys.json", keyring=True, env={}).set("openai", CANARY)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    keyring.set_keyring(keyring.backends.fail.Keyring())
    with pytest.raises(ConfigError, match="no keyring that works"):
        KeyStore(tmp_path / "keys.json", keyring=True, env={}).set("openai", CANARY)


def test_the_folder_follows_its_variables():
    assert str(config_dir({"POLYVOX_HOME": "/a/b"})) == "/a/b"
    assert str(config_dir({"XDG_CONFIG_HOME": "/c"})) == "/c/polyvox"
    assert config_dir({"XDG_CONFIG_HOME": "relative"}) == config_dir({})


# ---- finding ----------------------------------------------------------------------------------


def found(provider, settings=None, explicit=None, *, env=None, store):
    key = find_key(provider, settings, explicit, env=env or {}, store=store)
    return (key.secret.reveal(), key.source) if key else None


def test_the_nearest_source_of_a_key_wins_peeled_off_one_by_one(store, tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[providers.openai]\napi_key = "from-file"\n')
    file.chmod(0o600)
    both = config.load(files=[file], env={}, arguments={"providers": {"openai": {"api_key": "from-settings"}}})
    only_file = config.load(files=[file], env={})
    store.set("openai", "from-store")
    env = {"OPENAI_API_KEY": "from-env"}
    assert found(OPENAI, both, "given", env=env, store=store) == ("given", "argument")
    assert found(OPENAI, both, env=env, store=store) == ("from-settings", "argument")
    assert found(OPENAI, only_file, env=env, store=store) == ("from-env", "env OPENAI_API_KEY")
    assert found(OPENAI, only_file, store=store) == ("from-file", f"config {file}:2")
    assert found(OPENAI, store=store) == ("from-store", "keys file")
    store.remove("openai")
    assert found(OPENAI, store=store) is None


def test_a_database_rows_key_outranks_the_environment(store):
    settings = config.load(row={"providers": {"openai": {"api_key": "from-row"}}}, env={}, files=())
    assert found(OPENAI, settings, env={"OPENAI_API_KEY": "e"}, store=store) == ("from-row", "row")


def test_another_variable_can_be_named(store):
    settings = config.load(arguments={"providers": {"openai": {"api_key_env": "MINE"}}}, env={}, files=())
    env = {"MINE": "m", "OPENAI_API_KEY": "o"}
    assert found(OPENAI, settings, env=env, store=store) == ("m", "env MINE")


def test_two_variables_that_disagree_are_warned_of_by_name_only(store, caplog):
    env = {"GOOGLE_API_KEY": "first-canary", "GEMINI_API_KEY": "second-canary"}
    assert found(GEMINI, env=env, store=store) == ("first-canary", "env GOOGLE_API_KEY")
    found(GEMINI, env=env, store=store)
    assert caplog.text.count("GOOGLE_API_KEY is used; GEMINI_API_KEY differs") == 1
    assert "canary" not in caplog.text


def test_two_variables_that_agree_and_blank_ones_are_nothing_to_say(store, caplog):
    assert found(GEMINI, env={"GOOGLE_API_KEY": " k ", "GEMINI_API_KEY": "k"}, store=store)[0] == "k"
    assert found(GEMINI, env={"GOOGLE_API_KEY": "  ", "GEMINI_API_KEY": "k"}, store=store)[1] == "env GEMINI_API_KEY"
    assert caplog.text == ""


def test_a_found_key_is_masked_from_then_on(store):
    found(OPENAI, env={"OPENAI_API_KEY": "found-and-remembered"}, store=store)
    assert redact("said found-and-remembered") == "said ***"


def test_a_missing_key_says_which_variable_and_which_command():
    error = missing_key_error(OPENAI)
    assert "OPENAI_API_KEY" in error.hint and "polyvox keys set openai" in error.hint
    assert (error.sent, error.billed, error.provider) == ("no", False, "openai")


# ---- where a key may go -----------------------------------------------------------------------


def moved(source, url="https://evil.test/v1", **more):
    overrides = {"openai": {"base_url": url, **more}}
    return load().with_overrides(overrides, {"providers.openai.base_url": source}).providers["openai"]


SOURCES = ["argument", "row", "env OPENAI_API_KEY", "config /c.toml:3", "keys file", "keyring"]


@pytest.mark.parametrize("source", SOURCES)
def test_a_key_from_anywhere_goes_to_the_hosts_bound_to_it(source):
    assert allowed_host(OPENAI, "https://API.openai.com/v1/chat/completions", source)
    bound = moved("env OPENAI_BASE_URL", hosts=("evil.test",))
    assert allowed_host(bound, "https://evil.test:8443/v1", source)


@pytest.mark.parametrize(
    ("url_source", "key_source"),
    [
        *(("env OPENAI_BASE_URL", source) for source in SOURCES),
        *(("/project/.env:1", source) for source in SOURCES),
        ("argument", "env OPENAI_API_KEY"),
        ("argument", "keys file"),
        ("/c.toml:9", "env OPENAI_API_KEY"),
        ("/other.toml:9", "config /c.toml:3"),
        ("row", "argument"),
    ],
)
def test_an_inherited_key_is_not_sent_to_an_address_from_elsewhere(url_source, key_source):
    with pytest.raises(AuthError) as caught:
        allowed_host(moved(url_source), "https://evil.test/v1/chat/completions", key_source)
    assert re.search(r'hosts = \[.*"evil\.test"\]', caught.value.hint)
    assert caught.value.sent == "no"


@pytest.mark.parametrize(
    ("url_source", "key_source"),
    [("argument", "argument"), ("row", "row"), ("/c.toml:9", "config /c.toml:3")],
)
def test_a_key_goes_to_an_address_given_by_the_same_hand(url_source, key_source):
    assert allowed_host(moved(url_source), "https://evil.test/v1/chat/completions", key_source)


@pytest.mark.parametrize("url", ["https://other.test/v1", "https://evil.test.other.test/", "not a url", "https://"])
def test_even_then_it_goes_to_that_host_only(url):
    with pytest.raises(AuthError):
        allowed_host(moved("argument"), url, "argument")


def test_a_host_in_the_userinfo_or_path_does_not_count():
    for url in ("https://api.openai.com@evil.test/v1", "https://evil.test/api.openai.com"):
        with pytest.raises(AuthError):
            allowed_host(OPENAI, url, "env OPENAI_API_KEY")
