"""What is imported, seen from processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine

IMPORT = """
import sys
from engines.asr.backends.funasr_import import auto_model
auto_model(sys.argv[1:])
import funasr
from funasr import AutoModel
from funasr.register import tables
print(len([name for name in sys.modules if name.startswith("funasr.")]), "sklearn" in sys.modules, *sys.argv[1:],
      all(name in tables.model_classes for name in sys.argv[1:]))
"""
DEAF = """
import sys
sys.modules["torchaudio"] = None
from pathlib import Path
from tests.engines.asr.backends.conftest import fresh, hear
print(hear(fresh(Path(sys.argv[1]), sys.argv[2]), Path(sys.argv[3]).read_bytes()).text)
"""


def alone(code: str, *given: str) -> str:
    """What a new process prints on its last line."""
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "classes",
    ["SenseVoiceSmall FsmnVADStreaming CTTransformer", "SeacoParaformer ParaformerStreaming FsmnVADStreaming"],
)
def test_only_what_is_needed_is_imported(classes: str) -> None:
    modules, sklearn, *rest = alone(IMPORT, *classes.split()).split()
    assert int(modules) < 100
    assert sklearn == "False"
    assert rest == [*classes.split(), "True"]


@pytest.mark.parametrize("name", ["trained", "seaco-paraformer", "fun-asr-nano-ctc"])
def test_torchaudio_is_not_needed(models: Path, tmp_path: Path, name: str) -> None:
    from tests.tiny import funasr as tiny

    (tmp_path / "pcm").write_bytes(tiny.pcm(tiny.silence(1), tiny.say("你好世界"), tiny.silence(1)))
    heard = alone(DEAF, str(models), name, str(tmp_path / "pcm"))
    assert heard == "你好世界" if name != "seaco-paraformer" else heard
