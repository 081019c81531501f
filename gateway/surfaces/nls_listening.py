"""Recognition on NLS sockets: SpeechTranscriber, sentence after sentence until its Stop, and SpeechRecognizer, a text.

Rule 1: audio is taken as it comes, decoded, resampled and cut in a task of its own; a client that sends faster than
all that, or than the engine, is held back.
Rule 2: a Stop recognises everything that was sent before it, to the last sample, and only then is the task complete.
Rule 3: a sentence exists once it has words: noise that the engine hears nothing in is none, and takes no index.
"""

from dataclasses import replace

from gateway.endpointing import Endpointer
from gateway.events import Transcript, Word
from gateway.inbound import FORMATS, inbound
from gateway.mailbox import Mailbox
from gateway.nearfield import NearField
from gateway.recogniser import joined
from gateway.resample import Resampler
from gateway.segments import RATE
from gateway.settings import Settings
from gateway.surfaces.nls_asr import named
from gateway.surfaces.nls_socket import Begin, Line
from gateway.tasks import task_group
from gateway.utterances import Began, Failed, Final, Heard, Partial, Utterances
from gateway.vocabularies import hotwords
from gateway.wire import nls
from gateway.wire import nls_recognition as wire
from gateway.written import Style, prepare

_BLOCK = 0.2
"""Seconds that are resampled at once."""
_NOISIEST, _QUIETEST = 0.05, 0.95
"""Probabilities of speech that speech_noise_threshold −1 and 1 stand for; 0 is endpoint_threshold."""


def transcriber(line: Line, message: nls.Message) -> "_Transcriber":
    """Raises nls.Unusable, BadRequest."""
    return _Transcriber(line, wire.read_start(message.payload, wire.Wishes(), FORMATS))


def recognizer(line: Line, message: nls.Message) -> "_Recognizer":
    """Without FunSpeech's example, Alibaba's defaults. Raises nls.Unusable, BadRequest."""
    quiet = wire.Wishes(intermediate=False, punctuation=False, figures=False)
    return _Recognizer(line, wire.read_start(message.payload, quiet, FORMATS))


class _Listener:
    """What both have in common. Subclasses say what was heard."""

    started = completed = ""
    """Names of the first and the last event."""

    def __init__(self, line: Line, start: wire.Start) -> None:
        named(line.state, start.model)
        self._line, self._start, self._wishes = line, start, start.wishes
        self._mailbox = Mailbox()
        settings = line.state["settings"]
        self._ears = Endpointer(
            settings, RATE, silence=start.wishes.silence, threshold=_threshold(settings, start.wishes.noise)
        )
        self._field = NearField(settings, RATE) if settings.nearfield_filter else None

    async def run(self) -> None:
        try:
            async with self._line.state["nls_streams"].enter():
                await self._work()
        finally:
            self._mailbox.end(drop=True)

    async def command(self, message: nls.Message) -> None:
        if message.name == "ControlTranscriber":
            self._wishes = wire.changed(self._wishes, message.payload)
            settings = self._line.state["settings"]
            self._ears.change(silence=self._wishes.silence, threshold=_threshold(settings, self._wishes.noise))
        else:
            self._mailbox.end()

    async def audio(self, data: bytes) -> None:
        await self._mailbox.put(data)

    # For subclasses

    @property
    def _style(self) -> Style:
        return Style(self._wishes.figures, self._wishes.punctuation, self._wishes.fluent)

    def _times(self, words: tuple[Word, ...]) -> wire.Times | None:
        found = [(word.text, word.start, word.end) for word in words]
        return found if found and self._wishes.words else None

    async def _hear(self, event: Heard) -> None:
        raise NotImplementedError

    async def _complete(self, utterances: Utterances) -> None:
        await self._line.complete(self.completed)

    def _enough(self, utterances: Utterances) -> bool:
        """Whether it ends without a Stop."""
        return False

    # Private

    async def _work(self) -> None:
        bag, start = self._line.state, self._start
        bag["transcribe"].ready()
        if self._wishes.figures:
            prepare()
        utterances = Utterances(
            bag["transcribe"],
            bag["settings"],
            bag["scratch"],
            sample_rate=RATE,
            hotwords=await hotwords(bag["settings"].vocabulary_dir, start.vocabulary) if start.vocabulary else (),
            itn=self._wishes.figures,
            words=self._wishes.words,
            ears=self._ears,
        )
        async with utterances.at_work(), task_group() as tasks:
            await self._line.say(self.started, {"session_id": self._line.session_id})
            tasks.create_task(self._listen(utterances))
            async for event in utterances.events_in_turn():
                if isinstance(event, Failed):
                    raise event.error
                await self._hear(event)
        await self._complete(utterances)

    async def _listen(self, utterances: Utterances) -> None:
        """Raises BadRequest where the audio cannot be decoded."""
        ear, resampler = inbound(self._start.form, self._start.sample_rate), Resampler(RATE, RATE)
        async for data in self._mailbox.messages():
            piece = await ear.feed(data)
            if piece is None:
                continue
            if piece.sample_rate != resampler.source:
                resampler = Resampler(piece.sample_rate, RATE)
            size = 2 * round(_BLOCK * piece.sample_rate)
            for at in range(0, len(piece.pcm), size):
                await self._feed(utterances, resampler.feed(piece.pcm[at : at + size]))
            if self._enough(utterances):
                self._mailbox.end(drop=True)
        await self._feed(utterances, resampler.feed(b"", last=True))
        if self._field is not None:
            await utterances.feed(self._field.end())
        await utterances.end()

    async def _feed(self, utterances: Utterances, pcm: bytes) -> None:
        await utterances.feed(pcm if self._field is None else self._field.feed(pcm, self._ears.speaking))


