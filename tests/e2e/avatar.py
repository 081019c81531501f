"""What the desktop client does at port 8383 from its first upload to a video that plays."""

from pathlib import Path

import httpx
import pytest

from tests.engines.avatar.media import Film, film, recording, template
from tests.surfaces.avatar_client import DesktopAvatar

SECONDS = 2.3
"""Of the recording; its template is shorter."""
FRAME = 1 / 25


async def video_by_way_of(url: str, folder: Path) -> Film:
    """Uploads a recording and a template, submits, polls, and downloads over a line that breaks once."""
    folder.mkdir(parents=True, exist_ok=True)
    audio, video = recording(folder / "voice.wav", SECONDS), template(folder / "face.mkv", 1.2)
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
        desktop = DesktopAvatar(http, polls=1200, pause=0.1)
        sound = await desktop.upload("audio", audio.read_bytes(), ".wav")
        code = await desktop.submit(sound, await desktop.upload("video", video.read_bytes(), ".mkv"))
        result = await desktop.outcome(code)
        made = folder / "made.mp4"
        made.write_bytes(await desktop.download(result, cut=10_000))
        assert await desktop.outcome(code) == result, "an outcome can be read again"
    return film(made)


def assert_it_plays(made: Film) -> None:
    """As long as the recording, with its sound, over the template forward and backward."""
    assert made.codecs[0] in ("h264", "libx264") and made.codecs[1] == "aac"
    assert made.seconds == pytest.approx(SECONDS, abs=1.1 * FRAME)
    assert made.sound_seconds == pytest.approx(SECONDS, abs=0.06)
    loud = made.sound[made.sound_rate // 2 :]
    assert float((loud**2).mean()) ** 0.5 > 0.1, "the recording is heard"
    turn = round(1.2 / FRAME)
    assert made.brightness[turn - 3] > 200 and made.brightness[-3] < 60, "there and back again"
