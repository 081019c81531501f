"""Patches upstream's own server: with `PYTHONPATH=/voxgate/patches/start`, Python runs this file before all others.

    volumes: ["./patches:/voxgate/patches:ro"]
    environment: {PYTHONPATH: /voxgate/patches/start}

The folder may be mounted anywhere.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

HERE = Path(__file__).resolve().parent


def load_patches() -> None:
    """By its file, so that no folder of this one's name on the path is taken for it, and none is added to the path."""
    package = HERE.parent
    spec = spec_from_file_location("patches", package / "__init__.py", submodule_search_locations=[str(package)])
    assert spec is not None and spec.loader is not None
    sys.modules["patches"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.install()


def run_shadowed() -> None:
    """The sitecustomize that Python would have run in the place of this one, if there is one."""
    others = [entry for entry in sys.path if Path(entry).resolve() != HERE]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


try:
    load_patches()
except Exception as exc:  # Python would print it and then start upstream's server without the patches
    raise SystemExit(f"{__file__}: {type(exc).__name__}: {exc}") from exc
run_shadowed()
