"""The cascade's ears: what is said in one turn, recognised utterance by utterance while it is said, as one text."""

from collections.abc import Callable

from gateway.errors import GatewayError
from gateway.recogniser import joined
from gateway.recognition import LEFT_OUT
from gateway.utterances import Began, Failed, Final, Partial, Utterances

LONGEST = 28.0
"""Seconds of what the recogniser hears at once."""
MOST_UNHEARD = 120.0
"""Seconds kept where it is slower than speech: the latest; "…" stands for what is missing."""
_MISSING = "…"


class Listening:
    """One turn's audio on its way to text: `feed` as it is said, `end` once, then `text`. `run` is to run meanwhile."""

    def __init__(self, utterances: Utterances, *, most_characters: int, heard: Callable[[str], None]) -> None:
        """most_characters: of the text, the latest of which are kept; heard: told all of the turn's words so far, each
        time that they change."""
        self._utterances, self._most, self._heard = utterances, most_characters, heard
        self._left_out = False
        self._texts: list[str] = []
        self._error: GatewayError | None = None

    @property
    def begun(self) -> bool:
        """Whether there is anything to recognise yet."""
        return self._utterances.begun > 0

    async def feed(self, pcm: bytes) -> None:
        """Mono s16le at the rate of the utterances. Never waits for the recogniser."""
        await self._utterances.feed(pcm)

    async def end(self) -> None:
        """Nothing more is said in this turn. What was too faint to be noticed is for the recogniser to judge."""
        await self._utterances.commit()
        await self._utterances.end()

    async def run(self) -> None:
        """Recognises all of it. Failures are for `text` to raise."""
        async with self._utterances.at_work():
            async for event in self._utterances.events_in_turn():
                match event:
                    case Began():
                        if self._texts:  # a sign of life: there may be minutes of it to recognise yet
                            self._partial("")
                    case Partial():
                        self._partial(event.text)
                    case Final():
                        self._keep(event.transcript.text)
                    case Failed() if event.error.code == LEFT_OUT:
                        self._left_out = True
                    case Failed():
                        self._error = event.error
                        return

    def text(self) -> str:
        """All that was said, after `run`. Empty where there were no words. Raises what recognition raised."""
        if self._error is not None:
            raise self._error
        return self._joined("")

    # Private

    def _keep(self, text: str) -> None:
        if text:
            self._texts.append(text)
        while len(self._texts) > 1 and sum(map(len, self._texts)) > self._most:
            del self._texts[0]
            self._left_out = True

    def _partial(self, text: str) -> None:
        self._heard(self._joined(text))

    def _joined(self, last: str) -> str:
        text = joined([*self._texts, last])[-self._most :]
        return f"{_MISSING} {text}" if text and self._left_out else text
