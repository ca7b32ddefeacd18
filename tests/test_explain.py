"""explain shows the exact request, keys as variables, losses included, and sends nothing."""

import json
import shutil
import subprocess

import pytest

from polyvox import Client, Video
from polyvox.catalog import load
from polyvox.config import Settings
from polyvox.config import load as load_settings
from polyvox.dialects import Wire, dialect
from polyvox.errors import LossError
from polyvox.testing.fault_server import FaultServer, answer
from tests.scripted import Scripted, said

KEY = "sk-planted-0123456789abcdef"


def test_the_explanation_is_what_would_go_out_to_the_byte():
    transport = Scripted(said("ok"))
    facts = {"api_key": KEY, "transport": transport, "settings": Settings(), "temperature": 0.5}
    client = Client("openai/gpt-x", **facts)
    shown = client.explain("hi", system="s", extra_body={"a": 1}, headers={"x-team": "blue"})
    assert transport.sent == []
    client.ask("hi", system="s", extra_body={"a": 1}, headers={"x-team": "blue"})
    (sent,) = transport.sent
    assert (shown.method, shown.url, shown.body) == (sent.method, sent.url, sent.body)
    assert shown.headers == {**sent.headers, "authorization": "Bearer $OPENAI_API_KEY"}
    assert KEY not in repr(shown) + json.dumps(shown.describe()) + shown.curl()


@pytest.mark.parametrize("name", [name for name, row in load().providers.items() if row.default_model])
def test_every_provider_can_be_explained_without_a_key(name, monkeypatch, tmp_path):
    monkeypatch.setenv("POLYVOX_HOME", str(tmp_path))
    row = load().providers[name]
    for variable in row.key_env:
        monkeypatch.delenv(variable, raising=False)
    shown = Client(f"{name}/{row.default_model}", settings=Settings()).explain("hello", stream=True)
    assert shown.url.startswith(row.base_url)
    wire = Wire(shown.url.removeprefix(row.base_url), shown.body, {})
    asked = dialect(row.dialect).peek(wire)
    assert (asked.model, asked.stream) == (row.default_model, True)
    if row.needs_key:
        assert any(value.endswith(f"${row.key_env[0]}") for value in shown.headers.values())


def test_losses_are_part_of_the_explanation_and_strict_refuses_them():
    client = Client("openai/gpt-x", settings=Settings())
    shown = client.explain(["see", Video(b"x", media_type="video/mp4")], top_k=5)
    assert {loss.field for loss in shown.losses} == {"top_k", "messages[0].parts[1].video"}
    with pytest.raises(LossError):
        client.explain("x", top_k=5, strict=True)


def test_a_secret_in_a_header_of_the_call_or_the_configuration_is_masked(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(f'[providers.openai]\nheaders = {{ x-gateway-token = "{KEY}" }}\n')
    file.chmod(0o600)
    client = Client("openai/gpt-x", settings=load_settings(files=[file], env={}))
    shown = client.explain("x", headers={"x-other": f"Bearer {KEY}"})
    assert shown.headers["x-gateway-token"] == "$X_GATEWAY_TOKEN"
    assert KEY not in shown.curl()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_command_sends_the_same_request_with_the_key_from_its_variable(monkeypatch):
    prompt = """it's $5, "quoted" `and` \\ more: €"""
    with FaultServer(answer(b"{}")) as server:
        settings = load_settings(arguments={"providers": {"openai": {"base_url": server.url + "v1"}}}, files=[], env={})
        shown = Client("openai/gpt-x", settings=settings).explain(prompt)
        subprocess.run(
            ["sh", "-c", shown.curl()],
            env={"OPENAI_API_KEY": KEY, "PATH": "/usr/bin:/bin"},
            check=True,
            timeout=20,
            capture_output=True,
        )
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert body == shown.body
    assert f"authorization: Bearer {KEY}".encode() in head
    assert head.startswith(b"POST /v1/chat/completions ")
