"""What becomes of a failure on a device: a full one can take the next turn, a broken one needs a new process."""

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from engines.s2s.backends import Failed

log = logging.getLogger(__name__)


@contextmanager
def guarded() -> Iterator[None]:
    """Says that a device is full, and gives back what can be spared. Raises Failed for that, and else what is raised
    inside; where the device can compute nothing more, the process ends, and whoever runs it starts another."""
    import torch

    try:
        yield
    except RuntimeError as exc:
        if isinstance(exc, torch.OutOfMemoryError) or "CUBLAS_STATUS_ALLOC_FAILED" in str(exc):
            # The failure holds the frames that it came through, and they hold tensors.
            traceback.clear_frames(exc.__traceback__)
            torch.cuda.empty_cache()
            raise Failed("the engine is out of memory for this turn; a shorter one may do") from None
        if str(exc).startswith("CUDA error"):
            log.critical("the GPU cannot go on, and this process ends: %s", str(exc).splitlines()[0])
            os._exit(1)
        raise
