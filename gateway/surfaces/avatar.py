"""The digital human, for the desktop clients configured with 8383 and for Duix-Avatar's own: upload, submit, query,
download; and, beyond them, cancelling and a list.

These clients look at no HTTP status of a submission or a query but 503, and take every answer without a number for
`code` as success; so whatever else goes wrong is 200 with a code of Duix's, and words in `msg`. A job that nobody knows
is answered as one that has failed: both kinds of clients end their polling there, and at nothing else.
"""

import asyncio
import re
from functools import wraps
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs

from gateway import cleanup, links, upload
from gateway.animation import Animations
from gateway.animation_plan import Status, Wanted
from gateway.errors import BadRequest, CallerError, EngineUnavailable, GatewayError, NotFound
from gateway.exchange import Exchange, Handler, compact
from gateway.jobs import State as JobState
from gateway.probe import MediaRejected
from gateway.ranges import part_of
from gateway.shelf import Lying
from gateway.state import State
from gateway.stream import Reader
from gateway.wire import duix
from gateway.wire.duix import Code, Job

UPLOAD, DOWNLOAD, JOBS, CANCEL = "/upload", "/download", "/v1/avatar/jobs", "/easy/"
INSIDE = "/code/data/"
"""Where its engine's files are, for clients that were written against the engine."""
RESULT = re.compile(r"/(?:code/data/)?(?:temp/)?[A-Za-z0-9_-]{32}(?:-r)?\.mp4")
"""A path that may be that of a video."""
_BODY_BYTES = 64 * 1024
_FIELDS = ("video", "audio")
_LONGEST_PATH = 2000
_READ_BYTES = 1024 * 1024
_TYPES = {".mp4": b"video/mp4", ".wav": b"audio/wav", ".mp3": b"audio/mpeg", ".mov": b"video/quicktime"}


def owns(path: str) -> bool:
    """Whether its errors are this family's."""
    return path in (UPLOAD, DOWNLOAD, JOBS) or path.startswith(CANCEL) or RESULT.fullmatch(path) is not None


def cancels(path: str) -> bool:
    return path.startswith(CANCEL) and path not in (CANCEL, duix.SUBMIT, duix.QUERY)


def fetches(path: str) -> bool:
    return path == DOWNLOAD or RESULT.fullmatch(path) is not None


def shape(exc: GatewayError) -> bytes:
    return duix.answer(_code(exc), str(exc), success=False)


def _told(handler: Handler) -> Handler:
    """What goes wrong is said in the body of a 200, but where clients wait and ask again."""

    @wraps(handler)
    async def told(http: Exchange) -> None:
        try:
            await handler(http)
        except GatewayError as exc:
            if http.started or exc.status in (401, 403, 429, 499, 503):
                raise
            await http.answer(200, shape(exc))

    return told


async def receive(http: Exchange) -> None:
    """POST /upload: one file, in the field video or audio, onto the shelf."""
    state: State = http.state
    settings, animations = state["settings"], _animations(http)
    async with cleanup.workspace(animations.incoming) as work:
        form = await upload.save(
            http,
            into=work,
            files=_FIELDS,
            limit=settings.avatar_upload_max_bytes,
            idle=settings.upload_idle_timeout,
            digests=False,
        )
        if len(form.files) != 1:
            raise BadRequest("send one file, in the field video or audio", code="no_file")
        ((name, saved),) = form.files.items()
        if not saved.size:
            raise MediaRejected("the file is empty", code="media_empty")
        kept = await animations.uploads.put(saved.path, Path(saved.filename).suffix)
    path = INSIDE + kept
    body = {
        "code": int(Code.OK),
        "path": path,
        f"{name}_path": path,
        "url": f"{links.base(http, settings)}{DOWNLOAD}?path={path}",
    }
    await http.answer(200, compact(body))


@_told
async def submit(http: Exchange) -> None:
    """POST /easy/submit: probe → job."""
    state: State = http.state
    animations = _animations(http)
    try:
        asked = duix.read_submission(await http.whole(_BODY_BYTES))
    except ValueError as exc:
        raise BadRequest(str(exc)) from None
    async with http.until_gone():
        audio, video = (
            await _input(animations, asked.audio, "audio_url"),
            await _input(animations, asked.video, "video_url"),
        )
        shared = audio.parent == video.parent == animations.temp
        wanted = Wanted(
            asked.code,
            audio,
            video,
            asked.ping_pong,
            asked.super_resolution,
            asked.watermark,
            beside=f"{asked.code}-r.mp4" if shared and re.fullmatch(r"[A-Za-z0-9_-]+", asked.code) else "",
            notify=asked.notify,
            base=links.base(http, state["settings"]),
        )
        if asked.notify:
            await state["fetcher"].check(asked.notify)
        await animations.submit(wanted)
    await http.answer(200, duix.accepted())


