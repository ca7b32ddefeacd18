"""Whatever happens in whatever order to calls, processes and the database, each admitted call has one row in the end,
and its state is the last thing that was said of it."""

import shutil
import sqlite3
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, precondition, rule

from polyvox.ledger import Ledger
from tests.ledger.calls import begin, finish, states, until


class Life(RuleBasedStateMachine):
    """Two processes at one file, by one ledger each; a process that dies lets go of its locks and says nothing."""

    open_calls = Bundle("open_calls")

    @initialize()
    def start(self):
        self.folder = Path(tempfile.mkdtemp(prefix="polyvox-life-"))
        self.file = self.folder / "ledger.db"
        self.lock = None
        self.expected = {}
        self.ledgers = [self.opened(), self.opened()]
        self.owner = {}

    def opened(self):
        ledger = Ledger(self.file)
        ledger.open()
        return ledger

    @rule(target=open_calls, which=st.integers(0, 1), model=st.sampled_from(["a", "b"]))
    def begin(self, which, model):
        start = begin(self.ledgers[which], model=model)
        self.expected[start.id] = "open"
        self.owner[start.id] = self.ledgers[which]
        return start

    @rule(start=consumes(open_calls), state=st.sampled_from(["ok", "error", "cancelled"]), twice=st.booleans())
    def finish(self, start, state, twice):
        ledger = self.owner[start.id]
        if ledger not in self.ledgers:
            return  # its process is dead
        finish(ledger, start, state=state)
        if twice:
            finish(ledger, start, state="ok")
        self.expected[start.id] = state

    @precondition(lambda self: self.lock is None)
    @rule()
    def lock_the_file(self):
        self.lock = sqlite3.connect(self.file, isolation_level=None)
        until(self.try_to_lock)

    def try_to_lock(self):
        try:
            self.lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            return False
        return True

    @precondition(lambda self: self.lock is not None)
    @rule()
    def unlock_the_file(self):
        self.lock.close()
        self.lock = None

    @precondition(lambda self: self.lock is None)
    @rule(which=st.integers(0, 1))
    def end_in_order(self, which):
        self.settled()
        self.ledgers[which].close()
        self.replace(which)

    @rule(which=st.integers(0, 1))
    def die(self, which):
        ledger = self.ledgers[which]
        # As the system does for a process that is killed: what was committed or in a file stays, the lock goes.
        ledger.database.close()
        ledger.instance.lock.close()
        self.replace(which)

    def replace(self, which):
        ledger = self.ledgers[which]
        for id, state in self.expected.items():
            if state == "open" and self.owner[id] is ledger:
                self.expected[id] = "interrupted"
        self.ledgers[which] = Ledger(self.file)
        # While the file is locked the rest of it comes when it is free.
        self.ledgers[which].open()

    def settled(self):
        until(lambda: all(ledger.health().state == "ok" for ledger in self.ledgers))

    def teardown(self):
        if not hasattr(self, "ledgers"):
            return
        if self.lock is not None:
            self.lock.close()
        self.settled()
        until(lambda: states(self.ledgers[0]) == self.expected)
        assert sum(ledger.health().lost for ledger in self.ledgers) == 0
        for ledger in self.ledgers:
            ledger.close()
        assert list((self.folder / "ledger.db.spool").iterdir()) == []
        shutil.rmtree(self.folder)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=12, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
