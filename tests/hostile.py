"""Files that people and attackers upload: real containers made with ffmpeg, hostile ones made by hand."""

import io
import random
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

SECONDS = 3
SOUND = f"sine=f=440:d={SECONDS}:r=44100"
PICTURE = f"testsrc=s=64x64:r=5:d={SECONDS}"

FORMATS: dict[str, str] = {
    "stereo_44k.wav": "-ac 2 -c:a pcm_s16le",
    "s24_48k.wav": "-ar 48000 -c:a pcm_s24le",
    "alaw_8k.wav": "-ar 8000 -c:a pcm_alaw",
    "float.wav": "-c:a pcm_f32le",
    "wave64.w64": "",
    "voice.mp3": "-b:a 128k",
    "voice.m4a": "-c:a aac -b:a 128k",
    "voice.aac": "-c:a aac",
    "voice.3gp": "-c:a aac",
    "amr.3gp": "-ar 8000 -c:a libopencore_amrnb",
    "voice.amr": "-ar 8000 -c:a libopencore_amrnb",
    "voice.flac": "",
    "vorbis.ogg": "-c:a libvorbis",
    "opus.ogg": "-c:a libopus -b:a 32k",
    "voice.webm": "-c:a libopus -b:a 32k",
    "voice.wma": "-c:a wmav2",
    "voice.aiff": "",
    "voice.au": "",
    "voice.caf": "",
    "voice.avi": "",
    "voice.flv": "-c:a libmp3lame",
    "voice.ts": "-c:a aac",
    "voice.mpg": "-c:a mp2",
}


def sounds(ffmpeg: str, folder: Path) -> dict[str, Path]:
    """One good file for each row of FORMATS, a film with sound, and two with the wrong name. Each lasts SECONDS."""
    outputs = [word for name, how in FORMATS.items() for word in ("-map", "0:a", *how.split(), str(folder / name))]
    film = ["-map", "0:a", "-map", "1:v", "-c:v", "libx264", "-c:a", "aac", str(folder / "film.mp4")]
    _make(ffmpeg, "-f", "lavfi", "-i", SOUND, "-f", "lavfi", "-i", PICTURE, *outputs, *film)
    (folder / "mp3_named.wav").write_bytes((folder / "voice.mp3").read_bytes())
    (folder / "wav_named.mp3").write_bytes((folder / "stereo_44k.wav").read_bytes())
    (folder / "no_extension").write_bytes((folder / "voice.m4a").read_bytes())
    return {path.name: path for path in folder.iterdir()}


def hostile(ffmpeg: str, folder: Path, good: dict[str, Path]) -> dict[str, Path]:
    """Every row of the hostile table; `good` is what `sounds` made."""
    silence = ["-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono:n=65535", "-map", "0:a", "-t", "36000"]
    _make(ffmpeg, *silence, "-compression_level", "0", "-frame_size", "65535", str(folder / "ten_hours.flac"))
    _make(ffmpeg, "-f", "lavfi", "-i", PICTURE, "-c:v", "libx264", str(folder / "no_sound.mp4"))
    made = not_media() | headers() | playlists(good["voice.mp3"]) | damaged(good)
    for name, body in made.items():
        (folder / name).write_bytes(body)
    return {path.name: path for path in folder.iterdir()}


def not_media() -> dict[str, bytes]:
    noise = random.Random(1).randbytes
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.txt", noise(3000))
    with tarfile.open(fileobj=tarred, mode="w") as bundle:
        bundle.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    return {
        "empty.wav": b"",
        "one_byte.mp3": b"\xff",
        "random.bin": noise(50_000),
        "text.txt": b"hello world, this is not audio\n" * 100,
        "page.html": b"<html><body>404</body></html>",
        "picture.png": b"\x89PNG\r\n\x1a\n" + noise(300),
        "archive.zip": zipped.getvalue(),
        "archive.tar": tarred.getvalue(),
    }


def headers() -> dict[str, bytes]:
    nan = struct.pack("<f", float("nan")) * 1600
    return {
        "header_only.wav": wav(b""),
        "claims_4GB.wav": wav(bytes(3200), claim=0xFFFFFFFF),
        "1_Hz.wav": wav(b"\0\1" * 5000, rate=1),
        "4_GHz.wav": wav(bytes(3200), rate=0xFFFFFFFF),
        "0_Hz.wav": wav(bytes(3200), rate=0),
        "0_channels.wav": wav(bytes(3200), channels=0),
        "255_channels.wav": wav(bytes(51_000), channels=255),
        "65535_channels.wav": wav(bytes(200_000), channels=65535),
        "nan.wav": wav(nan, kind=3, bits=32),
    }


def wav(
    data: bytes, *, kind: int = 1, channels: int = 1, rate: int = 16000, bits: int = 16, claim: int | None = None
) -> bytes:
    align = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * align & 0xFFFFFFFF, align & 0xFFFF, bits)
    size = len(data) if claim is None else claim
    head = b"RIFF" + struct.pack("<I", min(size + 36, 0xFFFFFFFF)) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", size) + data


def playlists(target: Path) -> dict[str, bytes]:
    """Small texts that ask the decoder to open something else: `target`, or the network."""
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n"
    local = hls.format(f"file://{target}").encode()
    dash = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT10S"><Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" '
        f'bandwidth="1"><BaseURL>file://{target}</BaseURL></Representation></AdaptationSet></Period></MPD>'
    )
    return {
        "local.m3u8": local,
        "local_m3u8_named.mp3": local,
        "network.m3u8": hls.format("http://127.0.0.1:9/x.ts").encode(),
        "concat.txt": f"ffconcat version 1.0\nfile '{target}'\n".encode(),
        "concat_named.wav": f"ffconcat version 1.0\nfile {target.name}\n".encode(),
        "session.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "dash.mpd": dash.encode(),
    }


def damaged(good: dict[str, Path]) -> dict[str, bytes]:
    """The first half of a file, and a file with 200 bytes turned over."""
    names = ("stereo_44k.wav", "voice.mp3", "voice.m4a", "voice.flac", "vorbis.ogg", "voice.webm")
    whole = {name: good[name].read_bytes() for name in names}
    return {f"cut_{name}": body[: len(body) // 2] for name, body in whole.items()} | {
        f"flipped_{name}": _flipped(body) for name, body in whole.items()
    }


def _flipped(body: bytes) -> bytes:
    turned = bytearray(body)
    for at in random.Random(2).choices(range(200, len(body)), k=200):
        turned[at] ^= 0xFF
    return bytes(turned)


def _make(ffmpeg: str, *arguments: str) -> None:
    subprocess.run([ffmpeg, "-y", "-v", "error", *arguments], check=True, stdin=subprocess.DEVNULL, timeout=60)
