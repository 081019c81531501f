"""Where Fun-Audio-Chat's parts lie: a model's folder, upstream's source, what is read of it without an import."""

import importlib.util
from functools import cache
from pathlib import Path


class Unusable(Exception):
    """A model cannot be loaded; one line for the operator."""


def find(name: str, models_dir: Path) -> Path:
    """The folder of a model named by its hub name or as a folder. Raises Unusable."""
    for folder in (Path(name), models_dir / name):  # in the order in which engines/provision looks
        if folder.is_dir():
            return folder
    raise Unusable(f"the model {name} is neither in {models_dir} nor a folder")


def require(folder: Path, *names: str) -> None:
    """Raises Unusable where a file is missing."""
    for name in names:
        if not (folder / name).exists():
            raise Unusable(f"the model {folder} lacks {name}")


@cache
def upstream() -> Path:
    """The folder of upstream's source, which is on the path of modules. Raises Unusable."""
    spec = importlib.util.find_spec("funaudiochat")
    if spec is None or spec.origin is None:
        raise Unusable("Fun-Audio-Chat's source is not on PYTHONPATH")
    return Path(spec.origin).parents[1]
