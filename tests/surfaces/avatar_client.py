"""The shipped desktop client on port 8383, as far as what it does with answers: what it takes for success, for an end,
for a file; and Duix-Avatar's own."""

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import httpx


class Failed(Exception):
    """What the client shows its user."""


class StillPolling(Exception):
    """It would have gone on until its fifteen minutes are over."""


@dataclass(slots=True)
class DesktopAvatar:
    client: httpx.AsyncClient
    polls: int = 600
    pause: float = 0.02

    async def upload(self, field: str, data: bytes, suffix: str) -> str:
        """The path that it goes on with."""
        filename = f"{'avatar' if field == 'video' else 'audio'}_{uuid.uuid4()}{suffix}"
        answer = await self.client.post("/upload", files={field: (filename, data, "application/octet-stream")})
        if not answer.is_success:
            raise Failed(answer.text[:200])
        body = answer.json()
        path = body.get("path") or body.get("video_path") or body.get("audio_path") or f"/code/data/{filename}"
        return str(path)

    async def submit(self, audio: str, video: str, code: str = "", **more: str) -> str:
        code = code or str(uuid.uuid4())
        body = {"audio_url": audio, "video_url": video, "code": code, "chaofen": 0, "watermark_switch": 0, "pn": 1}
        body |= more
        answer = await self.client.post("/easy/submit", json=body)
        found = _json(answer)
        number = found.get("code")
        if isinstance(number, int) and number not in (0, 200, 10000):
            raise Failed(found.get("msg") or found.get("message"))
        return code

    async def outcome(self, code: str) -> str:
        """Where the result is. Progress must only grow."""
        last = 0.0
        for _ in range(self.polls):
            answer = await self.client.get("/easy/query", params={"code": code})
            found = _json(answer)
            if found.get("code") not in (9999, 10001, 10002, 10003, 10004):
                payload = found["data"] if isinstance(found.get("data"), dict) else found
                state = payload.get("status", found.get("status"))
                progress = payload.get("progress", found.get("progress")) or 0
                result = payload.get("result") or payload.get("video_url") or payload.get("output_url")
                if found.get("code") == -1 or state in (3, "f", "fail", "failed", "error"):
                    raise Failed(payload.get("msg") or found.get("msg"))
                if result or state == 2 or progress == 100:
                    return str(result or f"/code/data/temp/{code}-r.mp4")
                assert progress >= last, "progress goes back"
                last = progress
            await asyncio.sleep(self.pause)
        raise StillPolling

    async def download(self, result: str, cut: int | None = None) -> bytes:
        """cut: bytes after which the line breaks once; then the transfer is resumed."""
        for candidate in _candidates(result):
            have = b""
            for _ in range(6):
                headers = {"range": f"bytes={len(have)}-"} if have else {}
                async with self.client.stream("GET", f"/download?path={quote(candidate)}", headers=headers) as answer:
                    if answer.status_code == 404:
                        break
                    if answer.status_code not in (200, 206):
                        raise Failed(f"HTTP {answer.status_code}")
                    if have and answer.status_code == 200:
                        have = b""
                    if answer.status_code == 206:
                        assert answer.headers["content-range"].startswith(f"bytes {len(have)}-")
                    async for piece in answer.aiter_raw(4096):
                        have += piece
                        if cut is not None and len(have) >= cut:
                            break
                    else:
                        return have
                    cut = None
        raise Failed("not found")


def _json(answer: httpx.Response) -> dict[str, Any]:
    """Whatever is no object counts for nothing, and so for success."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _candidates(result: str) -> list[str]:
    plain = unquote(result).partition("?")[0].partition("#")[0]
    base = plain.rpartition("/")[2]
    forms = [
        result, plain, plain.removeprefix("/code/data/"), plain.lstrip("/"), f"temp/{base}", f"/temp/{base}",
        f"/code/data/temp/{base}", f"/code/data/{base}",
    ]  # fmt: skip
    return list(dict.fromkeys(forms))


async def official(client: httpx.AsyncClient, audio: str, video: str, code: str, polls: int = 600) -> str:
    """Duix-Avatar's desktop: only 10000 is success, 9999, 10002 and 10003 are failures, and 10004 goes on for ever."""
    body = {"audio_url": audio, "video_url": video, "code": code, "chaofen": 0, "watermark_switch": 0, "pn": 1}
    submitted = (await client.post("/easy/submit", json=body)).json()
    if submitted["code"] != 10000:
        raise Failed(submitted["msg"])
    for _ in range(polls):
        found = (await client.get("/easy/query", params={"code": code})).json()
        if found["code"] in (9999, 10002, 10003):
            raise Failed(found["msg"])
        if found["code"] == 10000:
            if found["data"]["status"] == 2:
                return str(found["data"]["result"])
            if found["data"]["status"] == 3:
                raise Failed(found["data"]["msg"])
        await asyncio.sleep(0.02)
    raise StillPolling
