"""What a client does at port 9090, one function a step. It knows the addresses of the contract and nothing inside."""

import io
import struct
import subprocess
import threading
import time
import wave
from collections.abc import Callable
from pathlib import Path

import httpx
from imageio_ffmpeg import get_ffmpeg_exe

RECORDED = Path(__file__).parents[2].parent / "shared" / "audio" / "reference_en.wav"
ENGLISH_MALE, ENGLISH = "英文男", "英文"
LONG_TEXT = "The weather is very nice today. We are going to the park this afternoon. How are you today?"


def connect(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=120, trust_env=False)


def clone_a_voice_and_speak(http: httpx.Client, folder: Path, device: str = "device-of-the-test") -> bytes:
    """A phone's recording becomes a voice, the voice reads a text, the file is fetched."""
    voice = train(http, device, reference(http, folder))
    wait_for_voice(http, device, voice)
    spoken = speak(http, device, voice, "hello world")
    assert seconds(spoken) > 0.3
    return spoken


def speak_and_understand(http: httpx.Client, text: str = "what time is it") -> str:
    """What recognition hears when synthesis says `text`."""
    spoken = synthesize(http, text, ENGLISH_MALE)
    assert seconds(spoken) > 0.5
    return transcribe(http, spoken, ENGLISH)


def reference(http: httpx.Client, folder: Path) -> Path:
    """Human speech as a telephone sends it; our own voice where there is no recording."""
    source = RECORDED
    if not source.exists():
        source = folder / "reference.wav"
        source.write_bytes(closed(synthesize(http, LONG_TEXT, ENGLISH_MALE)))
    made = folder / "reference.m4a"
    subprocess.run([get_ffmpeg_exe(), "-v", "error", "-y", "-i", source, "-c:a", "aac", made], check=True)
    return made


def train(http: httpx.Client, device: str, recording: Path) -> str:
    answer = http.post(
        "/v1/voices/train",
        data={"device_id": device, "name": "Test"},
        files={"audio": (recording.name, recording.read_bytes(), "application/octet-stream")},
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    voice = body.get("data", {}).get("voiceId") or body.get("voiceId") or body.get("id")
    assert isinstance(voice, str), body
    return voice


def wait_for_voice(http: httpx.Client, device: str, voice: str, limit: float = 60) -> None:
    deadline = time.monotonic() + limit
    while True:
        answer = http.get(f"/v1/voices/{voice}", params={"device_id": device})
        assert answer.status_code == 200, answer.text
        status = answer.json()["data"]["status"]
        if status == "ready":
            return
        assert status in ("pending", "training") and time.monotonic() < deadline, answer.text
        time.sleep(0.2)


def speak(http: httpx.Client, device: str, voice: str, text: str) -> bytes:
    answer = http.post("/v1/tts", json={"device_id": device, "voice_id": voice, "text": text})
    assert answer.status_code == 200, answer.text
    file = http.get(answer.json()["data"]["audioUrl"])
    assert file.status_code == 200, file.text
    return file.content


def synthesize(http: httpx.Client, text: str, speaker: str) -> bytes:
    answer = http.post("/api/synthesize", json={"text": text, "speaker_id": speaker})
    assert answer.status_code == 200, answer.text
    return answer.content


def transcribe(http: httpx.Client, audio: bytes, language: str) -> str:
    answer = http.post("/api/transcribe", data={"language": language}, files={"audio": ("speech.wav", audio)})
    assert answer.status_code == 200, answer.text
    text = answer.json()["text"]
    assert isinstance(text, str)
    return text


def seconds(wav: bytes) -> float:
    with wave.open(io.BytesIO(closed(wav))) as sound:
        return float(sound.getnframes() / sound.getframerate())


def closed(wav: bytes) -> bytes:
    """A streamed WAV, whose header claims no length or an endless one, with the length that it has."""
    assert wav[:4] == b"RIFF" and wav[8:16] == b"WAVEfmt " and wav[36:40] == b"data", wav[:48]
    return wav[:4] + struct.pack("<I", len(wav) - 8) + wav[8:40] + struct.pack("<I", len(wav) - 44) + wav[44:]


class Callers:
    """Clients that keep asking, each in its own thread, and note every answer that breaks the contract.

    The contract while an engine is exchanged: whole audio, or 503 with Retry-After.
    """

    def __init__(self, url: str, voice: str) -> None:
        self.url, self.voice = url, voice
        self.wronged: list[str] = []
        self._served: list[float] = []
        self._whole = 0
        self._over = threading.Event()
        asks = (self._ask_for_a_stream, self._ask_for_a_file)
        self._threads = [threading.Thread(target=self._run, args=(ask,)) for ask in asks]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def served_since(self, when: float) -> bool:
        return any(at > when for at in self._served)

    def _run(self, ask: Callable[[httpx.Client], httpx.Response]) -> None:
        with connect(self.url) as http:
            while not self._over.is_set():
                try:
                    self._judge(ask(http))
                except Exception as exc:  # whatever it is, a client saw it
                    self.wronged.append(repr(exc))

    def _judge(self, answer: httpx.Response) -> None:
        if answer.status_code == 503:
            assert answer.headers.get("retry-after"), "503 without Retry-After"
            time.sleep(0.1)
            return
        assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
        assert seconds(answer.content) > 0.3, "a 200 without its audio"
        self._served.append(time.monotonic())

    def _ask_for_a_stream(self, http: httpx.Client) -> httpx.Response:
        answer = http.post("/api/synthesize", json={"text": "hello world", "speaker_id": ENGLISH_MALE})
        if answer.status_code == 200:
            self._whole = max(self._whole, len(answer.content))
            assert len(answer.content) > 0.95 * self._whole, "a 200 cut short"
        return answer

    def _ask_for_a_file(self, http: httpx.Client) -> httpx.Response:
        # A new text each time: what was said before would be answered from its file.
        text = f"hello world {time.monotonic_ns()}"
        answer = http.post("/v1/tts", json={"device_id": "swap", "voice_id": self.voice, "text": text})
        return http.get(answer.json()["data"]["audioUrl"]) if answer.status_code == 200 else answer
