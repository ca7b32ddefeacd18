"""Sound, pictures and judgements that a simulated provider makes: real files of their kinds, the same for the same
request, without any meaning. It knows no wire, no clock and no chance.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import struct
import wave
import zlib

from msgspec import UNSET

from polyvox.errors import InputError
from polyvox.media import ImageRequest, Pictures, Segment, SpeakRequest, Speech, TranscribeRequest, Transcript, Word
from polyvox.transports.demo.brain import MODEL, tokens
from polyvox.transports.demo.vectors import embed
from polyvox.types import EmbedRequest, Image, Usage
from polyvox.verdicts import ModerateRequest, Ranked, Ranking, RerankRequest, Verdict, Verdicts

# ---- sound ------------------------------------------------------------------------------------

_FORMS = ("json", "text", "srt", "verbose_json", "vtt")
_BYTES_A_SECOND = 16_000  # of sound whose kind does not tell its length: 128 kbit/s
_RATE = 24_000
_SECONDS_A_CHARACTER = 0.05
_LONGEST_TEXT = 4096


def transcript(request: TranscribeRequest) -> Transcript:
    """What a file is said to say: its name and its length, not what is in it."""
    form = "json" if request.format is UNSET else request.format
    if form not in _FORMS:
        raise _refused("response_format", f"must be one of {', '.join(_FORMS)}")
    marks = () if request.timestamps is UNSET else request.timestamps
    if marks and form != "verbose_json":
        raise _refused("timestamp_granularities", "goes with response_format verbose_json only")
    data = request.audio.data or b""
    if not data:
        raise _refused("file", "is empty")
    seconds = _seconds(data)
    said = f"This is a simulated transcript. The file {request.audio.name or 'audio'} has {len(data)} bytes."
    each = seconds / len(said.split())
    words = [Word(word, place * each, (place + 1) * each) for place, word in enumerate(said.split())]
    segments, at = [], 0
    for sentence in re.split(r"(?<=\.) (?=[A-Z])", said):
        behind = at + len(sentence.split())
        segments.append(Segment(sentence, at * each, behind * each))
        at = behind
    return Transcript(
        said,
        language="english" if request.language is UNSET else request.language,
        duration=seconds,
        segments=() if marks and "segment" not in marks else tuple(segments),
        words=tuple(words) if "word" in marks else (),
        usage=Usage(raw={"type": "duration", "seconds": math.ceil(seconds)}),
    )


def _seconds(data: bytes) -> float:
    try:
        with wave.open(io.BytesIO(data)) as sound:
            return float(sound.getnframes() / sound.getframerate())
    except (wave.Error, EOFError, ZeroDivisionError):
        return len(data) / _BYTES_A_SECOND


def speech(request: SpeakRequest) -> Speech:
    """A tone as long as the text, as high as the voice's name has it; in MP3 it is silence."""
    form = "mp3" if request.format is UNSET else request.format
    if form not in _SOUNDS:
        raise _refused("response_format", f"must be one of {', '.join(_SOUNDS)}: no others are simulated")
    if len(request.text) > _LONGEST_TEXT:
        raise _refused("input", f"must have at most {_LONGEST_TEXT} characters")
    if request.voice is UNSET:
        raise _refused("voice", "is missing")
    speed = 1.0 if request.speed is UNSET else request.speed
    if not 0.25 <= speed <= 4:
        raise _refused("speed", "must be from 0.25 to 4")
    kind, make = _SOUNDS[form]
    return Speech(make(len(request.text) * _SECONDS_A_CHARACTER / speed, request.voice), kind)


