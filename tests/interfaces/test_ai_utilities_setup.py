"""The setup wizard of AI Utilities, spoken to by a script, by a terminal and by flags: what it writes and says, and
what it never shows."""

import logging
import os
import subprocess
import sys

import pytest

import polyvox
from polyvox import catalog
from polyvox.compat.ai_utilities import cli as program
from polyvox.compat.ai_utilities.setup import Answers, SetupWizard, dotenv
from polyvox.compat.ai_utilities.setup import cli as alias
from polyvox.compat.ai_utilities.setup.guidance import guidance, providers
from polyvox.compat.names import AIUtilitiesError, ProviderAPIError, ProviderConfigurationError
from polyvox.config.sources import read_dotenv
from tests.cli.cli_terminal import Terminal
from tests.interfaces.rows import rows

KEY = "gsk_a-key-of-the-wizards-tests-0123456789"
MODULE = "polyvox.compat.ai_utilities.cli"


class Person:
    """Types what stands in a script, and reads what is shown."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []
        self.read = []

    def __call__(self, question):
        self.asked.append(question)
        if not self.answers:
            raise EOFError
        return self.answers.pop(0)

    @property
    def seen(self):
        return "\n".join([*self.asked, *self.read])


def wizard(person, path=".env", **more):
    return SetupWizard(path, input=person, output=person.read.append, **more)


def mode(path):
    return path.stat().st_mode & 0o777


# ---- the package --------------------------------------------------------------------------------


@rows("S2-055")
def test_the_package_is_imported_and_loads_no_client_for_it(row):
    code = """
import sys
import polyvox.compat.ai_utilities.setup as setup
assert not {"redis", "django", "celery", "sqlalchemy", "pydantic_settings", "openai", "click"} & set(sys.modules)
print(*[getattr(setup, name).__name__ for name in setup.__all__])
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {"SetupWizard", "Answers", "SetupResult", "Guidance"} == set(done.stdout.split())


# ---- talking ------------------------------------------------------------------------------------


@rows("S2-056", "S2-057")
def test_a_person_is_asked_and_the_file_says_what_was_answered(row, place):
    person = Person("groq", KEY, "llama-3.3-70b", "y", "n")
    result = wizard(person).run()
    assert read_dotenv(place / ".env")[0] == {
        "AI_PROVIDER": "groq", "AI_MODEL": "llama-3.3-70b", "AI_API_KEY": KEY,
    }  # fmt: skip
    assert mode(place / ".env") == 0o600
    assert (result.provider, result.model, result.written, result.backup) == ("groq", "llama-3.3-70b", True, None)
    assert set(result.variables) == {"AI_PROVIDER", "AI_MODEL", "AI_API_KEY"}
    assert [question.split()[0] for question in person.asked] == ["Provider", "Key", "Model", "Write", "Ask"]
    # The settings read it.
    from polyvox.compat.ai_utilities.config_models import AiSettings

    settings = AiSettings()
    assert (settings.provider, settings.model, settings.api_key) == ("groq", "llama-3.3-70b", KEY)


@rows("S2-056")
def test_what_is_only_confirmed_is_what_is_usual_and_no_writes_nothing(row, place):
    person = Person("", "", "", "n")
    result = wizard(person).run()
    assert (result.provider, result.model) == ("openai", catalog.load().provider("openai").default_model)
    assert not result.written and not (place / ".env").exists()
    assert "Nothing was written." in person.read and "No key is set" in person.seen


@rows("S2-056")
def test_an_answer_that_cannot_be_is_asked_again_and_silence_ends_it(row, place):
    person = Person("nobody", "grok", "groq", "two\nlines", KEY, "", "y", "n")
    assert wizard(person).run().provider == "groq"
    assert "there is no provider 'nobody'" in person.seen
    assert read_dotenv(place / ".env")[0]["AI_API_KEY"] == KEY
    with pytest.raises(AIUtilitiesError, match="there is no provider"):
        wizard(Person("a", "b", "c", "groq")).run()
    with pytest.raises(AIUtilitiesError, match="nobody answers") as caught:
        wizard(Person("groq")).run()
    assert "--yes" in caught.value.hint


