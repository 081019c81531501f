"""What an engine needs, checked and fetched when it starts: Python packages, upstream source, models.

Safe to be killed at any point and to run in two containers on one volume; with everything there it opens no
connection and starts no process. It changes nothing of the process that calls it and imports nothing of an engine.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engines.provision import lock, models, needs, packages, source
from engines.provision.needs import Role
from engines.provision.refusal import ProvisionError
from engines.settings import Engines
from gateway.wire.engine_health import Progress

__all__ = ["Provided", "ProvisionError", "faults", "provide"]


@dataclass(frozen=True)
class Provided:
    python_path: tuple[Path, ...]
    """What goes first on the PYTHONPATH of workers: folders of packages, upstream source."""


def provide(role: Role, settings: Engines, tell: Callable[[Progress], None], *, with_packages: bool = True) -> Provided:
    """Blocks until everything is there; a call in a thread of its own may tell its progress to a server.

    tell: called from the calling thread, some times a second; what it raises breaks provisioning off, and the next
    call goes on from there. Raises ProvisionError, and nothing else for a volume, a network or a hub that is not as
    it should be.
    """
    with _readable(settings):
        pinned = lock.read(settings.models_lock)
        wanted = _wanted(role, settings, pinned)
        path = list(packages.provide(role, settings, tell)) if with_packages else []
        path += [source.provide(one, settings, tell) for one in _sources(role, pinned)]
        for want in wanted:
            models.provide(want, settings, tell)
    return Provided(tuple(path))


def faults(role: Role, settings: Engines, tell: Callable[[Progress], None], *, with_packages: bool = True) -> list[str]:
    """Everything that is missing or damaged, every byte of the models read. Fetches nothing. Raises ProvisionError."""
    with _readable(settings):
        pinned = lock.read(settings.models_lock)
        wanted = _wanted(role, settings, pinned)
        found = packages.faults(role, settings) if with_packages else []
        for one in _sources(role, pinned):
            found += source.faults(one, settings)
        for want in wanted:
            found += models.faults(want, tell, thorough=True)
    return found


# Private


@contextmanager
def _readable(settings: Engines) -> Iterator[None]:
    """A volume that fails is a refusal like any other."""
    try:
        yield
    except OSError as exc:
        where = f" at {exc.filename}" if exc.filename else ""
        raise ProvisionError(f"{settings.models_dir} cannot be used: {exc.strerror or exc}{where}") from exc


def _sources(role: Role, pinned: lock.Lock) -> list[lock.Source]:
    """Raises ProvisionError."""
    missing = [name for name in needs.SOURCES[role] if name not in pinned.sources]
    if missing:
        raise ProvisionError(f"models.lock pins no source {missing[0]}")
    return [pinned.sources[name] for name in needs.SOURCES[role]]


def _wanted(role: Role, settings: Engines, pinned: lock.Lock) -> list[models.Wanted]:
    """All names are looked at before anything is fetched."""
    return [models.wanted(need, pinned, settings) for need in needs.models(role, settings)]
