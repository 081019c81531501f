"""Untrusted media becomes a WAV file, 16 kHz mono s16le, made by an ffmpeg child process with limits.

Rule 1: no byte of an upload is decoded in this process; a decoder bug must not own the process that holds the port.
Rule 2: the child opens one local file, and only as a self-contained container; a playlist would open others.
Rule 3: however a call ends, its child is dead and reaped by then, and `into` is whole or absent.
"""

import asyncio
import math
import os
import re
import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import ffmpeg
import imageio_ffmpeg

from gateway.errors import AudioRejected, GatewayError
from gateway.settings import Settings, SettingsError
from gateway.tasks import shielded
from gateway.verbs import Recording
from gateway.wire import wav
from gateway.wire.containers import HEAD_BYTES, is_headerless

RATE = 16000
CONTAINERS = "wav,w64,mp3,mov,aac,flac,ogg,matroska,amr,aiff,au,caf,avi,mpegts,mpeg,asf,flv,ac3,wv,voc"
# Video decoders are most of ffmpeg's weak spots, and probing a file opens them even when only its sound is wanted.
CODECS = (
    "aac,aac_latm,mp3float,mp3,mp2float,mp2,mp1float,mp1,flac,alac,vorbis,libvorbis,opus,libopus,speex,libspeex,"
    "amrnb,amrwb,libopencore_amrnb,libopencore_amrwb,wmav1,wmav2,wmapro,wmalossless,wmavoice,ac3,eac3,dca,wavpack,"
    "nellymoser,gsm,gsm_ms,ilbc,g722,g726,g726le,adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,adpcm_swf,adpcm_yamaha,"
    "pcm_alaw,pcm_mulaw,pcm_u8,pcm_s8,pcm_s8_planar,pcm_s16le,pcm_s16be,pcm_s16le_planar,pcm_s16be_planar,"
    "pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,pcm_f64le,pcm_f64be"
)
# The shell sets the limits and becomes ffmpeg. A preexec_fn would copy this whole process for each child instead.
LIMITS = 'ulimit -c 0 && ulimit -t "$1" && ulimit -v "$2" && ulimit -f "$3" && ulimit -n 32 && shift 3 && exec "$@"'
SHELL_FAILED = (2, 126, 127)
# Four heaps for its eight threads: 0.43 GiB of address space instead of 0.6. Fewer would make the threads wait.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "MALLOC_ARENA_MAX": "4"}
COMPLAINT_BYTES = 4096