@rows("S2-056")
def test_nobody_is_asked_when_all_is_said(row, place):
    person = Person()
    result = wizard(person).run(Answers(provider="groq", model="m", base_url="http://127.0.0.1:9/v1", api_key=KEY),
                                ask=False)  # fmt: skip
    assert person.asked == [] and result.written
    assert read_dotenv(place / ".env")[0] == {
        "AI_PROVIDER": "groq", "AI_MODEL": "m", "AI_BASE_URL": "http://127.0.0.1:9/v1", "AI_API_KEY": KEY,
    }  # fmt: skip
    again = wizard(person).run(Answers(provider="groq"), ask=False)
    assert not again.written and again.model == "m" and ".env says so already." in person.read
    for wrong, said in (
        (Answers(), "no provider"),
        (Answers(provider="nobody"), "no provider 'nobody'"),
        (Answers(provider="cohere"), "no model"),
        (Answers(provider="groq", base_url="ftp://x"), "address"),
        (Answers(provider="groq", base_url="https://me:secret@host"), "address"),
        (Answers(provider="groq", base_url="https://host/v1?version=1"), "address must not have a query"),
        (Answers(provider="groq", base_url="https://ho st/v1"), "address has spaces"),
        (Answers(provider="groq", api_key="   "), "empty"),
        (Answers(provider="groq", model="a\nb"), "AI_MODEL"),
    ):
        before = (place / ".env").read_bytes()
        with pytest.raises(AIUtilitiesError, match=said) as caught:
            wizard(person).run(wrong, ask=False)
        assert caught.value.hint and (place / ".env").read_bytes() == before


# ---- the file -----------------------------------------------------------------------------------

BEFORE = """# our settings
export AI_PROVIDER=openai   # the first one
ai_api_key='sk-old-key-of-another-provider'
AI_BASE_URL=https://old.example/v1
AI_TEMPERATURE=0.1

OTHER="a # b"  # stays
AI_MODEL=gpt-4
AI_MODEL=gpt-4o
"""


@rows("S2-057")
def test_other_lines_and_comments_stay_and_what_it_said_is_kept_beside_it(row, place):
    path = place / ".env"
    path.write_text(BEFORE)
    path.chmod(0o644)
    result = wizard(Person()).run(Answers(provider="groq", model="m", api_key=KEY), ask=False)
    assert (
        path.read_text()
        == f"""# our settings
export AI_PROVIDER=groq   # the first one
AI_API_KEY={KEY}
AI_TEMPERATURE=0.1

OTHER="a # b"  # stays
AI_MODEL=m
"""
    )
    assert result.backup is not None and result.backup.name == ".env.bak" and result.backup.read_text() == BEFORE
    assert mode(path) == mode(place / ".env.bak") == 0o600
    assert sorted(each.name for each in place.iterdir() if each.is_file()) == [".env", ".env.bak"]


@rows("S2-057")
def test_a_key_or_an_address_of_another_provider_never_stays(row, place):
    (place / ".env").write_text(BEFORE)
    person = Person()
    wizard(person).run(Answers(provider="groq"), ask=False)
    found = read_dotenv(place / ".env")[0]
    assert found["AI_PROVIDER"] == "groq" and not {"AI_API_KEY", "ai_api_key", "AI_BASE_URL"} & set(found)
    assert "AI_API_KEY is taken out" in person.seen
    # The same provider again keeps both.
    (place / ".env").write_text(BEFORE)
    wizard(person).run(Answers(provider="openai", model="gpt-5"), ask=False)
    found = read_dotenv(place / ".env")[0]
    assert found["AI_BASE_URL"] == "https://old.example/v1" and found["ai_api_key"].startswith("sk-old")
    assert found["AI_MODEL"] == "gpt-5"