def _pcm(seconds: float, voice: str) -> bytes:
    """Samples of 16 bits, little endian, one channel."""
    period = 60 + hashlib.sha256(voice.encode("utf-8", "replace")).digest()[0]
    wave_once = [round(8000 * math.sin(2 * math.pi * place / period)) for place in range(period)]
    frames = max(1, round(seconds * _RATE))
    once = struct.pack(f"<{period}h", *wave_once)
    return (once * (frames // period + 1))[: frames * 2]


def _wav(seconds: float, voice: str) -> bytes:
    held = io.BytesIO()
    with wave.open(held, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(_RATE)
        sound.writeframes(_pcm(seconds, voice))
    return held.getvalue()


# A frame of MPEG-1 layer III at 128 kbit/s and 44.1 kHz, in which no sample is told: 26 ms of silence.
_MP3_FRAME = b"\xff\xfb\x90\xc4" + bytes(413)
_MP3_SECONDS = 1152 / 44_100


def _mp3(seconds: float, _: str) -> bytes:
    return _MP3_FRAME * max(1, math.ceil(seconds / _MP3_SECONDS))


_SOUNDS = {"mp3": ("audio/mpeg", _mp3), "wav": ("audio/wav", _wav), "pcm": ("audio/pcm", _pcm)}

# ---- pictures ---------------------------------------------------------------------------------

_SIZE = re.compile(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", re.ASCII)
_MOST_PICTURES = 10


def pictures(request: ImageRequest) -> Pictures:
    """Pictures of one colour each, by the words; delivered as a URL they are in it."""
    if request.format not in (UNSET, "png"):
        raise _refused("output_format", "must be png: nothing else is simulated")
    n = 1 if request.n is UNSET else request.n
    if not 1 <= n <= _MOST_PICTURES:
        raise _refused("n", f"must be from 1 to {_MOST_PICTURES}")
    size = _SIZE.fullmatch("1024x1024" if request.size in (UNSET, "auto") else request.size)
    if size is None:
        raise _refused("size", 'must be "auto" or such as "1024x1024"')
    seen = b"".join([image.data or b"" for image in request.images])
    made = [_png(int(size[1]), int(size[2]), f"{number}:{request.prompt}".encode() + seen) for number in range(n)]
    asked, drawn = tokens(request.prompt), n * 256
    told = {
        "input_tokens": asked,
        "input_tokens_details": {"text_tokens": asked, "image_tokens": 0},
        "output_tokens": drawn,
        "total_tokens": asked + drawn,
    }
    usage = Usage(asked, drawn, total=asked + drawn, source="provider", raw=told)
    if request.delivery != "url":
        return Pictures(tuple([Image(data, media_type="image/png") for data in made]), created=0.0, usage=usage)
    return Pictures(tuple([Image(url=_in_url(data)) for data in made]), created=0.0, usage=usage)


def _in_url(data: bytes) -> str:
    import base64

    return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"


def _png(width: int, height: int, seed: bytes) -> bytes:
    """A picture of one colour: one bit a point, all of them the first of a palette of one."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = bytes(1 + (width + 7) // 8) * height
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)),
        (b"PLTE", hashlib.sha256(seed).digest()[:3]),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(kind, data) for kind, data in parts])


# ---- judgements -------------------------------------------------------------------------------

_WORD = re.compile(r"\w+")
# Words by which a text is flagged. They judge nothing: they let a test choose what it is told.
_FLAGS = {
    "harassment": ("idiot", "stupid"),
    "harassment/threatening": (),
    "hate": ("hate",),
    "hate/threatening": (),
    "illicit": ("steal", "smuggle"),
    "illicit/violent": (),
    "self-harm": ("suicide",),
    "self-harm/instructions": (),
    "self-harm/intent": (),
    "sexual": ("porn",),
    "sexual/minors": (),
    "violence": ("kill", "murder"),
    "violence/graphic": (),
}


def verdicts(request: ModerateRequest) -> Verdicts:
    """A verdict by single words, for each text, or with pictures for all; a picture harms never."""
    texts = (" ".join(request.texts),) if request.images else request.texts
    return Verdicts(tuple([_verdict(text, ("text", "image") if request.images else ("text",)) for text in texts]))


def _verdict(text: str, kinds: tuple[str, ...]) -> Verdict:
    found = set(_WORD.findall(text.casefold()))
    categories = {name: not found.isdisjoint(words) for name, words in _FLAGS.items()}
    scores = {name: 0.9 if harms else 0.001 for name, harms in categories.items()}
    applied = {"category_applied_input_types": {name: list(kinds) for name in categories}}
    return Verdict(any(categories.values()), categories, scores, extra={"openai.moderations": applied})


def ranking(request: RerankRequest) -> Ranking:
    """The documents by the words that they share with the query, as the demo's vectors have it."""
    if request.top is not UNSET and request.top < 1:
        raise _refused("top_n", "must be at least 1")
    if "" in (request.query, *request.documents):
        raise _refused("documents", "must not be empty, and neither must the query")
    found = embed(EmbedRequest(model=MODEL, inputs=(request.query, *request.documents)))
    query, *others = found.vectors
    scores = [max(0.0, min(1.0, sum(a * b for a, b in zip(query, other, strict=True)))) for other in others]
    ranked = [
        Ranked(place, score, request.documents[place] if request.return_documents is True else None)
        for place, score in enumerate(scores)
    ]
    ranked.sort(key=lambda row: (-row.score, row.index))
    best = ranked if request.top is UNSET else ranked[: request.top]
    return Ranking(tuple(best), usage=Usage(found.usage.input, 0, total=found.usage.input, source="provider"))


def _refused(param: str, must: str) -> InputError:
    return InputError(f"{param} {must}", param=param, code="invalid_value")
