"""The numbered steps that make our tables, oldest first. A step that was released is never changed: its checksum is in
every database that took it. {bytes} is the column type for bytes; {by_key} lays a table out in the order of its key; a
statement that begins with {sqlite} or {postgresql} is for that kind of database alone."""

from __future__ import annotations

import hashlib

from msgspec import Struct


class Step(Struct, frozen=True):
    """One step: its number, counted from 1, what it is for, the tables that are there after it, and its statements in
    the SQL that both kinds of database speak."""

    number: int
    name: str
    tables: tuple[str, ...]
    statements: tuple[str, ...]

    @property
    def checksum(self) -> str:
        """Tells whether a database took this very step."""
        text = "\n".join((self.name, *(" ".join(statement.split()) for statement in self.statements)))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


LEDGER = Step(
    1,
    "ledger",
    ("instances", "calls", "attempts", "contents"),
    (
        """CREATE TABLE instances (
            id BIGINT NOT NULL PRIMARY KEY, started BIGINT NOT NULL, ended BIGINT,
            host TEXT NOT NULL, pid BIGINT NOT NULL, version TEXT NOT NULL)""",
        """CREATE TABLE calls (
            id {bytes} NOT NULL PRIMARY KEY, started BIGINT NOT NULL, instance BIGINT NOT NULL, state SMALLINT NOT NULL,
            operation TEXT NOT NULL, deployment TEXT NOT NULL, provider TEXT NOT NULL,
            asked TEXT NOT NULL, model TEXT NOT NULL, stream SMALLINT NOT NULL,
            tenant TEXT, person TEXT, project TEXT, session TEXT, key_name TEXT, tags TEXT,
            first_token BIGINT, duration BIGINT, bucket SMALLINT,
            finish_reason TEXT, error_kind TEXT, error_message TEXT,
            input BIGINT, output BIGINT, cache_read BIGINT, cache_write BIGINT, reasoning BIGINT,
            audio_input BIGINT, audio_output BIGINT, image_input BIGINT, total BIGINT, usage_more TEXT,
            usage_source SMALLINT NOT NULL, cost BIGINT, cost_source TEXT, cost_how TEXT,
            own_cache SMALLINT NOT NULL, saved BIGINT, losses INTEGER NOT NULL, attempts SMALLINT NOT NULL,
            request_id TEXT, prompt_hash {bytes}){by_key}""",
        """CREATE INDEX calls_open ON calls (instance) WHERE state = 0""",
        """CREATE INDEX calls_interrupted ON calls (instance) WHERE state = 4""",
        # All that a table of usage sums up, so that it is read from here alone.
        """CREATE INDEX calls_ended ON calls (model, started, state, bucket, duration, input, output, cache_read,
            cache_write, reasoning, cost, usage_source, own_cache, saved, provider, deployment, first_token)
            WHERE state <> 0""",
        """CREATE TABLE attempts (
            call {bytes} NOT NULL, number SMALLINT NOT NULL, deployment TEXT NOT NULL, provider TEXT, model TEXT,
            outcome TEXT NOT NULL, message TEXT, status INTEGER, sent TEXT NOT NULL, request_id TEXT,
            duration BIGINT, waited BIGINT,
            input BIGINT, output BIGINT, cache_read BIGINT, cache_write BIGINT, reasoning BIGINT, total BIGINT,
            usage_more TEXT, usage_source SMALLINT NOT NULL, cost BIGINT, cost_source TEXT, cost_how TEXT,
            PRIMARY KEY (call, number)){by_key}""",
        """CREATE TABLE contents (
            call {bytes} NOT NULL PRIMARY KEY, prompt TEXT, answer TEXT, cut SMALLINT NOT NULL)""",
    ),
)

BUDGETS = Step(
    2,
    "budgets",
    ("budget_accounts", "budget_entries"),
    (
        """CREATE TABLE budget_accounts (
            id TEXT NOT NULL PRIMARY KEY, family TEXT NOT NULL,
            spent BIGINT NOT NULL, reserved BIGINT NOT NULL, estimated BIGINT NOT NULL, unpriced BIGINT NOT NULL,
            due BIGINT, span BIGINT, until BIGINT){by_key}""",
        """CREATE INDEX budget_accounts_family ON budget_accounts (family)""",
        """CREATE INDEX budget_accounts_due ON budget_accounts (due) WHERE due IS NOT NULL""",
        """CREATE INDEX budget_accounts_until ON budget_accounts (until) WHERE until IS NOT NULL""",
        """CREATE TABLE budget_entries (
            attempt TEXT NOT NULL, account TEXT NOT NULL, state SMALLINT NOT NULL,
            amount BIGINT NOT NULL, sure SMALLINT NOT NULL, due BIGINT NOT NULL,
            PRIMARY KEY (attempt, account)){by_key}""",
        """CREATE INDEX budget_entries_due ON budget_entries (account, due)""",
    ),
)

_COUNT = "UPDATE deployments_revision SET number = number + 1"
DEPLOYMENTS = Step(
    3,
    "deployments",
    ("deployments", "deployments_revision"),
    (
        """CREATE TABLE deployments (
            name TEXT NOT NULL PRIMARY KEY, model TEXT NOT NULL, tier TEXT,
            weight DOUBLE PRECISION NOT NULL DEFAULT 1, priority INTEGER NOT NULL DEFAULT 0,
            api_key_env TEXT, api_key_of TEXT, base_url TEXT, dialect TEXT,
            concurrency BIGINT, requests_per_minute BIGINT, tokens_per_minute BIGINT, price TEXT,
            active SMALLINT NOT NULL DEFAULT 1, is_default SMALLINT NOT NULL DEFAULT 0, aliases TEXT,
            timeout DOUBLE PRECISION, max_tokens BIGINT, temperature DOUBLE PRECISION,
            description TEXT NOT NULL DEFAULT ''){by_key}""",
        # Whoever changes a row, with whatever program, changes this number: it is all that is read with every call.
        """CREATE TABLE deployments_revision (number BIGINT NOT NULL)""",
        """INSERT INTO deployments_revision VALUES (0)""",
        f"""{{sqlite}}CREATE TRIGGER deployments_added AFTER INSERT ON deployments BEGIN {_COUNT}; END""",
        f"""{{sqlite}}CREATE TRIGGER deployments_changed AFTER UPDATE ON deployments BEGIN {_COUNT}; END""",
        f"""{{sqlite}}CREATE TRIGGER deployments_removed AFTER DELETE ON deployments BEGIN {_COUNT}; END""",
        # By the name of the table's own schema: whoever changes a row may look for tables elsewhere.
        """{postgresql}CREATE FUNCTION deployments_changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            EXECUTE 'UPDATE ' || quote_ident(TG_TABLE_SCHEMA) || '.deployments_revision SET number = number + 1';
            RETURN NULL; END $$""",
        """{postgresql}CREATE TRIGGER deployments_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON deployments
            FOR EACH STATEMENT EXECUTE FUNCTION deployments_changed()""",
    ),
)

STEPS: tuple[Step, ...] = (LEDGER, BUDGETS, DEPLOYMENTS)