@rows("S2-057")
def test_no_key_is_ever_shown(row, place, capfd, caplog):
    canary = "gsk_canary-0123456789-abcdefghij"
    person = Person("groq", canary, "", "y", "n")
    typed = wizard(person)
    result = typed.run()
    asked = Person("groq", "", "y", "n")
    hidden = wizard(asked, secret=lambda question: canary)
    hidden.run()
    assert len(asked.asked) == 4  # the key was asked by the other one
    with pytest.raises(AIUtilitiesError) as caught:
        typed.run(Answers(provider="groq", api_key=f"{canary}\nmore"), ask=False)
    out = capfd.readouterr()
    shown = [person.seen, asked.seen, caplog.text, out.out, out.err, repr(result), repr(typed), str(caught.value)]
    shown.append(repr(Answers(api_key=canary)))
    assert not any(canary in text or canary[4:-4] in text for text in shown)
    assert "AI_API_KEY=gsk" in person.seen


@rows("S2-057")
def test_a_dry_run_shows_and_writes_nothing(row, place):
    (place / ".env").write_text(BEFORE)
    person = Person()
    result = wizard(person).run(Answers(provider="groq", api_key=KEY), ask=False, dry_run=True)
    assert (place / ".env").read_text() == BEFORE and not result.written
    assert not (place / ".env.bak").exists()
    assert "AI_PROVIDER=groq" in person.seen and KEY not in person.seen


@rows("S2-057")
def test_a_file_that_cannot_be_written_or_read_is_said(row, place):
    (place / "a file").write_text("x")
    with pytest.raises(ProviderConfigurationError, match="cannot be written"):
        wizard(Person(), place / "a file" / ".env").run(Answers(provider="ollama"), ask=False)
    (place / ".env").write_text("no variable at all\n")
    with pytest.raises(ProviderConfigurationError):
        wizard(Person()).run(Answers(provider="ollama"), ask=False)
    assert (place / ".env").read_text() == "no variable at all\n"


@pytest.mark.parametrize(
    "value", ["plain", "with space", "a#b", "a # b", 'do"uble', "it's", "$HOME", "back\\slash", "ü"]
)
@rows("S2-057")
def test_any_value_reads_back_as_it_was(row, value, place):
    path = place / ".env"
    path.write_bytes(b"A=1 # one\r\nB=2\r\nV=old # kept\r\n# last")
    change = dotenv.change(path, {"V": value, "NEW": value, "B": None})
    assert change.changed
    assert read_dotenv(path)[0] == {"A": "1", "V": value, "NEW": value}
    assert b"A=1 # one\r\n" in path.read_bytes() and b" # kept\r\n# last\r\n" in path.read_bytes()


@rows("S2-057")
def test_bytes_that_are_no_text_stay_and_what_no_line_can_say_is_refused(row):
    text = b"# caf\xe9\nA=1".decode("utf-8", "surrogateescape")
    assert dotenv.changed(text, {"B": "2"}).encode("utf-8", "surrogateescape") == b"# caf\xe9\nA=1\nB=2\n"
    for value in ("two\nlines", "nul\0", "it's $5"):
        with pytest.raises(AIUtilitiesError, match="AI_MODEL"):
            dotenv.changed("", {"AI_MODEL": value})


@rows("S2-057")
def test_a_repository_is_told_to_leave_the_file_out(row, place):
    (place / ".git").mkdir()
    person = Person()
    wizard(person).run(Answers(provider="ollama"), ask=False)
    assert "version control" in person.seen
    (place / ".gitignore").write_text("/.env*\n")
    person = Person()
    wizard(person).run(Answers(provider="ollama", model="other"), ask=False)
    assert "version control" not in person.seen


