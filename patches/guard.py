"""Refuses to patch any upstream but the one that a patch was read against."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from types import ModuleType


def check(module: ModuleType, read_against: Mapping[str, str], file: str) -> None:
    """`read_against`: the name of a function or class in `module`, and the SHA-256 of its source; the name "" is the
    whole file. `file`: the patch. Raises SystemExit."""
    for name, expected in read_against.items():
        actual = _hash(module, name)
        if actual != expected:
            what = ".".join(filter(None, (module.__name__, name)))
            raise SystemExit(
                f"{Path(file).name}: upstream changed: {what} is {actual}; re-read it, then fix or delete {file}"
            )


def _hash(module: ModuleType, name: str) -> str:
    try:
        # Of a file, its loader knows the source before it is executed; a function that another patch wraps leads to
        # the one that it wraps.
        source = _source(module) if name == "" else inspect.getsource(attrgetter(name)(module))
    except (AttributeError, OSError, TypeError):
        return "gone"
    return sha256(source.encode()).hexdigest()


def _source(module: ModuleType) -> str:
    source: str | None = module.__loader__.get_source(module.__name__)  # type: ignore[union-attr]
    if source is None:
        raise OSError
    return source
