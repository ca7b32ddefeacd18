"""A clock the test sets, and servers for leases in Redis."""

import pytest

from tests.services import private_redis, redis_prefix, redis_server  # noqa: F401 - fixtures


class Clock:
    """A clock that stands still until it is told. It starts late, because a clock that nobody sets starts anywhere."""

    def __init__(self, now=1_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()
