"""The values of sound and pictures: what is to be written down, spoken or drawn, and what came of it.
Frozen; they know no protocol and no provider, and open no file."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType, field

from polyvox.types import Answered, Asked, Audio, Extra, Image, Value

# ---- sound that becomes words -----------------------------------------------------------------


class TranscribeRequest(Asked, frozen=True):
    """Sound to write down, in its own language or, by another operation, in English.

    audio holds the bytes; its name tells the kind of file where its media_type does not. language is that of the
    sound, as ISO 639-1 ("en"). prompt is text that may come before, or words to expect. format is "json",
    "verbose_json", "text", "srt", "vtt" or the provider's own word. timestamps are any of "word" and "segment".
    """

    audio: Audio
    language: str | UnsetType = UNSET
    prompt: str | UnsetType = UNSET
    temperature: float | UnsetType = UNSET
    format: str | UnsetType = UNSET
    timestamps: tuple[str, ...] | UnsetType = UNSET


class Word(Value, frozen=True):
    """A word, with the seconds at which it begins and ends; None where nobody says."""

    text: str
    start: float | None = None
    end: float | None = None
    extra: Extra = field(default_factory=dict)


class Segment(Value, frozen=True):
    """A stretch of what is said, in seconds from the beginning; None where nobody says. speaker is who says it, as
    the provider names them."""

    text: str
    start: float | None = None
    end: float | None = None
    speaker: str | None = None
    extra: Extra = field(default_factory=dict)


class Transcript(Answered, frozen=True):
    """What is said in a piece of sound.

    language is as the provider writes it ("en", "english"), duration in seconds. subtitles is the file as it came,
    where one in the form of SRT or WebVTT was asked for; its cues are the segments, and text is their words.
    """

    text: str = ""
    language: str | None = None
    duration: float | None = None
    segments: tuple[Segment, ...] = ()
    words: tuple[Word, ...] = ()
    subtitles: str | None = None

    def __str__(self) -> str:
        """The words, so that a transcript prints as what was said."""
        return self.text


# ---- words that become sound ------------------------------------------------------------------


class SpeakRequest(Asked, frozen=True):
    """Text to speak. voice is a name or id of the provider's; format is "mp3", "opus", "aac", "flac", "wav", "pcm" or
    the provider's own word; speed is a factor, 1 being as usual; instructions say how to speak."""

    text: str
    voice: str | UnsetType = UNSET
    format: str | UnsetType = UNSET
    speed: float | UnsetType = UNSET
    instructions: str | UnsetType = UNSET


class Speech(Answered, frozen=True):
    """Sound as bytes, and what kind of file they are, as an IANA type; None where nobody says."""

    data: bytes = b""
    media_type: str | None = None


# ---- pictures ---------------------------------------------------------------------------------


class ImageRequest(Asked, frozen=True):
    """A picture to make from words, or from words and pictures, whose bytes it holds; mask is a picture that is
    transparent where something may change.

    size is such as "1024x1024", quality such as "high", format such as "png", background such as "transparent", all
    as the provider writes them. delivery says whether the picture's bytes or a URL of it come back.
    """

    prompt: str
    images: tuple[Image, ...] = ()
    mask: Image | None = None
    n: int | UnsetType = UNSET
    size: str | UnsetType = UNSET
    quality: str | UnsetType = UNSET
    format: str | UnsetType = UNSET
    background: str | UnsetType = UNSET
    delivery: Literal["data", "url"] | UnsetType = UNSET
    user: str | UnsetType = UNSET


class Pictures(Answered, frozen=True):
    """The pictures that were made, each with its bytes or its URL, fit to be attached to a question. created is in
    epoch seconds."""

    images: tuple[Image, ...] = ()
    created: float | None = None
