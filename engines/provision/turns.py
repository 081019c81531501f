"""One at a time: containers that share a volume take turns at each thing they make in it.

The lock is the kernel's and ends with the process that holds it, however it ends.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engines.provision.progress import Tell
from engines.provision.refusal import ProvisionError
from gateway.wire.engine_health import Progress

_POLL = 0.1


@contextmanager
def turn(folder: Path, item: str, tell: Tell) -> Iterator[None]:
    """Waits until no other process makes `item` in `folder`, and holds the turn. Raises ProvisionError."""
    path = folder / ".locks" / f"{item.replace('/', '--').replace(' ', '-')}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as exc:
        raise ProvisionError(
            f"{item} is missing or not complete in {folder}, and nothing can be written there ({exc.strerror}): "
            "fill the folder with `make models`, or mount it writable"
        ) from exc
    with file:
        while not _taken(file.fileno()):
            tell(Progress(f"waiting for another container: {item}"))
            time.sleep(_POLL)
        yield


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
