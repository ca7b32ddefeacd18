"""The contract of a server that keeps models itself: what it has, what it has loaded, and how a model is fetched,
shown and deleted there. Values and bytes only; it asks nobody, and knows no server by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from msgspec import Struct

from polyvox.dialects import Reply, Wire
from polyvox.errors import PolyvoxError


class KeptModel(Struct, frozen=True, kw_only=True):
    """A model that a server has. None is not known.

    Attributes:
        name: what it is asked by.
        size: bytes on the server's disk.
        digest: what tells its contents from others of the same name.
        modified: epoch seconds of the last change.
        format, family, parameter_size, quantization: as the server words them, such as "gguf" and "8.0B".
    """

    name: str
    size: int | None = None
    digest: str | None = None
    modified: float | None = None
    format: str | None = None
    family: str | None = None
    parameter_size: str | None = None
    quantization: str | None = None


class LoadedModel(Struct, frozen=True, kw_only=True):
    """A model that is in a server's memory now. None is not known.

    Attributes:
        name, digest: as those of `KeptModel`.
        size: bytes of memory it takes in all; vram is how many of these are a graphics card's.
        context: tokens it was loaded for.
        expires: epoch seconds at which it is unloaded, unless it is asked before.
    """

    name: str
    digest: str | None = None
    size: int | None = None
    vram: int | None = None
    context: int | None = None
    expires: float | None = None


class ModelFacts(Struct, frozen=True, kw_only=True):
    """All that a server says of one model. None is not known.

    Attributes:
        name: the name it was asked for by.
        capabilities: words like "completion", "tools", "vision", "thinking"; () is not known.
        context: the most tokens it can take.
        parameters: the settings it runs with, a line each, as the server writes them.
        template, system, license: texts that belong to it.
        modified, format, family, parameter_size, quantization: as those of `KeptModel`.
        details: everything else that is a plain value, by the server's own names.
    """

    name: str
    capabilities: tuple[str, ...] = ()
    context: int | None = None
    parameters: str | None = None
    template: str | None = None
    system: str | None = None
    license: str | None = None
    modified: float | None = None
    format: str | None = None
    family: str | None = None
    parameter_size: str | None = None
    quantization: str | None = None
    details: Mapping[str, Any] = {}


class PullProgress(Struct, frozen=True, gc=False):
    """How far a model has come. A step without a digest is one word on the whole; with one it is about a piece,
    of whose `total` bytes `completed` are there. None is not told."""

    status: str
    digest: str | None = None
    completed: int | None = None
    total: int | None = None


class PullReader(Protocol):
    """The answer to a pull being read: bytes in any chunking, progress out. Neither method raises.

    `done` is true from the end on, and later bytes are ignored. It ended well unless `error` says why not: an
    answer that ends before the server said that it has the model is such an error.
    """

    done: bool
    error: PolyvoxError | None

    def feed(self, data: bytes) -> list[PullProgress]:
        """Take some bytes, give the steps they complete."""

    def close(self) -> list[PullProgress]:
        """The connection ended."""


class KeepsModels(Protocol):
    """How a server is asked about its models, and how its answers are read. Reading raises BadResponseError for
    what is no such answer, or the server's error where a 200 holds one.

    start is the command that starts such a server.
    """

    start: str

    def fits(self, asked: str, kept: str) -> bool:
        """Whether a model of one name is the one that is kept under another."""

    def listing(self) -> Wire:
        """The request for what it has."""

    def read_listing(self, reply: Reply) -> tuple[KeptModel, ...]:
        """What it has, in its order."""

    def loaded(self) -> Wire:
        """The request for what is in its memory."""

    def read_loaded(self, reply: Reply) -> tuple[LoadedModel, ...]:
        """What is in its memory, in its order."""

    def facts(self, name: str) -> Wire:
        """The request for all that it knows of a model."""

    def read_facts(self, reply: Reply, name: str) -> ModelFacts:
        """All that it knows of the model of this name."""

    def pull(self, name: str) -> Wire:
        """The request to fetch a model; the answer goes to a `pull_reader`."""

    def pull_reader(self) -> PullReader:
        """A reader for the answer to one pull."""

    def delete(self, name: str) -> Wire:
        """The request to delete a model."""

    def copy(self, source: str, destination: str) -> Wire:
        """The request to have a model under another name too."""

    def keep_alive(self, value: float | str) -> float | str:
        """How long a model is to stay loaded, as the server takes it: seconds, or a duration such as "10m"; below 0
        is for ever. Raises InputError for what is no duration. A chat says it by the key of this name in its extra."""

    def load(self, name: str, keep_alive: float | str | None) -> Wire:
        """The request to load a model, and to keep it loaded for so long after it was last asked. 0 unloads it; None
        is as long as the server thinks right."""

    def read_done(self, reply: Reply) -> None:
        """The answer to what has nothing to tell: raises where it says that it was not done."""

    def decode_error(self, reply: Reply) -> PolyvoxError:
        """The error in a reply with status >= 400."""


_ROOMS = {"ollama.chat": "polyvox.dialects.ollama.models"}
KEEPERS = tuple(_ROOMS)
"""The dialects whose servers keep models."""


def store(dialect: str) -> KeepsModels:
    """How servers of a dialect keep models, loaded on first use; KeyError for one that is not in KEEPERS."""
    found: KeepsModels = import_module(_ROOMS[dialect]).STORE
    return found
