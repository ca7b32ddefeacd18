"""Databases for tests: a schema of its own in a PostgreSQL server, a key prefix of its own in Redis, and servers that a
test may stop. Where there is none the test is skipped; POLYVOX_REQUIRE_SERVICES=1 makes that a failure."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pytest

POSTGRES = os.environ.get("POLYVOX_TEST_POSTGRES", "postgresql://root@127.0.0.1:5432/test")
REDIS = os.environ.get("POLYVOX_TEST_REDIS", "redis://127.0.0.1:6379/0")


def without(reason):
    """No such service: a skip, or a failure where services are required."""
    if os.environ.get("POLYVOX_REQUIRE_SERVICES") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ---- PostgreSQL -------------------------------------------------------------------------------


class PrivatePostgres:
    """A PostgreSQL server of the test's own: start, stop, pause, go_on. It forgets all when it is removed."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="polyvox-pg-"))
        self.port = free_port()
        self.url = f"postgresql://tester@127.0.0.1:{self.port}/postgres"
        # The server refuses to run as root.
        self.user = "postgres" if hasattr(os, "geteuid") and os.geteuid() == 0 else None
        if self.user:
            shutil.chown(self.folder, self.user)
        self.folder.chmod(0o700)
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8")

    def _run(self, *command):
        # By its real path, because a program behind a link looks for its parts beside the link.
        program = os.path.realpath(shutil.which(command[0]))
        done = subprocess.run(
            [program, *command[1:]], user=self.user, capture_output=True, text=True, timeout=120, cwd=self.folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self):
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c shared_buffers=16MB"
        self._run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")

    def stop(self, mode="immediate"):
        """Stop it as a crash does, or another way pg_ctl knows."""
        self._run("pg_ctl", "-D", "data", "-w", "-m", mode, "stop")

    def restart(self):
        self.stop()
        self.start()

    @property
    def pids(self):
        """The server and its children, those that answer connections included."""
        head = int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{head}/task/{head}/children").read_text().split()
        return [head, *map(int, children)]

    def pause(self):
        """It holds its connections open and says nothing any more."""
        self.paused = self.pids
        for pid in self.paused:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def go_on(self):
        for pid in self.paused:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def remove(self):
        with contextlib.suppress(Exception):
            self.go_on()
        with contextlib.suppress(Exception):
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _reachable(url):
    try:
        import psycopg
    except ImportError:
        return False
    try:
        psycopg.connect(url, connect_timeout=3).close()
    except psycopg.Error:
        return False
    return True


@pytest.fixture(scope="session")
def postgres_server():
    """The URL of a running PostgreSQL server: the one the environment names, or else one started for the run."""
    if _reachable(POSTGRES):
        yield POSTGRES
        return
    if shutil.which("pg_ctl") is None or shutil.which("initdb") is None:
        without(f"no PostgreSQL at {POSTGRES}, and no server to start")
    server = PrivatePostgres()
    try:
        server.start()
        yield server.url
    finally:
        server.remove()


@pytest.fixture
def postgres(postgres_server):
    """The URL of a PostgreSQL database whose schema is this test's own."""
    import psycopg

    schema = f"polyvox_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    yield f"{postgres_server}?options=-csearch_path%3D{schema}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def private_postgres():
    """A running `PrivatePostgres`, for a test that stops it."""
    if shutil.which("pg_ctl") is None or shutil.which("initdb") is None:
        without("no PostgreSQL server to start")
    server = PrivatePostgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


# ---- Redis ------------------------------------------------------------------------------------


class PrivateRedis:
    """A Redis server of the test's own: start, stop, pause, go_on."""

    def __init__(self, *options):
        self.folder = Path(tempfile.mkdtemp(prefix="polyvox-redis-"))
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.options = options
        self.process = None

    def start(self):
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(
            [*command, *self.options], cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as line:
                line.sendall(b"PING\r\n")
                if line.recv(64):
                    return
            time.sleep(0.02)
        raise AssertionError("redis-server did not start")

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)
            self.process = None

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def remove(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _answers(url):
    try:
        import redis
    except ImportError:
        return False
    client = redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2)
    try:
        return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
    finally:
        client.close()


@pytest.fixture(scope="session")
def redis_server():
    """The URL of a running Redis server: the one the environment names, or else one started for the run."""
    if _answers(REDIS):
        yield REDIS
        return
    if shutil.which("redis-server") is None:
        without(f"no Redis at {REDIS}, and no server to start")
    server = PrivateRedis()
    try:
        server.start()
        yield server.url
    finally:
        server.remove()


@pytest.fixture
def redis_prefix(redis_server):
    """The prefix of the keys that are this test's own; they are removed after it."""
    import redis

    prefix = f"polyvox-test-{uuid.uuid4().hex[:12]}:"
    yield prefix
    with contextlib.closing(redis.Redis.from_url(redis_server)) as client:
        for key in client.scan_iter(f"{prefix}*", count=1000):
            client.delete(key)


@pytest.fixture
def private_redis():
    """A running `PrivateRedis`, for a test that stops it."""
    if shutil.which("redis-server") is None:
        without("no Redis server to start")
    server = PrivateRedis()
    try:
        server.start()
        yield server
    finally:
        server.remove()
