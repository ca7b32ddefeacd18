"""The models that a simulated server keeps: listed, pulled step by step, shown, loaded, copied and deleted. Sizes and
digests are made up from the names, so that they are the same in every run; nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from polyvox.dialects import Wire, client_object, encode_json
from polyvox.dialects.model_store import store
from polyvox.errors import InputError, NotFoundError
from polyvox.testing.simulate.answers import Answer, plain_answer
from polyvox.transports.replay import Chunk

MISSING_TAG = "missing"
"""The tag of models that the library does not have: pulling one fails as it does there."""

_DIALECT = "ollama.chat"
CONTEXT = 32_768
_KEPT_LOADED = timedelta(minutes=5)
_FOR_EVER = timedelta(days=365 * 200)
_STEPS = 4  # of each piece of a model
_NO_TIME = "1970-01-01T00:00:00Z"  # of models that were never changed
_TIMES = re.compile(r"([\d.]+)(ns|us|µs|ms|s|m|h)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class _Piece(Struct, frozen=True):
    """A file of a model."""

    digest: str
    size: int


def listing(names: Sequence[str]) -> Any:
    """The list of models with these names."""
    return {"models": [_row(name) for name in names]}


def _row(name: str) -> dict[str, Any]:
    pieces = _pieces(name)
    return {
        "name": name, "model": name, "modified_at": _NO_TIME, "size": sum(piece.size for piece in pieces),
        "digest": hashlib.sha256(name.encode()).hexdigest(), "details": _details(),
    }  # fmt: skip


def _details() -> dict[str, Any]:
    return {"parent_model": "", "format": "gguf", "family": "demo", "families": ["demo"],
            "parameter_size": "1M", "quantization_level": "Q8_0"}  # fmt: skip


def _pieces(name: str) -> tuple[_Piece, ...]:
    """The files of a model: its weights, its template, its license."""
    digests = [hashlib.sha256(f"{name}/{what}".encode()).hexdigest() for what in ("weights", "template", "license")]
    sizes = (1_000_000 + int(digests[0][:6], 16), 1_000, 10_000)
    return tuple([_Piece(f"sha256:{digest}", size) for digest, size in zip(digests, sizes, strict=True)])


class Kept:
    """What one server keeps. step is the pause between two steps of a pull, in seconds; changed is called when it keeps
    other models than before."""

    def __init__(self, names: Sequence[str], step: float = 0.0, changed: Callable[[], None] = lambda: None) -> None:
        self._names = dict.fromkeys(names)
        self._loaded: dict[str, datetime] = {}
        self._coming: dict[int, str] = {}  # pulls under way, by the number of their request
        self._step = step
        self._changed = changed
        self._ways: dict[str, Callable[[dict[str, Any], int], Answer]] = {
            "/api/ps": lambda _, __: self._running(),
            "/api/show": lambda body, _: self._shown(self._of(body)),
            "/api/pull": self._pull,
            "/api/delete": lambda body, _: self._deleted(self._of(body)),
            "/api/copy": lambda body, _: self._copied(body),
            "/api/generate": lambda body, _: self._turned(body),
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The models there are, by their own names."""
        return tuple(self._names)

    @property
    def known(self) -> tuple[str, ...]:
        """All names that mean a model: the usual tag may be left out."""
        return (*self._names, *(name.removesuffix(":latest") for name in self._names if name.endswith(":latest")))

    def answer(self, wire: Wire, number: int) -> Answer:
        """The answer to a request about models; number is the request's own. Raises errors the dialect can say."""
        body = client_object(wire) if wire.method != "GET" else {}
        return self._ways[wire.path.partition("?")[0]](body, number)

    def ends(self, number: int, *, well: bool) -> None:
        """A request is over: what it pulled is there now, if all of its answer could be sent."""
        name = self._coming.pop(number, None)
        if name is not None and well:
            self._names[name] = None
            self._changed()

    def asked(self, wire: Wire) -> None:
        """A model was asked something: it is loaded now, for as long as the request says."""
        body = client_object(wire)
        self._load(self._found(str(body.get("model"))) or str(body.get("model")), body)

    # ---- each kind of request -----------------------------------------------------------------

    def _of(self, body: dict[str, Any], key: str = "model") -> str:
        """The model a request is about; NotFoundError for one that is not here."""
        said = _text(body, key)
        name = self._found(said)
        if name is None:
            raise NotFoundError(f"model '{said}' not found", status=404)
        return name

    def _found(self, said: str) -> str | None:
        return next((name for name in (said, f"{said}:latest") if name in self._names), None)

    def _running(self) -> Answer:
        now = datetime.now(UTC)
        self._loaded = {name: until for name, until in self._loaded.items() if until > now}
        rows = [
            {**row, "expires_at": until.isoformat(), "size_vram": row["size"], "context_length": CONTEXT}
            for name, until in self._loaded.items()
            for row in [{key: value for key, value in _row(name).items() if key != "modified_at"}]
        ]
        return plain_answer({"models": rows})

    def _shown(self, name: str) -> Answer:
        return plain_answer({
            "license": "No rights are reserved: there is nothing here.",
            "modelfile": f"FROM {name}",
            "parameters": f"num_ctx                        {CONTEXT}\ntemperature                    0.7",
            "template": "{{ .Prompt }}",
            "details": _details(),
            "model_info": {
                "general.architecture": "demo", "general.parameter_count": 1_000_000, "demo.context_length": CONTEXT,
            },
            "capabilities": ["completion", "tools", "thinking"],
            "modified_at": _NO_TIME,
        })  # fmt: skip

    def _pull(self, body: dict[str, Any], number: int) -> Answer:
        name = _text(body)
        if any(char.isspace() for char in name) or name.endswith(":"):
            raise InputError("invalid model name", status=400)
        name = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
        steps: list[dict[str, Any]] = [{"status": "pulling manifest"}]
        if name.endswith(f":{MISSING_TAG}"):
            steps.append({"error": "pull model manifest: file does not exist"})
        else:
            self._coming[number] = name
            steps += [step for piece in _pieces(name) for step in _coming(piece, have=name in self._names)]
            steps += [{"status": word} for word in ("verifying sha256 digest", "writing manifest", "success")]
        if body.get("stream") is False:
            return plain_answer(steps[-1])
        chunks = [Chunk(encode_json(step) + b"\n", self._step if place else 0.0) for place, step in enumerate(steps)]
        return Answer(200, {"content-type": "application/x-ndjson"}, tuple(chunks), streamed=True)

    def _deleted(self, name: str) -> Answer:
        del self._names[name]
        self._loaded.pop(name, None)
        self._changed()
        return Answer(200, {})

    def _copied(self, body: dict[str, Any]) -> Answer:
        self._of(body, "source")
        name = _text(body, "destination")
        self._names[name if ":" in name else f"{name}:latest"] = None
        self._changed()
        return Answer(200, {})

    def _turned(self, body: dict[str, Any]) -> Answer:
        """A model loaded or unloaded, which is all that is done here without a conversation."""
        name = self._of(body)
        if body.get("prompt"):
            raise InputError("prompts are answered at /api/chat here; without one a model is loaded", status=400)
        reason, now = "load" if self._load(name, body) else "unload", datetime.now(UTC).isoformat()
        return plain_answer({"model": name, "created_at": now, "response": "", "done": True, "done_reason": reason})

    def _load(self, name: str, body: dict[str, Any]) -> bool:
        """Whether the model is loaded after a request that says how long it is to stay so."""
        said = body.get("keep_alive")
        stays = _KEPT_LOADED if said is None else _length(store(_DIALECT).keep_alive(said))
        if stays:
            self._loaded[name] = datetime.now(UTC) + stays
        else:
            self._loaded.pop(name, None)
        return bool(stays)


def _coming(piece: _Piece, *, have: bool) -> list[dict[str, Any]]:
    """The steps in which a file comes; one that is here already is told as whole."""
    facts = {"status": f"pulling {piece.digest[7:19]}", "digest": piece.digest, "total": piece.size}
    if have:
        return [{**facts, "completed": piece.size}]
    return [facts, *({**facts, "completed": piece.size * step // _STEPS} for step in range(1, _STEPS + 1))]


def _text(body: dict[str, Any], key: str = "model") -> str:
    """A name in a request; old clients say the model's as "name"."""
    value = body.get(key) or (body.get("name") if key == "model" else None)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{key} is required", status=400)
    return value.strip()


def _length(said: float | str) -> timedelta:
    """How long a model stays loaded; below 0 is for ever."""
    if isinstance(said, str):
        sign = -1 if said.startswith("-") else 1
        said = sign * sum(float(number) * _UNITS[unit] for number, unit in _TIMES.findall(said))
    return _FOR_EVER if said < 0 else timedelta(seconds=said)
