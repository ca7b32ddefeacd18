"""What the command's tests share: a home of their own, the command in this process and as a program, and a
small provider on this machine."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner
from tests.services import postgres, postgres_server, private_redis  # noqa: F401 - fixtures

from polyvox import catalog
from polyvox.cli import cli

PAUSE = 0.15
WORDS = ("One ", "two ", "three ", "four ", "five.")


def bare_environment(home):
    """The environment without anything that configures polyvox, and without the user's local server."""
    secret = {"GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG"}
    for row in catalog.load().providers.values():
        secret.update(row.key_env, row.base_url_env, row.key_parts, *row.needs.values())
    drop = secret | {"NO_COLOR", "FORCE_COLOR", "TERM", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"}
    env = {name: value for name, value in os.environ.items() if name not in drop and not name.startswith("POLYVOX")}
    return {**env, "HOME": str(home), "POLYVOX_HOME": str(home / "polyvox"), "OLLAMA_HOST": "127.0.0.1:9",
            "PYTHONUNBUFFERED": ""}  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder nobody has used, and an environment without keys."""
    (tmp_path / "polyvox").mkdir(mode=0o700)
    env = bare_environment(tmp_path)
    for name in set(os.environ) - set(env):
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(home):
    """The command in this process; a terminal is nowhere."""
    log = logging.getLogger("polyvox")
    before = log.handlers, log.level

    def call(*words, input=None, env=None):
        return CliRunner().invoke(cli, list(words), input=input, env=env)

    yield call
    log.handlers, log.level = before


@pytest.fixture
def start(home):
    """The command as a program of its own."""
    begun = []

    def call(*words, env=None, **facts):
        process = subprocess.Popen(
            [sys.executable, "-m", "polyvox", *words],
            env={**os.environ, **(env or {})},
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **facts},
        )
        begun.append(process)
        return process

    yield call
    for process in begun:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def provider(home):
    """A provider called "test" in the configuration; what it does is the model's name."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Provider)
    server.daemon_threads = True
    server.seen, server.keys = [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    (home / "polyvox" / "config.toml").write_text(
        "retries = 0\n"
        f'[providers.test]\nbase_url = "http://127.0.0.1:{server.server_port}/v1"\nauth = "none"\nlocal = true\n'
    )
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class _Provider(BaseHTTPRequestHandler):
    """Chat completions, and the list of models of a local server."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """The tests' output is theirs."""

    def do_GET(self):
        self.server.keys.append(self.headers["authorization"])
        self._whole(200, {"models": [{"name": "tiny:latest"}, {"name": "other"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append(body)
        self.server.keys.append(self.headers["authorization"])
        model = body["model"]
        if model.startswith("status-"):
            message = f"this is a {model} for key sk-proj-abcdefghijklmnopqrstuvwx"
            self._whole(int(model[7:]), {"error": {"message": message, "type": "x"}})
        elif not body.get("stream"):
            message = {"role": "assistant", "content": SAYS.get(model, "".join(WORDS))}
            usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12,
                     "prompt_tokens_details": {"cached_tokens": 3}}  # fmt: skip
            choice = {"index": 0, "message": message, "finish_reason": ENDS.get(model, "stop")}
            self._whole(200, {"id": "c1", "object": "chat.completion", "model": model, "choices": [choice],
                              "usage": usage})  # fmt: skip
        else:
            self._streamed(model)

    def _whole(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _streamed(self, model):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            if model == "thinks":
                self._event({"delta": {"reasoning_content": "let me see"}})
            for word in [SAYS[model]] if model in SAYS else ["line\n"] * 20000 if model == "endless" else WORDS:
                self._event({"delta": {"content": word}})
                if model in ("slow", "hangs"):
                    time.sleep(PAUSE if model == "slow" else 30)
            if model == "cut":
                self._chunk(b"")
                return
            self._event({"delta": {}, "finish_reason": ENDS.get(model, "stop")})
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")
        except OSError:
            self.close_connection = True  # the client left, as some tests want

    def _event(self, choice):
        value = {"id": "c1", "object": "chat.completion.chunk", "model": "m",
                 "choices": [{"index": 0, "finish_reason": None, **choice}]}  # fmt: skip
        self._chunk(f"data: {json.dumps(value)}\n\n".encode())

    def _chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


SAYS = {
    "escapes": "a\x1b[31mred\x1b]0;title\x07\u202eb\r\nc",
    "json": '{"title": "Emma", "year": 1815}',
    "wrong": '{"title": 3}',
    "empty": "",
    "newline": "ends\n",
}
ENDS = {"long": "length"}
