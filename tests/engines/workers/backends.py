"""`python -m tests.engines.workers.backends --device cpu`: a worker that does what its jobs tell it to."""

import sys
import time
from collections.abc import Generator
from pathlib import Path

from engines.workers import child
from engines.workers.messages import Fields, Hello, Work


class Refusal(Exception):
    status = 422


class Obedient:
    hurried = False

    def load(self) -> Hello:
        print("libraries like to print")
        if "--broken" in sys.argv:
            raise OSError("no such model")
        return Hello("obedient", sys.argv[-1], {"answer": 42})

    def run(self, work: Work, stopped: child.Stopped) -> Generator[tuple[Fields, bytes], None, Fields]:
        match work.task:
            case "count":
                for number in range(work.fields["to"]):
                    yield {"number": number}, work.data
                    if log := work.fields.get("log"):
                        with Path(log).open("a") as file:
                            file.write(".")
            case "refuse":
                raise Refusal("not like this")
            case "fail":
                raise RuntimeError("a secret")
            case "until stopped":
                yield {"begun": True}, b""
                while not stopped():
                    time.sleep(0.005)
            case "long":
                yield {"begun": True}, b""
                while not stopped() and not self.hurried:
                    time.sleep(0.005)
            case "hurry":
                self.hurried = True
            case "slow to stop":
                yield {"begun": True}, b""
                while not stopped():
                    time.sleep(0.005)
                time.sleep(0.8)
            case "deaf":
                yield {"begun": True}, b""
                time.sleep(60)
            case "die":
                sys.stderr.flush()
                import os

                os._exit(3)
        return {"done": work.task}


if __name__ == "__main__":
    child.main(Obedient())
