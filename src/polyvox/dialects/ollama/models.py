"""The models an Ollama server keeps: `/api/tags`, `/api/ps`, `/api/show`, `/api/pull`, `/api/delete`, `/api/copy`,
and loading by `/api/generate` without a prompt. Pure: bytes and values.

Wire facts: the ollama SDK 0.6 types, and the server's own page on its API.
"""

from __future__ import annotations

import re
from typing import Any

from polyvox.dialects import SHAPE_ERRORS, Reply, Wire, decode_object, encode_json, guarded, integer, string
from polyvox.dialects.model_store import KeepsModels, KeptModel, LoadedModel, ModelFacts, PullProgress
from polyvox.dialects.ollama.answer import created_of, decode_error, error_of
from polyvox.errors import BadResponseError, InputError, NotFoundError, PolyvoxError, StreamInterruptedError

_HEADERS = {"content-type": "application/json", "accept": "application/json"}
_USUAL_TAG = ":latest"
_LONGEST_LINE = 1 << 16  # a step is some 200 bytes
# Durations as Go reads them, which is how the server does.
_TIME = r"(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h)"
_DURATION = re.compile(rf"[+-]?(?:{_TIME})+")
_SHOWN = frozenset({
    "license", "modelfile", "parameters", "template", "system", "details", "model_info", "capabilities", "modified_at",
    "messages", "projector_info", "tensors",
})  # fmt: skip


class OllamaModels:
    """See `KeepsModels`; it has no state, one object serves every call."""

    start = "ollama serve"

    def fits(self, asked: str, kept: str) -> bool:
        """See `KeepsModels`. A name without a tag means the tag "latest"; case says nothing."""
        return _tagged(asked) == _tagged(kept)

    def listing(self) -> Wire:
        """See `KeepsModels`."""
        return _get("/api/tags")

    def read_listing(self, reply: Reply) -> tuple[KeptModel, ...]:
        """See `KeepsModels`."""
        body = _body(reply)
        return guarded(lambda: tuple([_kept(row) for row in body["models"]]))

    def loaded(self) -> Wire:
        """See `KeepsModels`."""
        return _get("/api/ps")

    def read_loaded(self, reply: Reply) -> tuple[LoadedModel, ...]:
        """See `KeepsModels`."""
        body = _body(reply)
        return guarded(lambda: tuple([_loaded(row) for row in body["models"]]))

    def facts(self, name: str) -> Wire:
        """See `KeepsModels`."""
        return _post("/api/show", {"model": name})

    def read_facts(self, reply: Reply, name: str) -> ModelFacts:
        """See `KeepsModels`."""
        body = _body(reply)
        return guarded(lambda: _facts(body, name))

    def pull(self, name: str) -> Wire:
        """See `KeepsModels`."""
        wire = _post("/api/pull", {"model": name, "stream": True})
        return Wire(wire.path, wire.body, {**wire.headers, "accept": "application/x-ndjson"})

    def pull_reader(self) -> OllamaPullReader:
        """See `KeepsModels`."""
        return OllamaPullReader()

    def delete(self, name: str) -> Wire:
        """See `KeepsModels`."""
        return _post("/api/delete", {"model": name}, "DELETE")

    def copy(self, source: str, destination: str) -> Wire:
        """See `KeepsModels`."""
        return _post("/api/copy", {"source": source, "destination": destination})

    def keep_alive(self, value: float | str) -> float | str:
        """See `KeepsModels`."""
        return _duration(value)

    def load(self, name: str, keep_alive: float | str | None) -> Wire:
        """See `KeepsModels`. What the server's own command does to stop a model."""
        body: dict[str, Any] = {"model": name, "stream": False}
        if keep_alive is not None:
            body["keep_alive"] = self.keep_alive(keep_alive)
        return _post("/api/generate", body)

    def read_done(self, reply: Reply) -> None:
        """See `KeepsModels`. Deleting and copying are answered by nothing at all."""
        if reply.body.strip() not in (b"", b"null"):
            _body(reply)

    def decode_error(self, reply: Reply) -> PolyvoxError:
        """See `KeepsModels`."""
        return decode_error(reply)