# ---- guidance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", providers())
@rows("S2-059")
def test_each_provider_says_where_a_key_is_made_its_variable_and_its_model(row, name, place):
    found = guidance(name, {})
    facts = catalog.load().provider(name)
    told = " ".join(found.lines)
    if found.needs_key:
        assert found.keys_at and found.keys_at.startswith("https://") and found.keys_at in told
        assert found.variables and found.variables[0] in told
    else:
        assert "without a key" in told and found.local
    assert (facts.default_model or "one has to be named") in told
    assert all(variables[0] in told for variables in facts.needs.values())
    assert found.found is None


@rows("S2-059")
def test_a_key_that_is_there_already_is_told_of_and_enter_leaves_it(row, place):
    person = Person("groq", "", "", "y", "n")
    result = wizard(person, env={"GROQ_API_KEY": KEY}).run()
    assert "A key is there already: env GROQ_API_KEY" in person.seen and KEY not in person.seen
    assert "AI_API_KEY" not in result.variables and "No key is set" not in person.seen
    with pytest.raises(AIUtilitiesError) as caught:
        SetupWizard().guidance("grok")
    with pytest.raises(AIUtilitiesError, match="provider is a name, not int"):
        SetupWizard().guidance(5)
    assert caught.value.hint


@rows("S2-059")
def test_a_probe_asks_the_provider_and_tells_what_came(row, world):
    person = Person("y")
    url = world.base_url("openai.chat")
    result = wizard(person).run(
        Answers(provider="openai", model="gpt-4o-mini", base_url=url, api_key=KEY, probe=True), ask=False
    )
    assert result.problem is None and result.models and f"tells of {result.models} models" in person.seen
    assert len(world.requests) == 1
    # By the provider's own address too, with its own key.
    result = wizard(person, "other.env").run(Answers(provider="openai", probe=True), ask=False)
    assert result.models and len(world.requests) == 2
    result = wizard(person).run(Answers(provider="openai", probe=False), ask=False)
    assert result.models is None and len(world.requests) == 2


@rows("S2-059")
def test_a_probe_that_fails_is_told_and_the_file_stays(row, place):
    person = Person()
    result = wizard(person).run(
        Answers(provider="openai", base_url="http://127.0.0.1:9/v1", api_key=KEY, probe=True), ask=False
    )
    assert isinstance(result.problem, ProviderAPIError) and result.written and (place / ".env").exists()
    assert "did not answer as it should" in person.seen and KEY not in person.seen


# ---- the command --------------------------------------------------------------------------------


@pytest.fixture
def command(place):
    """The command as a program of its own, in the test's folder."""

    def call(*words, module=MODULE, stdin="", env=None):
        return subprocess.run(
            [sys.executable, "-m", module, *words], input=stdin, capture_output=True, text=True, timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(env or {})},
        )  # fmt: skip

    return call


@rows("S2-058", "S2-186")
def test_both_documented_paths_are_one_program_with_a_setup_command(row, command):
    assert alias.main is program.main and alias.cli is program.cli
    assert "setup" in program.cli.commands and callable(program.main)
    done = [command("setup", "--help", module=module) for module in (MODULE, "polyvox.compat.ai_utilities.setup.cli")]
    assert done[0].returncode == done[1].returncode == 0
    assert done[0].stdout == done[1].stdout and "--dry-run" in done[0].stdout
    with open(os.path.join(os.path.dirname(polyvox.__file__), "..", "..", "pyproject.toml"), encoding="utf-8") as file:
        assert 'polyvox-ai-utilities = "polyvox.compat.ai_utilities.cli:main"' in file.read()


