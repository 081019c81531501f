"""Scratch space with a scope: a request's files live exactly as long as the block that made them.

The scratch root belongs to one process, which holds a lock in it; what a killed process left behind is removed by
the next one that starts.
"""

import asyncio
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from gateway.tasks import shielded


@asynccontextmanager
async def workspace(root: Path) -> AsyncIterator[Path]:
    """One request's private directory (mode 0700); gone when the block ends, however it ends."""
    path = root / secrets.token_hex(16)
    try:
        # Shielded: a thread cannot be cancelled, and would make the directory after its removal.
        await shielded(asyncio.to_thread(path.mkdir, mode=0o700))
        yield path
    finally:
        await shielded(asyncio.to_thread(shutil.rmtree, path, ignore_errors=True))


@contextmanager
def scratch_root(parent: Path) -> Iterator[Path]:
    """This process's own scratch directory below `parent`; leftovers of dead processes are removed first."""
    parent.mkdir(parents=True, exist_ok=True)
    with locked(parent / "lock", wait=True):  # two processes that start at once sweep one after the other
        for stale in parent.glob("run-*"):
            # Its owner may be removing it this very moment, or it may be another user's: not our loss.
            with suppress(OSError), locked(stale / "lock", wait=False) as dead:
                if dead:
                    shutil.rmtree(stale, ignore_errors=True)
        root = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
        mine = locked(root / "lock", wait=False)
        mine.__enter__()
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)
        mine.__exit__(None, None, None)


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Holds an advisory lock; yields whether it was got. The kernel frees it however its holder dies."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            got = True
        except BlockingIOError:
            got = False
        yield got
    finally:
        os.close(descriptor)
