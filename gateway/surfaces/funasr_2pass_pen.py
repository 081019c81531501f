"""What FunASR's clients are written, in which order (gateway/surfaces/funasr_2pass.py has the rules)."""

from dataclasses import replace

from gateway.deltas import Appended
from gateway.errors import GatewayError
from gateway.events import Transcript
from gateway.wire import funasr_2pass as wire
from gateway.wire.funasr_2pass import Config, Kind, Mode, Result


class Pen:
    """What is written of one stream. While its client may still speak every answer goes out at once; then each waits
    for the next, so that the last one can say that it is."""

    def __init__(self, asked: Config) -> None:
        self._asked = asked
        self._page = Appended()
        self._shown = ""
        """Deltas of the utterance that runs."""
        self._held: Result | None = None
        self._final = False
        """Whether the last answer said to be final."""
        self.ended = False
        self.errors: list[GatewayError] = []
        """What went wrong in this stream."""

    def partial(self, text: str) -> list[str]:
        return [] if self._asked.mode is Mode.OFFLINE else self._delta(self._page.partial(text))

    def final(self, said: Transcript) -> list[str]:
        if self._asked.mode is Mode.ONLINE:
            return self._last_delta(said.text)
        shown = self._forget()
        if not said.text and not shown:
            return []
        kind = Kind.OFFLINE if self._asked.mode is Mode.OFFLINE else Kind.SECOND_PASS
        words = tuple((word.text, _ms(word.start), _ms(word.end)) for word in said.words)
        start, end = (None if at is None else _ms(at) for at in (said.start, said.end))
        return self._say(Result(kind, said.text, self._asked.name, start=start, end=end, words=words))

    def failed(self, error: GatewayError) -> list[str]:
        self.errors.append(error)
        return [*self.final(Transcript(self._shown, "")), *self._release(), wire.fault(wire.Fault(str(error)))]

    def last_words(self, ack: bool) -> list[str]:
        if self._held is not None:
            self._held, self._final = replace(self._held, final=True), True
        error = "; ".join(dict.fromkeys(map(str, self.errors)))
        return [*self._release(), wire.last_words(self._asked, ack=ack, final=self._final, error=error)]

    # Private

    def _delta(self, text: str, *, final: bool = False) -> list[str]:
        if not text and not final:
            return []
        self._shown += text
        kind = Kind.ONLINE if self._asked.mode is Mode.ONLINE else Kind.FIRST_PASS
        return self._say(Result(kind, text, self._asked.name, final))

    def _last_delta(self, text: str) -> list[str]:
        """It is said to be the utterance's last, also where there is no more text."""
        rest = self._page.final(text)
        found = self._delta(rest, final=True) if rest or self._shown else []
        self._shown = ""
        return found

    def _forget(self) -> str:
        """The utterance's deltas, which count no more."""
        shown, self._shown, self._page = self._shown, "", Appended()
        return shown

    def _say(self, result: Result) -> list[str]:
        frames = self._release()
        self._final = result.final
        if result.whole and (self.ended or self._asked.mode is Mode.OFFLINE):
            self._held = result
            return frames
        return [*frames, wire.result(result)]

    def _release(self) -> list[str]:
        held, self._held = self._held, None
        return [] if held is None else [wire.result(held)]


# Private


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
