"""Where something is put together: a folder beside the place that it is to take, of the same volume."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staging(parent: Path, name: str) -> Iterator[Path]:
    """A new folder in `parent`, gone afterwards; so is what others of that name have left, since ours is the only turn.

    What cannot be removed stays, and hides no other failure: an operator may have taken `parent` over meanwhile, where
    tempfile.TemporaryDirectory tries until Python's recursion ends.
    """
    parent.mkdir(parents=True, exist_ok=True)
    prefix = f".staging-{name}-"
    for left in parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    made = tempfile.mkdtemp(prefix=prefix, dir=parent)
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)
