"""POST and GET /rest/v1/tts/async: long texts, synthesised by a job that outlives its client and this process.

Rule 1: what cannot be done is refused when it is submitted; what is accepted ends, and is told to its webhook.
Rule 2: a task is its tenant's; to everybody else it is unknown.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import parse_qs

from pydantic import BaseModel, Field

from gateway import cleanup, links, long_speech, webhooks
from gateway.caller import Right
from gateway.delivery import Wanted
from gateway.errors import BadRequest, CallerError, GatewayError, NotFound
from gateway.exchange import Exchange
from gateway.jobs import Job, Kind, State, Submission
from gateway.narration import Script
from gateway.state import State as Gateway
from gateway.surfaces.downloads import PREFIX
from gateway.surfaces.nls import new_id, reason_of, status_of
from gateway.surfaces.nls_voices import cast
from gateway.text import printable, sayable, speakable, untagged
from gateway.verbs import Reference, Speak
from gateway.wire import nls, nls_tts
from gateway.wire import nls_async as wire

KIND = "nls_tts"
_RATE = 16000
"""Hz, where a client names none."""
_DELIVERY = {State.SUCCEEDED: "DELIVERED", State.FAILED: "FAILED"}


class TtsRequest(BaseModel):
    voice: Annotated[str, Field(min_length=1, max_length=nls_tts.LONGEST_VOICE)]
    text: Annotated[str, Field(min_length=1)]
    sample_rate: int | None = Field(_RATE, description=f"One of {', '.join(map(str, nls_tts.RATES))}.")
    format: str | None = Field("wav", description=f"One of {', '.join(nls_tts.WRITTEN)}.")
    enable_subtitle: bool | None = True
    """Whether the times of sentences are wanted."""
    volume: float | None = Field(50, description="0 to 100.")
    speech_rate: float | None = Field(0, description="-500 to 500.")
    pitch_rate: float | None = Field(0, description="-500 to 500.")
    prompt: Annotated[str | None, Field(max_length=nls_tts.LONGEST_PROMPT)] = None
    """How to say it, for registered voices."""


class Payload(BaseModel):
    tts_request: TtsRequest
    enable_notify: bool | None = False
    notify_url: str | None = None
    """Called with the outcome."""


class Context(BaseModel):
    device_id: Annotated[str | None, Field(max_length=200)] = None
    """Whose registered voices are meant."""


class Header(BaseModel):
    appkey: str | None = None
    token: str | None = None


class AsyncBody(BaseModel):
    payload: Payload
    context: Context | None = None
    header: Header = Header()


def shape(exc: GatewayError) -> bytes:
    return wire.error(new_id(), status_of(exc), reason_of(exc), exc.status)


async def submit(http: Exchange) -> None:
    """POST: checked, stored, answered with its id."""
    state: Gateway = http.state
    settings = state["settings"]
    try:
        ask = await http.json(AsyncBody, limit=settings.text_max_chars * 4 + 65536)
    except CallerError:
        await state["access"].admit("", verb=Right.SPEAK)  # who is nobody is told that, and not what is wrong
        raise
    head = ask.header
    owner = await state["access"].admit(head.token or "", appkey=head.appkey or "", verb=Right.SPEAK)
    order = await _order(state, ask)
    request_id = new_id()
    address = links.base(http, settings) + PREFIX + order["file"]
    payload = order | {"address": address, "request_id": request_id, "key_id": owner.key_id}
    task_id = await state["jobs"].submit(Submission(KIND, payload, owner.tenant))
    await http.answer(200, wire.going_on(request_id, task_id, submitted=True))


async def query(http: Exchange) -> None:
    """GET: how far a task is. Its outcome can be asked for any number of times."""
    state: Gateway = http.state
    asked = parse_qs(http.scope["query_string"].decode("latin-1"))
    task_id, token, appkey = (asked.get(name, [""])[0] for name in ("task_id", "token", "appkey"))
    owner = await state["access"].admit(token, appkey=appkey)
    job = await state["jobs"].get(task_id) if task_id else None
    if job is None or job.kind != KIND or job.tenant != owner.tenant:
        raise BadRequest("there is no such task, or it is forgotten" if task_id else "task_id is missing")
    await http.answer(200, _told(job, new_id(), await _notified(state, job)))


def kind(state: Gateway) -> Kind:
    settings = state["settings"]

    async def work(job: Job) -> dict[str, Any]:
        with state["access"].on_behalf(job.payload["key_id"]):
            return await _synthesise(state, job)

    async def remove(job: Job) -> None:
        await state["downloads"].discard(job.payload["file"])

    return Kind(
        KIND,
        work,
        slots=settings.jobs_slots,
        queue=settings.jobs_queue,
        attempts=settings.jobs_attempts,
        patience=settings.jobs_patience,
        follows=_follows,
        remove=remove,
    )


# Private


async def _order(state: Gateway, ask: AsyncBody) -> dict[str, Any]:
    """What the job is to do. Raises BadRequest, TooLarge, UrlRefused."""
    wish, notify = ask.payload.tts_request, ask.payload.notify_url if ask.payload.enable_notify else None
    if ask.payload.enable_notify and not notify:
        raise BadRequest("payload.notify_url is missing, though enable_notify is true")
    try:
        manner = nls_tts.read_manner({"format": "wav"} | wish.model_dump(exclude_none=True), _RATE)
    except nls.Unusable as exc:
        raise BadRequest(str(exc)) from None
    text = speakable(untagged(wish.text), state["settings"].text_max_chars)
    device_id = (ask.context and ask.context.device_id) or ""
    try:
        await cast(state, manner.voice, device_id)
    except NotFound as exc:
        raise BadRequest(str(exc), code=exc.code) from None
    if notify:
        await state["fetcher"].check(notify)
    file = state["downloads"].reserve(nls_tts.WRITTEN[manner.format])
    subtitle = wish.enable_subtitle is not False
    return {
        "text": text,
        "manner": asdict(manner) | {"subtitle": subtitle},
        "device_id": device_id,
        "file": file,
        "notify_url": notify,
    }


async def _synthesise(state: Gateway, job: Job) -> dict[str, Any]:
    order, manner = job.payload, nls_tts.Manner(**job.payload["manner"])
    voice = await cast(state, manner.voice, order["device_id"])
    wish = Speak("", voice, speed=manner.speed, instruction=manner.prompt if isinstance(voice, Reference) else "")
    form = nls_tts.WRITTEN[manner.format]
    wanted = Wanted(form, manner.sample_rate, manner.gain, manner.pitch)
    async with cleanup.workspace(state["scratch"]) as work:
        ends = await long_speech.write(
            _sentences(order["text"]), state["speak"], wish, state["encoders"], wanted, work / "speech"
        )
        await state["downloads"].fill(order["file"], work / "speech")
    if not manner.subtitle:
        return {"sentences": None}
    return {"sentences": [wire.sentence(one.text, one.start, one.end) for one in ends]}


async def _sentences(text: str) -> AsyncIterator[str]:
    async for sentence in Script(text):
        spoken = untagged(printable(sentence)).strip()
        if sayable(spoken):
            yield spoken


def _follows(job: Job) -> Sequence[Submission]:
    url = job.payload["notify_url"]
    if not url:
        return ()
    if job.state is State.SUCCEEDED:
        return [webhooks.call(url, _told(job, job.payload["request_id"], None), job)]
    reason = job.error or "cancelled"
    return [webhooks.call(url, wire.told_failure(job.payload["request_id"], job.id, reason, url), job)]


async def _notified(state: Gateway, job: Job) -> str | None:
    """What became of the webhook; None where none was wanted."""
    if not job.payload["notify_url"] or not job.state.ended:
        return None
    told = await state["jobs"].find(webhooks.KIND, job.tenant, job.id)
    return "PENDING" if told is None else _DELIVERY.get(told.state, "PENDING")


def _told(job: Job, request_id: str, notified: str | None) -> bytes:
    if job.state is State.SUCCEEDED:
        order = job.payload
        return wire.succeeded(
            request_id, job.id, order["address"], job.result["sentences"], order["notify_url"], notified
        )
    if job.state.ended:
        return wire.failed(request_id, job.id, job.error or "cancelled", notified)
    return wire.going_on(request_id, job.id)
