"""Models of random weights, built once and kept in .cache: tiny ones, and ones of the published sizes.

`python -m bench.engines.models cosyvoice SOURCE VERSION SIZE` and `... funasr NAME SIZE` print the folder. In a process
of their own: the builders import all of upstream, and the benchmark is to stay light.
"""

import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from engines.provision import lock, source
from engines.settings import inherited, load

ROOT = Path(__file__).resolve().parents[2]
_CACHE = ROOT / ".cache" / "bench"
_BUILDER = ROOT / "tests" / "tiny" / "cosyvoice.py"
_SECONDS = {"full": 6.0, "short": 2.0}
"""Of speech that a full-size CosyVoice says to a sentence; a published benchmark's were of five."""

VOICES = ("cosyvoice", "cosyvoice2", "cosyvoice3")
SIZES = ("tiny", "full", "short")
"""short: full networks with less to say, for machines without a GPU."""
VAD, PUNCTUATION, STREAMING = "fsmn-vad", "ct-punc", "paraformer-streaming"
RECOGNISERS = ("sensevoice", "seaco-paraformer", "fun-asr-nano")
WRITES_MARKS = ("sensevoice", "fun-asr-nano")


def cosyvoice_source() -> Path:
    """CosyVoice's source in the operator's models folder, fetched where it is not there. Raises ProvisionError."""
    settings = load()
    return source.provide(lock.read(settings.models_lock).sources["CosyVoice"], settings, lambda _progress: None)


def cosyvoice(version: str, size: str) -> Path:
    """The folder of a model."""
    return _made("cosyvoice", str(cosyvoice_source()), version, size)


def funasr(name: str, size: str) -> Path:
    """The folder of a model; `short` is `full`."""
    return _made("funasr", name, size)


def characters(version: str, size: str) -> int:
    """Of a sentence that CosyVoice says with its tokens once: it wants two for each token of text, and the tokenizer of
    these models makes three of a character, and of the full stop that is put after it."""
    return min(26, _tokens(version, size) // 6 - 1)


# Private


def _made(*arguments: str) -> Path:
    command = [sys.executable, "-W", "ignore", "-m", "bench.engines.models", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=inherited({}), stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip().splitlines()[-1])


def _tokens(version: str, size: str) -> int:
    from tests.tiny import cosyvoice as builder

    if size == "tiny":
        return builder.TINY[version].tokens
    return round(_SECONDS[size] * builder.TOKEN_RATE[version])


def _build_cosyvoice(upstream: str, version: str, size: str) -> Path:
    sys.path.append(upstream)
    import patches
    from tests.tiny import cosyvoice as builder

    patches.install()
    tokens = _tokens(version, size)
    wanted = replace((builder.TINY if size == "tiny" else builder.FULL)[version], tokens=tokens)
    digest = hashlib.sha256(_BUILDER.read_bytes() + repr(wanted).encode()).hexdigest()[:12]
    place = _CACHE / f"{version}-{size}-{digest}"
    if not place.is_dir():
        for left in _CACHE.glob(f"{version}-{size}-*"):  # of another builder, or not whole
            shutil.rmtree(left)
        fresh = place.with_suffix(".part")
        builder.build(fresh, version, wanted)
        fresh.rename(place)
    return place


def _build_funasr(name: str, size: str) -> Path:
    from tests.tiny import funasr as builder

    return builder.built(name, builder.TINY if size == "tiny" else builder.PUBLISHED)


def main() -> None:
    kind, *arguments = sys.argv[1:]
    print(_build_cosyvoice(*arguments) if kind == "cosyvoice" else _build_funasr(*arguments))


if __name__ == "__main__":
    main()