class OllamaPullReader:
    """See `PullReader`. A line is one JSON object; the one with the status "success" is the last."""

    def __init__(self) -> None:
        self.done: bool = False
        self.error: PolyvoxError | None = None
        # Not `framing.NDJSON`: its bounds are those of answers, and a large model takes more lines than these have.
        self._pending = b""

    def feed(self, data: bytes) -> list[PullProgress]:
        """See `PullReader`."""
        if self.done:
            return []
        *lines, self._pending = (self._pending + data).split(b"\n")
        return self._taken(lines)

    def close(self) -> list[PullProgress]:
        """See `PullReader`. A last line may lack its end, but not its second half."""
        steps: list[PullProgress] = []
        if self._pending.rstrip().endswith(b"}"):
            steps = self._taken([self._pending])
        if not self.done:
            self._fail(StreamInterruptedError("the server stopped before it had the whole model", sent="yes"))
        return steps

    def _taken(self, lines: list[bytes]) -> list[PullProgress]:
        steps: list[PullProgress] = []
        try:
            for line in lines:
                if self.done:
                    return steps
                if line.strip():
                    steps.append(self._step(line))
            if len(self._pending) > _LONGEST_LINE:
                raise BadResponseError(f"one step of the stream is larger than {_LONGEST_LINE} bytes")
        except PolyvoxError as error:
            self._fail(error)
        except SHAPE_ERRORS as error:
            self._fail(BadResponseError(f"a line of the stream has an unexpected shape: {error}"))
        return steps

    def _step(self, line: bytes) -> PullProgress:
        body = decode_object(line)
        if body.get("error"):
            raise _refused(body)
        status = body["status"]
        if not isinstance(status, str):
            raise TypeError("status is not a string")
        self.done = status == "success"
        return PullProgress(
            status, string(body.get("digest")), integer(body.get("completed")), integer(body.get("total"))
        )

    def _fail(self, error: PolyvoxError) -> None:
        if not self.done:
            self.done = True
            error.sent = "yes"
            self.error = error


def _duration(value: float | str) -> float | str:
    """A time to stay loaded as the server takes it: a number of seconds, or text like "1h30m". InputError otherwise."""
    if isinstance(value, str):
        text = value.strip()
        if _DURATION.fullmatch(text):
            return text
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e9 < value < 1e9:
        raise InputError(
            "keep_alive is a number of seconds or a duration", param="keep_alive", hint='for example 600, "10m" or -1'
        )
    return int(value) if value == int(value) else value


# ---- requests and answers ---------------------------------------------------------------------


def _get(path: str) -> Wire:
    return Wire(path, b"", {"accept": "application/json"}, "GET")


def _post(path: str, body: dict[str, Any], method: str = "POST") -> Wire:
    return Wire(path, encode_json(body), _HEADERS, method)


def _tagged(name: str) -> str:
    name = name.strip().lower()
    return name if ":" in name.rpartition("/")[2] else name + _USUAL_TAG


def _body(reply: Reply) -> dict[str, Any]:
    body = decode_object(reply.body)
    if body.get("error"):
        raise _refused(body)
    return body


def _refused(body: dict[str, Any]) -> PolyvoxError:
    """The error in an answer. The server says of a model that its library has not only that a file is missing."""
    error = error_of(body, 0, {})
    if "file does not exist" in error.message:
        return NotFoundError(error.message, hint="check its name and tag in the library it comes from", sent="yes")
    return error


def _named(row: dict[str, Any]) -> str:
    """The name of a model; old servers tell one of the two keys only."""
    name = row.get("name") or row["model"]
    if not isinstance(name, str) or not name.strip():
        raise TypeError("a model's name is text")
    return name


def _make(row: dict[str, Any]) -> dict[str, Any]:
    """What the server says of how a model was made; "" is what it says where it does not know."""
    details = row.get("details") or {}
    return {
        "format": string(details.get("format")) or None,
        "family": string(details.get("family")) or None,
        "parameter_size": string(details.get("parameter_size")) or None,
        "quantization": string(details.get("quantization_level")) or None,
    }


def _kept(row: dict[str, Any]) -> KeptModel:
    return KeptModel(
        name=_named(row),
        size=integer(row.get("size")),
        digest=string(row.get("digest")) or None,
        modified=created_of(row.get("modified_at")),
        **_make(row),
    )


def _loaded(row: dict[str, Any]) -> LoadedModel:
    return LoadedModel(
        name=_named(row),
        digest=string(row.get("digest")) or None,
        size=integer(row.get("size")),
        vram=integer(row.get("size_vram")),
        # 0 is what servers say that do not know.
        context=integer(row.get("context_length")) or None,
        expires=created_of(row.get("expires_at")),
    )


def _facts(body: dict[str, Any], name: str) -> ModelFacts:
    info = body.get("model_info") or {}
    family = string(info.get("general.architecture"))
    capabilities = body.get("capabilities") or ()
    if not all(isinstance(word, str) for word in capabilities):
        raise TypeError("a capability is a word")
    plain = {
        key: value
        for key, value in [*info.items(), *((key, body[key]) for key in body if key not in _SHOWN)]
        if isinstance(value, str | int | float | bool)
    }
    return ModelFacts(
        name=name,
        capabilities=tuple(capabilities),
        context=integer(info.get(f"{family}.context_length")) or None,
        parameters=string(body.get("parameters")) or None,
        template=string(body.get("template")) or None,
        system=string(body.get("system")) or None,
        license=_license(body.get("license")),
        modified=created_of(body.get("modified_at")),
        details=plain,
        **_make(body),
    )


def _license(value: Any) -> str | None:
    """The license; one that is several texts is these, one below the other."""
    if isinstance(value, list):
        value = "\n\n".join(value)
    return string(value) or None


STORE: KeepsModels = OllamaModels()
