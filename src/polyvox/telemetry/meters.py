"""OpenTelemetry's metrics of calls, as the table of names has them. It knows no span but the one a figure hangs on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from polyvox.telemetry.names import Metric, metrics_of, names, spoken
from polyvox.telemetry.places import Places

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

_KEYS = ("operation", "provider", "request_model", "response_model", "server_address", "server_port", "error")
# What of these tokens is known to be of one modality, by the fact that counts it.
_MODALITIES = {"input": {"audio": "audio_input", "image": "image_input"}, "output": {"audio": "audio_output"}}
_MODALITY = "gen_ai.token.modality"
_MODELS = 500
_KEPT = 2000  # combinations of who was asked, what answered and how it ended, whose attributes are kept

Record: TypeAlias = Callable[[float, dict[str, Any], Any], None]
Said: TypeAlias = Mapping[str, Any]


class Meters:
    """The instruments of a version, and the facts that go into them."""

    def __init__(self, version: str, tokens_by_call: bool, provider: MeterProvider | None) -> None:
        from opentelemetry import metrics

        self._names = spoken("latest")  # every version calls these the same
        self._models = Places(_MODELS)
        self._kept: dict[tuple[Any, ...], tuple[dict[str, Any], ...]] = {}
        meter = metrics.get_meter("polyvox", meter_provider=provider)
        made: dict[str, Record] = {}
        self._rows: dict[bool, tuple[tuple[Metric, Record], ...]] = {}
        for inference in (True, False):
            rows: dict[tuple[str, str], Metric] = {}
            for row in metrics_of(version):
                if (row.choice and not tokens_by_call) or row.scope == ("other" if inference else "inference"):
                    continue
                rows.setdefault((row.name, row.of), row)
            self._rows[inference] = tuple((row, _made(meter, row, made)) for row in rows.values())

    def record(self, key: tuple[Any, ...], who: Said, measured: Said, inference: bool, context: Any) -> None:
        """Put in what is known of a call that has ended; what is not known goes in nowhere. key is the same for equal
        `who` only; context is the one whose span the figures hang on."""
        rows = self._rows[inference]
        kept = (key, measured["response_model"], measured["error"])
        attributes = self._kept.get(kept) or self._attributes(kept, who, measured, rows)
        for (row, put), said in zip(rows, attributes, strict=True):
            value = measured[row.of]
            if value is None or value < 0:
                continue
            if row.kind == "counter" and row.of in _MODALITIES:
                for kind, of in _MODALITIES[row.of].items():
                    if part := measured[of]:
                        put(part, {**said, _MODALITY: kind}, context)
                        value -= part
                if value <= 0:
                    continue
            put(value, said, context)

    def _attributes(
        self, kept: tuple[Any, ...], who: Said, measured: Said, rows: tuple[tuple[Metric, Record], ...]
    ) -> tuple[dict[str, Any], ...]:
        """The attributes of each row's figures; remembered where the models' names have come to stay."""
        found = {fact: value for fact in _KEYS if (value := measured.get(fact, who.get(fact))) is not None}
        stay = True
        for fact in ("request_model", "response_model"):
            if fact in found:
                label = self._models.label(found[fact], measured["error"])
                stay, found[fact] = stay and label == found[fact], label
        said = {name: value for fact, value in found.items() for name in self._names.get(fact, ())}
        attributes = tuple({**said, **row.more} for row, _ in rows)
        if stay and len(self._kept) < _KEPT:
            self._kept[kept] = attributes
        return attributes


def _made(meter: Any, row: Metric, made: dict[str, Record]) -> Record:
    """The instrument of a row; one of a name, however many rows it has."""
    if row.name not in made:
        if row.kind == "counter":
            made[row.name] = meter.create_counter(row.name, unit=row.unit, description=row.says).add
        else:
            edges = names().buckets[row.buckets]
            made[row.name] = meter.create_histogram(
                row.name, unit=row.unit, description=row.says, explicit_bucket_boundaries_advisory=edges
            ).record
    return made[row.name]