@rows("S2-058")
def test_flags_of_the_shell_are_honoured(row, command, place):
    words = ("setup", "--yes", "--provider", "groq", "--model", "m", "--key", "@env:MINE", "--file", "conf/our.env")
    done = command(*words, env={"MINE": KEY})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and KEY not in done.stderr
    assert read_dotenv(place / "conf" / "our.env")[0] == {
        "AI_PROVIDER": "groq", "AI_MODEL": "m", "AI_API_KEY": KEY,
    }  # fmt: skip
    assert mode(place / "conf" / "our.env") == 0o600 and not (place / ".env").exists()
    done = command("setup", "-y", "--provider", "groq", "--key", "-", stdin=f"{KEY}-piped\n")
    assert done.returncode == 0 and read_dotenv(place / ".env")[0]["AI_API_KEY"] == f"{KEY}-piped"
    done = command("setup", "-y", "--provider", "ollama", "--dry-run")
    assert done.returncode == 0 and "AI_PROVIDER=ollama" in done.stderr
    assert read_dotenv(place / ".env")[0]["AI_PROVIDER"] == "groq"


@rows("S2-058")
def test_flags_given_by_a_program_are_honoured_and_not_those_of_the_process(row, place, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["somebody's program", "--unknown"])
    log = logging.getLogger("polyvox")  # a command puts its own handler there
    monkeypatch.setattr(log, "handlers", [*log.handlers])
    monkeypatch.setattr(log, "level", log.level)
    with pytest.raises(SystemExit) as ended:
        program.main(["setup", "--yes", "--provider", "ollama", "--model", "llama3.2"])
    assert ended.value.code == 0
    assert read_dotenv(place / ".env")[0] == {"AI_PROVIDER": "ollama", "AI_MODEL": "llama3.2"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("setup",), 2, "--yes"),
        (("setup", "--yes"), 2, "no provider is named"),
        (("setup", "--yes", "--provider", "opnai"), 2, "did you mean openai"),
        (("setup", "--colour"), 2, "--colour"),
        (("setup", "-y", "--provider", "groq", "--key", KEY), 2, "history"),
        (("setup", "-y", "--provider", "ollama", "--file", "/dev/null/x"), 78, "cannot be written"),
        (("setup", "-y", "--provider", "openai", "--base-url", "http://127.0.0.1:9", "--probe"), 8, "did not answer"),
        (("setpu",), 2, "did you mean: polyvox-ai-utilities setup"),
        (("setpu", "--yes"), 2, "did you mean: polyvox-ai-utilities setup"),
    ],
    ids=lambda value: value if isinstance(value, int) else None,
)
@rows("S2-058")
def test_each_way_to_end_has_its_exit_code(row, words, code, said, command):
    env = {"OPENAI_API_KEY": KEY, "POLYVOX_RETRIES": "0"}
    done = command(*words, env=env)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr and KEY not in done.stderr


@rows("S2-058")
def test_the_other_verbs_of_the_program_work_beside_it(row, command):
    done = command("ask", "-m", "demo", "Hello")
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    done = command("--help")
    assert "setup" in done.stdout and "embed" in done.stdout


class Recorded(Terminal):
    """One that remembers all that was shown."""

    all = ""

    def _read(self, seconds):
        before = len(self._seen)
        more = super()._read(seconds)
        self.all += self._seen[before:]
        return more


@rows("S2-056", "S2-058")
def test_a_terminal_is_talked_to_and_the_key_is_typed_unseen(row, place):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "dumb"}

    def start(*words, **facts):
        return subprocess.Popen([sys.executable, "-m", MODULE, *words], env=env, **facts)

    with Recorded(start, "setup") as terminal:
        terminal.wait_for("Provider [openai]")
        terminal.type("groq\r")
        terminal.wait_for("https://console.groq.com/keys")
        terminal.wait_for("Key for Groq")
        terminal.type(f"{KEY}\r")
        terminal.wait_for("Model [")
        terminal.type("\r")
        terminal.wait_for("Write this to .env?")
        terminal.type("\r")
        terminal.wait_for("now?")
        terminal.type("n\r")
        terminal.rest()
        assert terminal.process.wait(20) == 0, terminal.all
    assert "groq" in terminal.all and KEY not in terminal.all and KEY[4:] not in terminal.all
    assert read_dotenv(place / ".env")[0]["AI_API_KEY"] == KEY
