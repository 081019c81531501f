"""What a Realtime client says: the input audio buffer, where its turns begin and end, and their words."""

from dataclasses import dataclass, field

from gateway.deltas import Appended
from gateway.dialogue import Dialogue, Speech
from gateway.errors import BadRequest, EngineError, GatewayError, TooLarge
from gateway.events import Audio, Transcript
from gateway.surfaces.openai_realtime_engines import Engine
from gateway.surfaces.openai_realtime_items import Items
from gateway.surfaces.openai_realtime_line import Line, new_id
from gateway.surfaces.openai_realtime_words import commit_item, tell_delta, tell_failure, tell_words
from gateway.wire import g711
from gateway.wire.openai_realtime_beta import PCM, PCMU
from gateway.wire.openai_realtime_fields import Wrong
from gateway.wire.openai_realtime_items import Item
from gateway.wire.openai_realtime_session import Format

_HELD_SECONDS = 5.0
"""How long in a turn a client that sends faster than the engine takes is held back; then it is told."""
_PIECE = 1.0
"""Seconds that are heard at a time."""


@dataclass(slots=True)
class _Saying:
    """What is being said, before it is an item."""

    id: str = field(default_factory=lambda: new_id("item"))
    began: float = 0.0
    """Seconds of the connection's audio."""
    words: Appended = field(default_factory=Appended)


class Input:
    def __init__(self, line: Line, items: Items, dialogue: Dialogue, engine: Engine) -> None:
        self._line, self._items, self._dialogue, self._engine = line, items, dialogue, engine
        self.transcribes = False
        """Whether the client wants to read what it says."""
        self._saying = _Saying()
        self._turns: dict[int, tuple[Item, Appended]] = {}
        """Committed items whose words are not known yet, by the dialogue's number."""
        self._half = b""
        self._patience, self._told = _HELD_SECONDS, False

    async def append(self, data: bytes, form: Format) -> None:
        """Raises TooLarge, once for each turn."""
        pcm = self._half + unpacked(data, form)
        whole = len(pcm) & ~1
        self._half = pcm[whole:]
        step = 2 * int(_PIECE * form.rate)
        for at in range(0, whole, step):
            if self._patience > 0:
                self._patience -= await self._dialogue.room(self._patience)
            try:
                await self._dialogue.hear(Audio(pcm[at : min(at + step, whole)], form.rate))
            except TooLarge:
                if not self._told:
                    self._told = True
                    raise
                return

    async def commit(self) -> None:
        """Raises Wrong, TooLarge."""
        seconds = self._dialogue.recorded
        try:
            turn = await self._engine.commit()
        except BadRequest:
            message = "Error committing input audio buffer: the buffer is empty."
            raise Wrong(message, "input_audio_buffer_commit_empty") from None
        self._commit(turn, seconds)

    async def clear(self) -> None:
        """Raises BadRequest."""
        await self._engine.clear()
        self._half = b""
        self._begin_anew()
        self._line.emit("input_audio_buffer.cleared")

    def speech(self, event: Speech) -> bool:
        """Hands-free: somebody begins to speak, or has ended. Gives whether that was a turn."""
        milliseconds = round(event.at * 1000)
        if event.started:
            self._saying.began = event.at
            started = {"audio_start_ms": milliseconds, "item_id": self._saying.id}
            self._line.emit("input_audio_buffer.speech_started", **started)
            return False
        stopped = {"audio_end_ms": milliseconds, "item_id": self._saying.id}
        self._line.emit("input_audio_buffer.speech_stopped", **stopped)
        self._commit(event.turn, event.at - self._saying.began)
        return True

    def commit_nothing(self, seconds: float) -> None:
        """Nobody has said anything for so long that it is an item of its own."""
        ended = self._dialogue.heard
        times = {"audio_start_ms": round(max(0.0, ended - seconds) * 1000), "audio_end_ms": round(ended * 1000)}
        self._line.emit("input_audio_buffer.timeout_triggered", **times, item_id=self._saying.id)
        item = self._commit(None, 0.0)
        item.content[0].text = ""

    def heard(self, said: Transcript) -> bool:
        """Gives whether an item's words are known now."""
        item, words = self._turns.get(said.utterance, (None, self._saying.words))
        if not said.final:
            self._delta(self._saying.id if item is None else item.id, words.partial(said.text))
            return False
        if item is None:
            return False
        del self._turns[said.utterance]
        item.content[0].text = said.text
        self._delta(item.id, words.final(said.text))
        self.tell(item, 0)
        return True

    def tell(self, item: Item, index: int) -> None:
        """The words of an item's content are known."""
        if self.transcribes:
            tell_words(self._line, item, index)

    def tell_failure(self, item: Item, index: int, error: GatewayError) -> None:
        """They will never be."""
        item.content[index].text = ""
        if self.transcribes:
            tell_failure(self._line, item, index, error)

    def failed(self, turn: int, error: GatewayError) -> None:
        """If it was one of these turns that did, its words are known to be none."""
        if turn not in self._turns:
            return
        if error.code == "nothing_understood":
            self.heard(Transcript("", "", utterance=turn))
            return
        item, _ = self._turns.pop(turn)
        self.tell_failure(item, 0, error)

    def asked(self, turn: int) -> None:
        """That turn answers all that was said; where its words are not known yet, they are those of the last item."""
        wordless = [item for item in self._items if not item.understood]
        if wordless and turn not in self._turns:
            self._turns[turn] = wordless.pop(), Appended()
            for item in wordless:
                item.content[0].text = ""

    def ended(self, turn: int) -> None:
        """Nothing more comes of it; words that have not come never will."""
        self.failed(turn, EngineError("the engine does not tell what it has heard", code="transcription_unavailable"))

    def lost(self) -> None:
        """A turn could not begin."""
        for turn in [turn for turn in self._turns if not self._dialogue.runs(turn)]:
            self.ended(turn)

    # Private

    def _commit(self, turn: int | None, seconds: float) -> Item:
        saying = self._saying
        item = commit_item(self._line, self._items, saying.id, seconds)
        if turn is not None:
            self._turns[turn] = (item, saying.words)
        self._begin_anew()
        return item

    def _begin_anew(self) -> None:
        self._saying = _Saying()
        self._patience, self._told = _HELD_SECONDS, False

    def _delta(self, item: str, text: str) -> None:
        if self.transcribes:
            tell_delta(self._line, item, text)


def unpacked(data: bytes, form: Format) -> bytes:
    """Mono s16le at the format's rate."""
    if form.type == PCM:
        return data
    return g711.from_mu_law(data) if form.type == PCMU else g711.from_a_law(data)