@_told
async def query(http: Exchange) -> None:
    """GET /easy/query?code=: how the job is. May be asked any number of times."""
    code = _asked(http, "code")
    if code == duix.HEALTH_CODE:
        await http.answer(200, duix.answer(Code.OK, "ok", success=True))
        return
    try:
        found = await _animations(http).status(code)
    except NotFound as exc:
        await http.answer(200, duix.told(Job(duix.State.FAILED, text=str(exc))))
        return
    await http.answer(200, _progress(found))


@_told
async def cancel(http: Exchange) -> None:
    """DELETE /easy/{code}."""
    code = http.scope["path"].removeprefix(CANCEL)
    if not await _animations(http).cancel(code):
        raise BadRequest("the job has ended already", code="job_ended")
    await http.answer(200, duix.accepted())


async def listed(http: Exchange) -> None:
    """GET /v1/avatar/jobs: the newest hundred, the newest first."""
    found = await _animations(http).listed()
    await http.answer(200, compact({"data": [_shown(one) for one in found]}))


async def download(http: Exchange) -> None:
    """GET and HEAD /download?path=, and of a video's own path: in any of the forms that clients try."""
    state: State = http.state
    path = http.scope["path"]
    asked = _asked(http, "path") if path == DOWNLOAD else path
    if not asked:
        raise BadRequest("path is missing")
    lying = await _lying(_animations(http), asked)
    part = part_of(http, lying.size, lying.modified)
    kind = _TYPES.get(lying.path.suffix, b"application/octet-stream")
    if part.status == 416:
        await http.answer(416, b"", kind, part.headers)
        return
    async with http.until_gone(), Reader(http, state["settings"].client_idle_timeout) as reader:
        with await asyncio.to_thread(lying.path.open, "rb", 0) as file:
            file.seek(part.start)
            await reader.start(part.status, kind, part.headers)
            left = part.end - part.start if http.scope["method"] != "HEAD" else 0
            while left > 0 and (data := await asyncio.to_thread(file.read, min(left, _READ_BYTES))):
                await reader.write(data)
                left -= len(data)
            if left <= 0:
                await reader.end()


# Private


def _animations(http: Exchange) -> Animations:
    state: State = http.state
    if (found := state["animations"]) is None:
        raise EngineUnavailable("there is no digital human here: the setting animate_urls names no engine")
    return found


def _asked(http: Exchange, name: str) -> str:
    found = parse_qs(http.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    value: str = found.get(name, [""])[0]
    return value[:_LONGEST_PATH]


async def _lying(animations: Animations, asked: str) -> Lying:
    """A file of the shelves, by whatever a client makes of its path. Raises NotFound."""
    name = PurePosixPath(asked.partition("?")[0]).name
    for shelf in (animations.results, animations.uploads):
        for known in (name, name.removesuffix("-r.mp4") + ".mp4"):
            try:
                return await shelf.find(known)
            except NotFound:
                continue
    raise NotFound("there is no such file, or it has expired", code="file_not_found")


async def _input(animations: Animations, asked: str, field: str) -> Path:
    """A file that was uploaded, or one that lies in the folder of clients that share it. Raises BadRequest."""
    if "://" in asked:
        raise BadRequest(f"{field}: nothing is fetched from other places; upload the file", code="url_refused")
    try:
        return (await animations.uploads.find(PurePosixPath(asked).name)).path
    except NotFound:
        shared = await asyncio.to_thread(animations.shared, asked)
    if shared is None:
        raise BadRequest(f"{field}: there is no such file; upload it first", code="file_not_found")
    return shared


def _progress(found: Status) -> bytes:
    facts = found.job.result
    if found.job.state is JobState.SUCCEEDED:
        more = {name: facts[name] for name in ("width", "height") if name in facts}
        result = f"/{found.beside or found.result}"
        return duix.told(Job(duix.State.DONE, 100, result, "done"), video_duration=facts.get("seconds", 0), **more)
    if found.job.state.ended:
        return duix.told(Job(duix.State.FAILED, found.percent, text=found.job.error or "cancelled"))
    text = f"about {found.seconds:.0f} s more"
    if found.place:
        text = f"waiting, place {found.place}, {text}"
    running = Job(duix.State.RUNNING, min(99, found.percent), text=text)
    return duix.told(running, position=found.place, estimated_seconds=round(found.seconds))


def _shown(found: Status) -> dict[str, object]:
    job = found.job
    return {
        "code": job.key,
        "status": str(job.state),
        "progress": round(found.percent),
        "position": found.place,
        "estimated_seconds": round(found.seconds),
        "result": found.result and f"/{found.result}",
        "error": job.error,
        "created_at": job.created_at.isoformat(),
        "ended_at": job.ended_at and job.ended_at.isoformat(),
    }


def _code(exc: GatewayError) -> Code:
    return Code.PARAMETER if isinstance(exc, CallerError) else Code.SYSTEM
