"""deploy/models.lock: which sources and models the engines stand on, what each must hold, and what is known of it."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, TypeAlias

from engines.provision.refusal import ProvisionError

HubName: TypeAlias = Literal["modelscope", "huggingface"]
HUBS: tuple[HubName, ...] = ("modelscope", "huggingface")


@dataclass(frozen=True, slots=True)
class Pin:
    """What is known of a file before it is fetched; the digests are hex."""

    size: int | None = None
    """Bytes."""
    sha256: str = ""
    git: str = ""
    """The SHA-1 by which git names the content: all that Hugging Face states of small files."""

    def agrees(self, other: "Pin") -> bool:
        """Whether both may speak of one file."""
        pairs = ((self.size, other.size), (self.sha256, other.sha256), (self.git, other.git))
        return all(a in (None, "") or b in (None, "") or a == b for a, b in pairs)

    def joined(self, other: "Pin") -> "Pin":
        size = other.size if self.size is None else self.size
        return Pin(size, self.sha256 or other.sha256, self.git or other.git)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is on a hub."""

    hub: HubName
    id: str
    revision: str
    pins: Mapping[str, Pin] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kind:
    """What every copy of such a model must hold: names, or patterns of which one file at least is there."""

    name: str
    family: str
    needs: tuple[str, ...]
    """The first tells the kind from the others of its family."""
    when: Mapping[str, tuple[str, ...]]
    """By the name of a switch among the settings: what is needed too while it is on, and left out otherwise."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the lock knows."""

    id: str
    kind: Kind
    needs: tuple[str, ...]
    """Beyond its kind's."""
    leaves: tuple[str, ...]
    """Patterns of what is of no use to us and not fetched."""
    places: Mapping[HubName, Place]


@dataclass(frozen=True, slots=True)
class Source:
    """Upstream's own code."""

    name: str
    commit: str
    url: str
    """With {commit} in it."""
    digest: str
    """SHA-256 of the files that matter, see source.py."""
    setting: str
    """The environment variable that names another place to have it from."""
    matters: Mapping[str, tuple[str, ...]]
    """By folder, the endings of the files below it that run, or that code reads."""


@dataclass(frozen=True, slots=True)
class Lock:
    sources: Mapping[str, Source]
    kinds: Mapping[str, Kind]
    models: Mapping[str, Model]

    def model(self, name: str) -> Model | None:
        """By the name that we give it, or by its name on any hub."""
        if name in self.models:
            return self.models[name]
        for model in self.models.values():
            if any(place.id == name for place in model.places.values()):
                return model
        return None

    def family(self, name: str) -> list[Kind]:
        return [kind for kind in self.kinds.values() if kind.family == name]


def read(path: Path) -> Lock:
    """Raises ProvisionError."""
    try:
        return _lock(tomllib.loads(path.read_text()))
    except OSError as exc:
        raise ProvisionError(f"{path} cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as exc:
        raise ProvisionError(f"{path} is not a models.lock: {type(exc).__name__} {exc}") from exc


def matching(name: str, patterns: tuple[str, ...]) -> bool:
    """`*` stands for any characters, slashes too."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


# Private


def _lock(found: dict[str, Any]) -> Lock:
    kinds = {name: _kind(name, body) for name, body in found["kinds"].items()}
    leaves = tuple(found["leaves"])
    models = {name: _model(name, body, kinds, leaves) for name, body in found["models"].items()}
    sources = {name: _source(name, body) for name, body in found["sources"].items()}
    return Lock(sources, kinds, models)


def _source(name: str, body: dict[str, Any]) -> Source:
    matters = {folder: tuple(endings) for folder, endings in body["matters"].items()}
    return Source(name, **{**body, "matters": matters})


def _kind(name: str, body: dict[str, Any]) -> Kind:
    when = {switch: tuple(names) for switch, names in body.get("when", {}).items()}
    return Kind(name, body["family"], tuple(body["needs"]), when)


def _model(name: str, body: dict[str, Any], kinds: Mapping[str, Kind], leaves: tuple[str, ...]) -> Model:
    places = {hub: _place(hub, body[hub]) for hub in HUBS if hub in body}
    more = tuple(body.get("leaves", ()))
    return Model(name, kinds[body["kind"]], tuple(body.get("needs", ())), leaves + more, places)


def _place(hub: HubName, body: dict[str, Any]) -> Place:
    pins = {name: Pin(**pin) for name, pin in body.get("files", {}).items()}
    return Place(hub, body["id"], body["revision"], pins)
