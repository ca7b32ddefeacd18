"""Sound into words and words into sound, for a client: `client.audio`. Each is one call; nothing is cut to
size here."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from msgspec import UNSET

from polyvox import portal
from polyvox.client.check import shown
from polyvox.client.given import number_or_unset, text_needed, text_or_unset
from polyvox.client.held import Handed, held
from polyvox.client.operations import Kind, SaidOfCall, operate
from polyvox.dialects.openai_more import operation
from polyvox.errors import InputError
from polyvox.media import SpeakRequest, Speech, TranscribeRequest, Transcript
from polyvox.types import Audio

if TYPE_CHECKING:
    from polyvox.client import AsyncClient

TRANSCRIPTION: Kind[TranscribeRequest, Transcript] = Kind(
    "transcription", partial(operation, "transcribe"), "transcription_model"
)
TRANSLATION: Kind[TranscribeRequest, Transcript] = Kind(
    "translation of sound", partial(operation, "translate"), "transcription_model"
)
SPEECH: Kind[SpeakRequest, Speech] = Kind("speech", partial(operation, "speak"), "speech_model")


class AsyncAudio:
    """`AsyncClient.audio`: sound written down, translated and spoken."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def transcribe(
        self,
        audio: Handed,
        *,
        language: str | None = None,
        prompt: str | None = None,
        temperature: float | None = None,
        format: str | None = None,
        timestamps: str | Iterable[str] | None = None,
        **said: Unpack[SaidOfCall],
    ) -> Transcript:
        """What is said in a piece of sound: a path, bytes, an open file, or an `Audio` with its bytes.

        Args:
            audio: the sound; most providers take 25 MB.
            language: that of the sound, as ISO 639-1 ("en"); without it the provider finds out.
            prompt: text that may come before, or words to expect.
            temperature: as the provider defines it.
            format: "json", "verbose_json" (with times), "text", "srt", "vtt" or the provider's own word.
            timestamps: "segment", "word" or both; without a format it is "verbose_json" then.
            said: model, timeout (seconds in all), headers and extra_body (verbatim), strict.
        """
        return await self._written(
            TRANSCRIPTION, audio, said, prompt=prompt, temperature=temperature, format=format, language=language,
            timestamps=timestamps,
        )  # fmt: skip

    async def translate(
        self,
        audio: Handed,
        *,
        prompt: str | None = None,
        temperature: float | None = None,
        format: str | None = None,
        **said: Unpack[SaidOfCall],
    ) -> Transcript:
        """What is said in a piece of sound, in English; see `transcribe`."""
        return await self._written(TRANSLATION, audio, said, prompt=prompt, temperature=temperature, format=format)

    async def _written(
        self,
        kind: Kind[TranscribeRequest, Transcript],
        audio: Handed,
        said: SaidOfCall,
        *,
        prompt: str | None,
        temperature: float | None,
        format: str | None,
        language: str | None = None,
        timestamps: Any = None,
    ) -> Transcript:
        marks = (timestamps,) if isinstance(timestamps, str) else tuple(timestamps or ())
        if not all(isinstance(mark, str) for mark in marks):
            raise InputError(f'timestamps must be "segment", "word" or both, not {shown(timestamps)}')
        fields: dict[str, Any] = {
            "language": text_or_unset("language", language),
            "prompt": text_or_unset("prompt", prompt),
            "temperature": number_or_unset("temperature", temperature),
            "format": text_or_unset("format", format or ("verbose_json" if marks else None)),
            "timestamps": marks or UNSET,
        }
        sound = await held(audio, Audio, "audio")
        return await operate(
            self._client,
            kind,
            said,
            lambda model, extra: TranscribeRequest(model=model, audio=sound, extra=extra, **fields),
        )

    async def speak(
        self,
        text: str,
        *,
        voice: str | None = None,
        format: str | None = None,
        speed: float | None = None,
        instructions: str | None = None,
        **said: Unpack[SaidOfCall],
    ) -> Speech:
        """A text as sound, whole; `Path("hello.mp3").write_bytes(speech.data)` keeps it.

        Args:
            text: what to speak.
            voice: a name or id of the provider's.
            format: "mp3", "opus", "aac", "flac", "wav", "pcm" or the provider's own word.
            speed: a factor, 1 being as usual.
            instructions: how to speak, where the model takes such words.
            said: model, timeout (seconds in all), headers and extra_body (verbatim), strict.
        """
        fields: dict[str, Any] = {
            "text": text_needed("text", text),
            "voice": text_or_unset("voice", voice),
            "format": text_or_unset("format", format),
            "speed": number_or_unset("speed", speed),
            "instructions": text_or_unset("instructions", instructions),
        }
        return await operate(
            self._client, SPEECH, said, lambda model, extra: SpeakRequest(model=model, extra=extra, **fields)
        )


class AudioCalls:
    """`Client.audio`: the same from ordinary code; see `AsyncAudio`."""

    def __init__(self, rooms: AsyncAudio) -> None:
        self._async = rooms

    def transcribe(
        self,
        audio: Handed,
        *,
        language: str | None = None,
        prompt: str | None = None,
        temperature: float | None = None,
        format: str | None = None,
        timestamps: str | Iterable[str] | None = None,
        **said: Unpack[SaidOfCall],
    ) -> Transcript:
        """What is said in a piece of sound; see `AsyncAudio.transcribe`."""
        return portal.run(
            self._async.transcribe(
                audio,
                language=language,
                prompt=prompt,
                temperature=temperature,
                format=format,
                timestamps=timestamps,
                **said,
            )
        )

    def translate(
        self,
        audio: Handed,
        *,
        prompt: str | None = None,
        temperature: float | None = None,
        format: str | None = None,
        **said: Unpack[SaidOfCall],
    ) -> Transcript:
        """What is said in a piece of sound, in English; see `AsyncAudio.translate`."""
        return portal.run(self._async.translate(audio, prompt=prompt, temperature=temperature, format=format, **said))

    def speak(
        self,
        text: str,
        *,
        voice: str | None = None,
        format: str | None = None,
        speed: float | None = None,
        instructions: str | None = None,
        **said: Unpack[SaidOfCall],
    ) -> Speech:
        """A text as sound; see `AsyncAudio.speak`."""
        return portal.run(
            self._async.speak(text, voice=voice, format=format, speed=speed, instructions=instructions, **said)
        )
