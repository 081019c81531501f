"""Small modules that replace named upstream functions, one reason each.

`install()` before upstream's code is imported; each patch is then applied to its module as that is imported. Where
upstream's own server runs, `start/sitecustomize.py` calls it.

Rule 1: a patch says in its header why it is there and when it goes, and refuses every upstream but the one that it was
        read against.
Rule 2: a patch holds no lines of upstream.
Rule 3: nothing here needs more than upstream's own image has, which may be Python 3.8.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PACKAGES = ("cosyvoice_ace7c47",)


def install() -> None:
    """Sees to it that upstream's modules are patched, those imported already at once. Imports none of them. May be
    called again. Raises SystemExit when upstream is not the one that the patches were read against."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    for name, patches in finder.patches.items():
        if name in sys.modules:
            _apply(patches, sys.modules[name])


def found() -> list[ModuleType]:
    """The patches, in the order in which they are applied.

    A patch has TARGETS, the names of the modules that it changes, and `apply(module)`, called once each was executed.
    One that must come before has `instead(module) -> bool`, which is true where it filled the module itself."""
    modules = []
    for package in _PACKAGES:
        folder = importlib.import_module(f"{__name__}.{package}").__path__
        modules += [
            importlib.import_module(f"{__name__}.{package}.{each.name}") for each in pkgutil.iter_modules(folder)
        ]
    return modules


class _Finder(MetaPathFinder):
    """Finds what the other finders find, and has it patched."""

    def __init__(self) -> None:
        self.patches: dict[str, list[ModuleType]] = {}
        for patch in found():
            for target in patch.TARGETS:
                self.patches.setdefault(target, []).append(patch)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.patches:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader, self.patches[fullname])
                return spec
        return None


class _Loader(Loader):
    """Loads as `loader` does, then applies `patches`."""

    def __init__(self, loader: Any, patches: list[ModuleType]) -> None:
        self._loader, self._patches = loader, patches

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # Whoever looks at the module shall see the loader that really has its source.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        if not any(patch.instead(module) for patch in self._patches if hasattr(patch, "instead")):
            self._loader.exec_module(module)
        _apply(self._patches, module)


def _apply(patches: list[ModuleType], module: ModuleType) -> None:
    for patch in patches:
        patch.apply(module)