class _Transcriber(_Listener):
    started, completed = "TranscriptionStarted", "TranscriptionCompleted"

    def __init__(self, line: Line, start: wire.Start) -> None:
        super().__init__(line, start)
        self._index = 0
        self._begin = 0.0
        self._open = False
        """Whether SentenceBegin was said of the sentence that runs."""
        self._said = ""

    async def _hear(self, event: Heard) -> None:
        if isinstance(event, Began):
            self._begin, self._open, self._said = event.at, False, ""
        elif isinstance(event, Partial):
            await self._change(self._style.partial(event.text), event.at)
        elif isinstance(event, Final):
            await self._end(event.transcript)

    # Private

    async def _change(self, text: str, at: float) -> None:
        if not text or text == self._said:
            return
        await self._begun()
        self._said = text
        if self._wishes.intermediate:
            await self._line.say("TranscriptionResultChanged", wire.partial(self._index, at, text))

    async def _end(self, found: Transcript) -> None:
        text = await self._style.final(found.text)
        if text:
            await self._begun()
        if self._open:
            end = self._begin if found.end is None else max(self._begin, found.end)
            payload = wire.ended(self._index, self._begin, end, text, self._times(found.words))
            self._open = False
            await self._line.say("SentenceEnd", payload)

    async def _begun(self) -> None:
        if not self._open:
            self._open = True
            self._index += 1
            await self._line.say("SentenceBegin", wire.begun(self._index, self._begin))


class _Recognizer(_Listener):
    started, completed = "RecognitionStarted", "RecognitionCompleted"

    def __init__(self, line: Line, start: wire.Start) -> None:
        super().__init__(line, start)
        self._finals: list[Transcript] = []
        self._said = ""
        self._begun = False

    async def _hear(self, event: Heard) -> None:
        if isinstance(event, Began):
            self._begun = True
        elif isinstance(event, Partial):
            await self._change(self._style.partial(joined([*(one.text for one in self._finals), event.text])))
        elif isinstance(event, Final) and event.transcript.text and not (self._start.ends_itself and self._finals):
            text = await self._style.final(event.transcript.text)
            self._finals.append(replace(event.transcript, text=text))
            await self._change(joined([one.text for one in self._finals]))
            if self._start.ends_itself:
                self._mailbox.end(drop=True)

    async def _complete(self, utterances: Utterances) -> None:
        text = joined([one.text for one in self._finals])
        words = tuple(word for one in self._finals for word in one.words)
        await self._line.complete(self.completed, wire.recognised(text, utterances.now, self._times(words)))

    def _enough(self, utterances: Utterances) -> bool:
        return self._start.ends_itself and not self._begun and utterances.now >= self._start.start_silence

    # Private

    async def _change(self, text: str) -> None:
        if self._wishes.intermediate and text and text != self._said:
            self._said = text
            await self._line.say("RecognitionResultChanged", {"result": text})


def _threshold(settings: Settings, noise: float) -> float:
    usual = settings.endpoint_threshold
    reach = max(0.0, _QUIETEST - usual) if noise > 0 else max(0.0, usual - _NOISIEST)
    return usual + noise * reach


TASKS: dict[str, Begin] = {nls.TRANSCRIBER: transcriber, nls.RECOGNIZER: recognizer}
"""By namespace."""
