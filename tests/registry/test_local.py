"""The tier local is a promise: what is in it stays on this machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox import config
from polyvox.backends import register_backend
from polyvox.errors import ConfigError
from polyvox.registry import DictRegistry, Entry, why_not_local
from polyvox.registry.reach import is_loopback


def settings(**arguments):
    return config.load(arguments=arguments, env={}, files=())


HERE = ["ollama/llama3.2", "llama3.2:3b", "demo", "vllm/any", "local/model.gguf", "@mine"]
THERE = ["openai/gpt-5.4", "gpt-5.4", "groq/openai/gpt-oss-20b", "nobody/knows", "@hosted", "@missing"]
ALIASES = {"mine": "ollama/llama3.2", "hosted": "openai/gpt-5.4"}


@pytest.mark.parametrize("model", HERE)
def test_a_server_of_this_machine_or_a_model_in_this_process_is_local(model):
    assert why_not_local(Entry("a", model, tier="local"), settings(aliases=ALIASES)) is None


@pytest.mark.parametrize("model", THERE)
def test_whoever_is_hosted_or_unknown_is_not(model):
    entry = Entry("a", model, tier="local")
    assert why_not_local(entry, settings(aliases=ALIASES))
    with pytest.raises(ConfigError, match=r"deployments.a.tier: is local, but"):
        DictRegistry([entry], settings=settings(aliases=ALIASES))


@pytest.mark.parametrize(
    "url",
    ["http://localhost:8000/v1", "http://127.0.0.1", "http://127.9.9.9:1", "http://[::1]:8000", "http://a.localhost"],
)
def test_a_loopback_address_is_local(url):
    assert why_not_local(Entry("a", "house-7b", tier="local", base_url=url), settings()) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://0.0.0.0:8000", "http://192.168.1.4", "http://localhost.example.com", "http://127.0.0.1.example.com",
        "http://127.1", "http://2130706433", "http://[::]:8000", "https://llm.example.com",
    ],
)  # fmt: skip
def test_any_other_address_is_not(url):
    assert why_not_local(Entry("a", "house-7b", tier="local", base_url=url), settings())


@given(st.ip_addresses())
def test_an_address_is_local_exactly_when_it_is_a_loopback_address(address):
    mapped = getattr(address, "ipv4_mapped", None)
    url = f"http://[{address}]:8000" if address.version == 6 else f"http://{address}:8000"
    assert is_loopback(url) == (mapped or address).is_loopback


def test_a_local_server_that_was_moved_elsewhere_is_not_local_unless_somebody_says_so():
    moved = settings(providers={"ollama": {"base_url": "http://gpu.example.lan:11434"}})
    entry = Entry("a", "ollama/llama3.2", tier="local")
    assert "gpu.example.lan" in why_not_local(entry, moved)
    with pytest.raises(ConfigError):
        DictRegistry([entry], settings=moved)
    said = settings(providers={"ollama": {"base_url": "http://gpu.example.lan:11434", "local": True}})
    assert why_not_local(entry, said) is None


def test_an_entry_that_left_this_machine_is_no_longer_chosen(monkeypatch):
    registry = DictRegistry([Entry("a", "ollama/llama3.2", tier="local")])
    assert registry.get_by_tier("local").name == "a"
    config.configure(providers={"ollama": {"base_url": "http://gpu.example.lan:11434"}})
    assert registry.get_by_tier("local") is None


def test_a_backend_is_not_local_because_nobody_can_know_what_it_does(monkeypatch):
    monkeypatch.setattr("polyvox.backends.registered", {})

    class Mine:
        name = "mine"

        def ask(self, request):
            return "hello"

    register_backend(Mine())
    assert "backend" in why_not_local(Entry("a", "mine", tier="local"), settings())


def test_any_tier_but_local_takes_whoever_there_is():
    DictRegistry([Entry("a", "openai/gpt-5.4", tier="premium"), Entry("b", "nobody/knows", tier="mine")])
