"""python -m tests.e2e.tiny_models {tts,asr,s2s} FOLDER: what an engine is given in place of gigabytes, below
FOLDER/tiny.

Runs in the environment of the engines; the source that an engine stands on is on PYTHONPATH.
"""

import shutil
import sys
import warnings
from pathlib import Path


def main(engine: str, folder: Path) -> None:
    warnings.simplefilter("ignore")  # of libraries, about other libraries
    if engine == "tts":
        import patches
        from tests.tiny import cosyvoice

        patches.install()  # of what upstream imports, not all is here
        for version in ("cosyvoice", "cosyvoice3"):
            cosyvoice.build(folder / "tiny" / version, version)
    elif engine == "s2s":
        import patches
        from engines.s2s.backends.fun_audio_chat_model import _registered
        from tests.tiny import cosyvoice, fun_audio_chat

        patches.install()
        _registered()
        reply = {"written": ("It is\n", "sunny."), "spoken": ("It is", " warm", ".\n")}
        fun_audio_chat.build(folder / "tiny" / "fun-audio-chat", **reply)
        size = cosyvoice.Size(tokens=96, codebook=6561, hidden=48)
        cosyvoice.build(folder / "tiny" / "fun-audio-chat-vocoder", "cosyvoice3", size)
    else:
        from tests.tiny import funasr

        made = {name: funasr.trained(name) for name in ("sensevoice", "paraformer-streaming")}
        made["fsmn-vad"] = funasr.built("fsmn-vad")
        for name, place in made.items():
            shutil.copytree(place, folder / "tiny" / name)
    for path in folder.rglob("*"):  # safetensors writes for its owner only
        path.chmod(0o755 if path.is_dir() else 0o644)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
