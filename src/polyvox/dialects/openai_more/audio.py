"""Sound into words and words into sound (`/audio/transcriptions`, `/audio/translations`, `/audio/speech`), as the
inventor and its imitators speak them. Pure: bytes and values; it knows no provider and no model.

Wire facts: openai SDK 3.x types, mistralai SDK 3.x types, and recorded answers of several providers; the forms of SRT
and WebVTT as the W3C has the latter. Options of the endpoint: `transcriptions_path`, `translations_path`,
`speech_path`, and `speech_voice`, the voice where none is named.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import UNSET

from polyvox.dialects import Encoded, Endpoint, Reply, Wire, client_object, guarded, request_body, snippet, string
from polyvox.dialects.embedding import Losses, extra_of, own_keys, put_keys, reply_of
from polyvox.dialects.openai_chat.answer import decode_error
from polyvox.dialects.openai_more import BothSides
from polyvox.dialects.openai_more.shared import (
    JSON,
    Form,
    answer_in,
    fields_of,
    file_part,
    form_wire,
    number,
    path_of,
    refuse_stream,
    untold,
    usage_of,
    usage_said,
)
from polyvox.dialects.shapes import field, needed, text
from polyvox.dialects.shapes import number as a_number
from polyvox.errors import BadResponseError, InputError, PolyvoxError
from polyvox.media import Segment, SpeakRequest, Speech, TranscribeRequest, Transcript, Word
from polyvox.types import Audio, Loss

_FIELDS = {"language": "language", "prompt": "prompt", "temperature": "temperature", "format": "response_format",
           "timestamps": "timestamp_granularities"}  # fmt: skip
_NO_WORDS = {"text/html": "a web page", "text/event-stream": "a stream, which nobody asked for"}
_TRANSCRIPT = frozenset({"text", "language", "duration", "segments", "words", "usage", "model"})
_WORD = frozenset({"word", "text", "start", "end"})
_SEGMENT = frozenset({"text", "start", "end", "speaker", "speaker_id"})


class OpenAITranscripts:
    """See `BothSides`. english says whether what is said comes back in English, whatever its language; that
    protocol has fewer fields."""

    def __init__(self, *, english: bool) -> None:
        place = "translations" if english else "transcriptions"
        self.name = f"openai.{place}"
        self._option, self._path = f"{place}_path", f"/audio/{place}"
        gone: dict[str, None] = dict.fromkeys(("language", "timestamps")) if english else {}
        self._fields: dict[str, str | None] = {**_FIELDS, **gone}

    def encode(self, request: TranscribeRequest, at: Endpoint) -> Encoded:
        """See `Operation`."""
        losses: Losses = []
        own = own_keys(request.extra, self.name, losses)
        refuse_stream(own)
        if not request.model:
            raise InputError("no model is named to write sound down", param="model", hint='say model="PROVIDER/MODEL"')
        said = {"model": request.model, **fields_of(request, self._fields, losses), **own}
        # Some servers read a form as it comes: what the sound is to become stands before it.
        sound = file_part("file", request.audio, "audio", _named(request.audio))
        return Encoded(form_wire(path_of(at, self._option, self._path), said, [sound]), tuple(losses))

    def decode(self, reply: Reply, at: Endpoint) -> Transcript:
        """See `Operation`. A transcript comes as JSON, as plain text, or as a file of subtitles."""
        kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in _NO_WORDS:
            raise BadResponseError(f"the answer is {_NO_WORDS[kind]}: {snippet(reply.body)}")
        if kind.endswith("json") or (not kind.startswith("text/") and reply.body.lstrip()[:1] == b"{"):
            body = answer_in(reply)
            return guarded(lambda: _transcript(body, reply.body, self.name))
        return guarded(lambda: _plain(reply.body))

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """See `Operation`."""
        return decode_error(reply)

    def decode_request(self, wire: Wire, at: Endpoint) -> TranscribeRequest:
        """See `BothSides`."""
        form = Form(wire)
        file = form.file("file")
        return TranscribeRequest(
            model=form.needed("model"),
            audio=Audio(file.data, name=file.filename or None, media_type=file.media_type),
            language=form.text("language") if self._fields["language"] else UNSET,
            prompt=form.text("prompt"),
            temperature=form.number("temperature"),
            format=form.text("response_format"),
            timestamps=form.texts("timestamp_granularities") if self._fields["timestamps"] else UNSET,
            extra=form.rest(self.name),
        )

    def encode_response(self, answer: Transcript, asked: TranscribeRequest) -> tuple[Reply, tuple[Loss, ...]]:
        """See `BothSides`. The form is the one that was asked for; a plain one tells the words alone."""
        losses: Losses = []
        own = own_keys(answer.extra, self.name, losses)
        untold(answer, losses, "id")
        if asked.format in ("text", "srt", "vtt"):
            untold(answer, losses, "model")
            said = answer.text if asked.format == "text" else answer.subtitles or _subtitles(answer, asked.format)
            return Reply(200, {"content-type": "text/plain; charset=utf-8"}, f"{said.rstrip()}\n".encode()), tuple(
                losses
            )
        body: dict[str, Any] = {"text": answer.text}
        if answer.model is not None:
            body["model"] = answer.model
        if asked.format in (UNSET, "json"):
            lost = [name for name in ("language", "duration", "segments", "words") if getattr(answer, name)]
            losses += [Loss(name, "answers of this form tell the words alone", "note") for name in lost]
        else:
            told = {"language": answer.language, "duration": answer.duration}
            body.update({name: value for name, value in told.items() if value is not None})
            if answer.segments:
                body["segments"] = [_segment_said(segment, self.name) for segment in answer.segments]
            if answer.words:
                body["words"] = [
                    {"word": word.text, **_times(word), **word.extra.get(self.name, {})} for word in answer.words
                ]
        if (usage := usage_said(answer.usage, "input_tokens", "output_tokens")) is not None:
            body["usage"] = usage if "type" in usage else {"type": "tokens", **usage}
        put_keys(own, body, self.name, losses)
        return reply_of(body), tuple(losses)


_ENDINGS = {"audio/mpeg": "mp3", "audio/mp4": "m4a", "video/mp4": "mp4", "audio/x-wav": "wav"}


def _named(audio: Audio) -> str:
    """The name of sound that has none: servers take the kind of a file from its name."""
    kind = (audio.media_type or "audio/wav").partition(";")[0]
    return f"audio.{_ENDINGS.get(kind, kind.partition('/')[2])}"


# ---- transcripts ------------------------------------------------------------------------------


def _transcript(body: dict[str, Any], data: bytes, name: str) -> Transcript:
    if not isinstance(body["text"], str):
        raise TypeError("the transcript is no text")
    return Transcript(
        text=body["text"],
        language=string(body.get("language")) or None,
        duration=number(body.get("duration")),
        segments=tuple([_segment(row, name) for row in body.get("segments") or ()]),
        words=tuple([_word(row, name) for row in body.get("words") or ()]),
        model=string(body.get("model")) or None,
        usage=usage_of(body.get("usage")),
        raw=data,
        extra=extra_of(name, body, _TRANSCRIPT),
    )


def _word(row: dict[str, Any], name: str) -> Word:
    said = string(row.get("word", row.get("text")))
    if said is None:
        raise TypeError("a word of the transcript is no text")
    return Word(said, **_seconds(row), extra=extra_of(name, row, _WORD))


def _segment(row: dict[str, Any], name: str) -> Segment:
    speaker = string(row.get("speaker")) or string(row.get("speaker_id"))
    said = string(row.get("text")) or ""
    return Segment(said, **_seconds(row), speaker=speaker or None, extra=extra_of(name, row, _SEGMENT))


def _seconds(row: dict[str, Any]) -> dict[str, float | None]:
    return {"start": number(row.get("start")), "end": number(row.get("end"))}


def _times(said: Word | Segment) -> dict[str, float]:
    told = {"start": said.start, "end": said.end}
    return {name: value for name, value in told.items() if value is not None}


def _segment_said(segment: Segment, name: str) -> dict[str, Any]:
    said = {**_times(segment), "text": segment.text, **segment.extra.get(name, {})}
    return said if segment.speaker is None else {**said, "speaker": segment.speaker}


# ---- plain text and subtitles -----------------------------------------------------------------

_CLOCK = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMING = re.compile(rf"[ \t]*{_CLOCK}[ \t]+-->[ \t]+{_CLOCK}(?:[ \t].*)?")
_BLOCKS = re.compile(r"\n[ \t]*\n+")


def _plain(data: bytes) -> Transcript:
    """Text is what was said, unless it has the form of subtitles: then its cues are."""
    said = data.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    cues = _cues(said.strip("\n"))
    if cues is None:
        return Transcript(said.removesuffix("\n"), raw=data)
    return Transcript(" ".join([cue.text for cue in cues]), segments=cues, subtitles=said, raw=data)


def _cues(said: str) -> tuple[Segment, ...] | None:
    """The cues of a file of subtitles; None where it is none."""
    vtt = re.match(r"WEBVTT(?:[ \t\n]|$)", said) is not None
    blocks = _BLOCKS.split(said)[1 if vtt else 0 :]
    cues = []
    for block in blocks:
        lines = block.split("\n")
        places = [place for place, line in enumerate(lines[:2]) if _TIMING.fullmatch(line)]
        if places:
            found = _TIMING.fullmatch(lines[places[0]])
            assert found is not None
            words = " ".join([line.strip() for line in lines[places[0] + 1 :] if line.strip()])
            cues.append(Segment(words, _clock(found.groups()[:4]), _clock(found.groups()[4:])))
        elif not vtt:
            return None
    return tuple(cues)


def _clock(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, thousandths = parts
    whole = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return (whole * 1000 + int((thousandths or "").ljust(3, "0"))) / 1000


def _subtitles(answer: Transcript, form: str) -> str:
    """A file of subtitles in one of the two forms; all words are one cue where nothing tells their times."""
    mark = "." if form == "vtt" else ","
    segments = answer.segments or (Segment(answer.text, 0.0, answer.duration or 0.0),)
    cues = [
        f"{_clock_said(cue.start or 0.0, mark)} --> {_clock_said(cue.end or 0.0, mark)}\n{cue.text.strip()}"
        for cue in segments
    ]
    if form == "vtt":
        return "\n\n".join(["WEBVTT", *cues])
    return "\n\n".join([f"{place}\n{cue}" for place, cue in enumerate(cues, 1)])


def _clock_said(seconds: float, mark: str) -> str:
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{mark}{rest % 1000:03}"


# ---- speech -----------------------------------------------------------------------------------

_SPEAK = {"format": "response_format", "speed": "speed", "instructions": "instructions"}
_ASKED = frozenset({"model", "input", "voice", *_SPEAK.values()})
_USUAL_VOICE = "alloy"
_TYPES = {"mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav",
          "pcm": "audio/pcm"}  # fmt: skip


class OpenAISpeech:
    """See `BothSides`; it has no state, one object serves every call."""

    name = "openai.speech"

    def encode(self, request: SpeakRequest, at: Endpoint) -> Encoded:
        """See `Operation`. A voice must be told here."""
        losses: Losses = []
        own = own_keys(request.extra, self.name, losses)
        refuse_stream(own)
        if not request.text.strip():
            raise InputError("there is nothing to speak", param="text", hint="give some text")
        if not request.model:
            raise InputError("no model is named to speak", param="model", hint='say model="PROVIDER/MODEL"')
        voice = request.voice
        if voice is UNSET and "voice" not in own:
            voice = str(at.options.get("speech_voice", _USUAL_VOICE))
            losses.append(Loss("voice", f"a voice must be told here; {voice} is", "note"))
        body = {"model": request.model, "input": request.text, **fields_of(request, _SPEAK, losses)}
        if voice is not UNSET:
            body["voice"] = voice
        wire = Wire(
            path_of(at, "speech_path", "/audio/speech"), request_body({**body, **own}), {**JSON, "accept": "*/*"}
        )
        return Encoded(wire, tuple(losses))

    def decode(self, reply: Reply, at: Endpoint) -> Speech:
        """See `Operation`. JSON and text are no sound."""
        kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind.endswith("json"):
            answer_in(reply)
        if kind.startswith("text/") or kind.endswith("json") or not reply.body:
            raise BadResponseError(f"the answer is no sound but {kind or 'nothing'}: {snippet(reply.body)}")
        return Speech(reply.body, kind or None, raw=reply.body)

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """See `Operation`."""
        return decode_error(reply)

    def decode_request(self, wire: Wire, at: Endpoint) -> SpeakRequest:
        """See `BothSides`. A voice that is an object is known by its id."""
        body = client_object(wire)
        voice = body.get("voice")
        if isinstance(voice, dict):
            body = {**body, "voice": needed(voice, "id", text, "voice")}
        return SpeakRequest(
            model=needed(body, "model", text),
            text=needed(body, "input", text),
            voice=field(body, "voice", text),
            format=field(body, "response_format", text),
            speed=field(body, "speed", a_number),
            instructions=field(body, "instructions", text),
            extra=extra_of(self.name, body, _ASKED),
        )

    def encode_response(self, answer: Speech, asked: SpeakRequest) -> tuple[Reply, tuple[Loss, ...]]:
        """See `BothSides`."""
        losses: Losses = []
        own = own_keys(answer.extra, self.name, losses)
        losses += [Loss(f"extra.{self.name}.{key}", "an answer is sound alone", "note") for key in own]
        untold(answer, losses, "model", "id")
        usual = _TYPES.get(asked.format if asked.format is not UNSET else "mp3", "application/octet-stream")
        return Reply(200, {"content-type": answer.media_type or usual}, answer.data), tuple(losses)


TRANSCRIBE: BothSides[TranscribeRequest, Transcript] = OpenAITranscripts(english=False)
TRANSLATE: BothSides[TranscribeRequest, Transcript] = OpenAITranscripts(english=True)
SPEAK: BothSides[SpeakRequest, Speech] = OpenAISpeech()
