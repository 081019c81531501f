"""OpenAI's `POST /v1/audio/transcriptions` and `/v1/audio/translations`: a recording → text, with times where wanted.

Text and subtitles leave as they are made, and so do events; JSON is one answer, which begins with blanks where it takes
long.
"""

from pathlib import Path

from gateway import cleanup, passages, stream, upload
from gateway.errors import AudioRejected, BadRequest, ClientGone, GatewayError
from gateway.exchange import Exchange
from gateway.passages import Portion
from gateway.pieces import Manner
from gateway.state import State
from gateway.surfaces.openai_transcription_replies import Reply, reply_for
from gateway.verbs import Recording, Transcribe
from gateway.wire import openai_transcription_form as form
from gateway.wire.openai_transcription_form import Asked


async def transcribe(http: Exchange) -> None:
    """POST /v1/audio/transcriptions: upload → normalise → admit → engine, piece by piece → text."""
    await _answer(http, translate=False)


async def translate(http: Exchange) -> None:
    """POST /v1/audio/translations: the same, in English."""
    await _answer(http, translate=True)


# Private


async def _answer(http: Exchange, *, translate: bool) -> None:
    state: State = http.state
    settings = state["settings"]
    async with cleanup.workspace(state["scratch"]) as work:
        saved = await upload.save(
            http,
            into=work,
            files=(form.FILE,),
            limit=settings.upload_max_bytes,
            idle=settings.upload_idle_timeout,
            lists=form.LISTS,
            dropped=form.DROPPED,
        )
        asked = _asked(saved, translate)
        if form.FILE not in saved.files:
            raise BadRequest("the file to transcribe is missing", code="missing_required_parameter", param=form.FILE)
        async with http.until_gone(), stream.Reader(http, settings.client_idle_timeout) as reader:
            reply = reply_for(asked, translate, http, reader)
            async with reply.waiting(settings.answer_pulse):
                audio = await _decoded(state, saved.files[form.FILE].path, work)
                job = Transcribe(audio, asked.language, asked.hotwords, words=asked.timed, translate=translate)
                await _recognise(state, asked, job, work, reply)
            await reply.end(audio.seconds)


def _asked(saved: upload.Form, translate: bool) -> Asked:
    try:
        return form.read(saved.fields, saved.lists, translate=translate)
    except form.WrongField as exc:
        raise BadRequest(str(exc), code="invalid_value", param=exc.param) from None


async def _decoded(state: State, source: Path, work: Path) -> Recording:
    """OpenAI answers a file that cannot be used with 400."""
    try:
        async with state["decoding"].enter():
            longest = state["settings"].transcribe_max_seconds
            return await state["decoder"].to_wav(source, work / "audio.wav", max_seconds=longest)
    except AudioRejected as exc:
        raise BadRequest(str(exc), code=exc.code, param=form.FILE) from None


async def _recognise(state: State, asked: Asked, job: Transcribe, work: Path, reply: Reply) -> None:
    portion, manner = _portion(asked), _manner(asked)
    try:
        async with passages.recognised(
            state["transcribe"], state["settings"], work, job, portion=portion, manner=manner
        ) as found:
            async for passage in found:
                await reply.take(passage)
    except ClientGone:
        raise
    except Exception as exc:
        await reply.failed(exc if isinstance(exc, GatewayError) else GatewayError())
        raise


def _portion(asked: Asked) -> Portion:
    if asked.stream or asked.vad is not None:
        return Portion.UTTERANCE
    return Portion.TIMED if asked.timed else Portion.LARGE


def _manner(asked: Asked) -> Manner:
    vad = asked.vad
    return Manner() if vad is None else Manner(vad.silence, vad.threshold, vad.padding)