class Decoder:
    """One per process. Whoever calls it admits no more than `decode_slots` calls at a time; the rest would queue."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._program = _program(settings.ffmpeg)
        self._threads = ThreadPoolExecutor(settings.decode_slots, thread_name_prefix="decode")

    async def to_wav(self, source: Path, into: Path, *, max_seconds: float, headerless: int | None = None) -> Recording:
        """Decodes an uploaded file, whatever its container, into `into`. Raises AudioRejected.

        headerless: Hz of a file that may be mono s16le without a header, and is that where it is of no known format.
        """
        child = _Child()
        job = self._threads.submit(self._decode, child, source, into, max_seconds, headerless)
        work = asyncio.wrap_future(job)
        try:
            async with asyncio.timeout(self._settings.decode_wall_seconds):
                return await asyncio.shield(work)
        except TimeoutError:
            raise _too_slow() from None
        finally:
            if not job.cancel():
                child.kill()
                await shielded(_ended(work))

    # Private, and below here on a thread of its own

    def _decode(
        self, child: "_Child", source: Path, into: Path, max_seconds: float, headerless: int | None
    ) -> Recording:
        if source.stat().st_size == 0:
            raise AudioRejected("the file is empty", code="audio_empty")
        if headerless is not None and not _is_headerless(source):
            headerless = None
        try:
            status, complaint = child.run(self._command(source, into, max_seconds, headerless))
            _judge(status, complaint)
            return _recording(into, max_seconds)
        except BaseException:
            into.unlink(missing_ok=True)
            raise

    def _command(self, source: Path, into: Path, max_seconds: float, headerless: int | None) -> list[str]:
        # One second more than allowed, so that too long is seen; and the file limit one more, for false timestamps.
        blocks = math.ceil((max_seconds + 2) * RATE * 2 / 512)
        limits = (self._settings.decode_cpu_seconds, self._settings.decode_memory_bytes // 1024, blocks)
        shell = ["/bin/sh", "-c", LIMITS, "sh", *map(str, limits)]
        program = [self._program, "-y", "-nostdin", "-hide_banner", "-v", "error", "-filter_threads", "1"]
        # A file, never a pipe: from a pipe an m4a with its index at the end gives silence and exit status 0.
        upload = ffmpeg.input(
            f"file:{source.absolute()}",
            threads=1,
            protocol_whitelist="file",
            format_whitelist=CONTAINERS if headerless is None else "s16le",
            codec_whitelist=CODECS,
            **({} if headerless is None else {"f": "s16le", "ar": headerless, "ac": 1}),
        )
        made = upload["a:0"].output(
            f"file:{into.absolute()}",
            t=max_seconds + 1,
            format="wav",
            acodec="pcm_s16le",
            ac=1,
            ar=RATE,
            map_metadata=-1,
            **dict.fromkeys(("vn", "sn", "dn", "bitexact")),
        )
        command: list[str] = made.compile(cmd=[*shell, *program])
        return command


class _Child:
    """One process, the leader of its own group: run once by one thread, killed at any time by any other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def run(self, command: list[str]) -> tuple[int, str]:
        """Its exit status, negative for the signal that ended it, and the first of what it wrote to stderr."""
        with self._lock:
            if self._killed:
                return -signal.SIGKILL, ""
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                env=ENVIRONMENT,
                process_group=0,  # not a session: Linux starts a new session's work late when the cores are busy
            )
        with self._process as process:
            assert process.stderr is not None
            complaint = process.stderr.read(COMPLAINT_BYTES)
            while process.stderr.read(COMPLAINT_BYTES):  # a full pipe would stop the child
                pass
            return process.wait(), complaint.decode("ascii", "ignore")

    def kill(self) -> None:
        with self._lock:
            self._killed = True
            if self._process is not None and self._process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)


async def _ended(work: asyncio.Future[Recording]) -> None:
    await asyncio.gather(work, return_exceptions=True)


def _program(named: str) -> str:
    try:
        wanted = named or imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as exc:
        raise SettingsError(f"ffmpeg: {exc}") from None
    found = shutil.which(wanted)
    if found is None:
        raise SettingsError(f"ffmpeg: no such program: {wanted}")
    return str(Path(found).absolute())


def _is_headerless(path: Path) -> bool:
    with path.open("rb") as file:
        return is_headerless(file.read(HEAD_BYTES))


def _judge(status: int, complaint: str) -> None:
    """Raises what an exit status means, unless it means success."""
    if status == 0:
        return
    if status in SHELL_FAILED:
        raise GatewayError("the decoder cannot be started")
    if "No space left on device" in complaint:
        raise GatewayError("the scratch space is full")
    if -status in (signal.SIGKILL, signal.SIGXCPU) or "received signal" in complaint:
        raise _too_slow()
    if -status == signal.SIGXFSZ:
        raise AudioRejected("the recording is too long", code="audio_too_long")
    raise AudioRejected(_reason(complaint), code="audio_undecodable")


def _recording(path: Path, max_seconds: float) -> Recording:
    with path.open("rb") as file:
        head = wav.read_header(file.read(4096), path.stat().st_size)
    recording = Recording(path, head.sample_rate, head.frames)
    if recording.frames == 0:
        raise AudioRejected("the file holds no sound", code="audio_empty")
    if recording.seconds > max_seconds:
        raise AudioRejected(f"the recording is longer than {max_seconds:g} seconds", code="audio_too_long")
    return recording


def _too_slow() -> AudioRejected:
    return AudioRejected("decoding the file takes too long", code="audio_decode_timeout")


def _reason(complaint: str) -> str:
    """ffmpeg's first line in a user's words; without the file's place on this machine."""
    if "matches no streams" in complaint:
        return "the file has no sound track"
    if "Format not on whitelist" in complaint:
        return "files of this kind are not accepted as audio"
    for line in complaint.splitlines():
        words = re.sub(r"^(\[[^]]*\]\s*)+|Error opening input: ", "", line).strip()
        if words and not re.search(r"/|file:|whitelist|Last message repeated", words):
            return f"the file cannot be decoded as audio: {words[:120]}"
    return "the file cannot be decoded as audio"
