"""A table to write into, the units that do so, and ways to wait and to look."""

import time

from polyvox.database import STEPS as OURS
from polyvox.database import Step, Unit, run, run_many
from polyvox.errors import InputError

THINGS = Step(
    len(OURS) + 1,
    "things",
    ("things",),
    ("CREATE TABLE things (name TEXT NOT NULL PRIMARY KEY, amount BIGINT NOT NULL)",),
)
STEPS = (*OURS, THINGS)


class Put(Unit):
    """Writes one thing; its name twice is an error."""

    def __init__(self, name, amount=1):
        self.name, self.amount = name, amount

    def apply(self, connection):
        run(connection, "INSERT INTO things VALUES (?, ?)", (self.name, self.amount))
        return self.name


class Add(Unit):
    """Adds to a thing if there is room for it: reads, decides, writes."""

    def __init__(self, name, amount, most):
        self.name, self.amount, self.most = name, amount, most

    def apply(self, connection):
        lock = " FOR UPDATE" if connection.dialect.name == "postgresql" else ""
        now = run(connection, f"SELECT amount FROM things WHERE name = ?{lock}", (self.name,)).scalar()
        if now + self.amount > self.most:
            return False
        run(connection, "UPDATE things SET amount = ? WHERE name = ?", (now + self.amount, self.name))
        return True


class Refuse(Unit):
    """Writes, and then thinks better of it."""

    can_fail = True

    def apply(self, connection):
        run(connection, "INSERT INTO things VALUES ('refused', 1)")
        raise InputError("not this one")


class Many:
    """Rows that go out together; keeps those that were refused."""

    def __init__(self):
        self.together = []
        self.kept = []
        self.errors = []

    def prepare(self, said):
        return tuple(said)

    def apply(self, connection, rows):
        run_many(connection, "INSERT INTO things VALUES (?, ?) ON CONFLICT (name) DO NOTHING", list(rows))
        self.together.append(len(rows))

    def refused(self, rows, error):
        self.kept += rows
        self.errors.append(error)


def things(database):
    """All there is, by name."""
    return dict(
        database.read_sync(lambda connection: [tuple(row) for row in run(connection, "SELECT * FROM things").all()])
    )


def until(true, seconds=20):
    """Wait for something that happens soon."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
