"""`python -m engines.s2s.worker`: one process that thinks, one turn at a time, for the server that it serves."""

import argparse
from collections.abc import Generator

from engines.s2s import parcel
from engines.s2s.backends import THINKERS, Call, Codes, Thinker, Thought, Words
from engines.workers import child
from engines.workers.messages import Fields, Hello, Work


class Thinking:
    """The task `reply` (see parcel.py), answered by a piece for each thought."""

    def __init__(self, thinker: Thinker) -> None:
        self._thinker = thinker

    def load(self) -> Hello:
        self._thinker.load()
        return Hello(self._thinker.model, self._thinker.device)

    def run(self, work: Work, stopped: child.Stopped) -> Generator[tuple[Fields, bytes], None, Fields]:
        thoughts = self._thinker.think(parcel.unpacked(work.fields, work.data), stopped)
        try:
            for thought in thoughts:
                yield _told(thought), b""
        finally:
            thoughts.close()
        return {}


def thought(fields: Fields) -> Thought:
    """What a piece says."""
    if "codes" in fields:
        return Codes(tuple(fields["codes"]))
    return Words(fields["text"]) if "text" in fields else Call(**fields)


def _told(thought: Thought) -> Fields:
    match thought:
        case Words(text):
            return {"text": text}
        case Codes(codes):
            return {"codes": [int(code) for code in codes]}  # a model has numbers of its own
        case Call(id, name, arguments):
            return {"id": id, "name": name, "arguments": arguments}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engines.s2s.worker", allow_abbrev=False)
    parser.add_argument("--backend", choices=sorted(THINKERS), required=True)
    parser.add_argument("--device", default="cpu")
    asked, options = parser.parse_known_args()
    child.main(Thinking(THINKERS[asked.backend](asked.device, options)))


if __name__ == "__main__":
    main()
