"""CosyVoice's gRPC door: upstream's one call, and health, in front of one source of speech.

Beside HTTP, for clients that speak it already. Its messages know less than our forms: no speed, no seed, no registered
speakers, no instruction with a recording. A failure is a status: INVALID_ARGUMENT for what the caller did wrong;
RESOURCE_EXHAUSTED and UNAVAILABLE, with `retry-after` in the metadata, for what may go well later; else INTERNAL.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from anyio import to_thread
from grpc import StatusCode

from engines.tts import form, prompt
from engines.tts.job import Job, Malformed, Prompt
from engines.tts.source import Source, Speech
from engines.workers.pool import Busy
from gateway.wire import cosyvoice, engine_health, wav
from gateway.wire import cosyvoice_grpc as wire

log = logging.getLogger(__name__)

_LARGEST = 8 * 2**20
"""Bytes of a request; a prompt of 30 s is one million."""
_WRITE = 64 * 1024
"""Bytes of audio in one message: clients take 4 MiB if nobody told them otherwise, and a sentence may be longer."""
_GRACE = 0.5
"""Seconds that running calls may take at the end, as over HTTP."""
_RETRY_AFTER = "1"

Context = grpc.aio.ServicerContext[bytes, bytes]


@asynccontextmanager
async def serve(source: Source, host: str, port: int) -> AsyncIterator[int]:
    """Serves while the block lasts; gives the port, which is another one where `port` is 0. Raises RuntimeError where
    it cannot be had."""
    options = (
        ("grpc.so_reuseport", 0),  # else two engines on one port would share its clients, and nobody be told
        ("grpc.max_receive_message_length", _LARGEST),
        ("grpc.http2.bdp_probe", 0),
    )
    server = grpc.aio.server(options=options)
    door = _Door(source)
    calls: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        wire.INFERENCE: grpc.unary_stream_rpc_method_handler(door.inference),
        wire.HEALTH: grpc.unary_unary_rpc_method_handler(door.health),
    }
    for path, handler in calls.items():
        _, service, call = path.split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {call: handler}),))
    bound = server.add_insecure_port(f"{f'[{host}]' if ':' in host else host}:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(_GRACE)
        await door.left()


class _Door:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._calls: set[asyncio.Task[object]] = set()

    async def inference(self, request: bytes, context: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            job = await _job(request, self._source.speakers)
            async with self._source.speaking(job) as speech:
                await _answer(speech, context)
        except grpc.aio.InternalError:  # a write that waited for the reader, who left
            log.debug("the client left")
        except Exception as exc:
            await _refuse(exc, context)
        finally:
            self._calls.discard(task)

    async def left(self) -> None:
        """Waits for calls that are cancelled already, and have the source to leave."""
        if self._calls:
            await asyncio.wait(self._calls)

    async def health(self, _request: bytes, context: Context) -> bytes:
        report = self._source.report
        _, body = engine_health.encode(report)
        await context.send_initial_metadata(((wire.REPORT_METADATA, body),))
        return wire.encode_health(report.state == "ready")


async def _job(request: bytes, speakers: tuple[str, ...]) -> Job:
    """Raises Refused."""
    try:
        asked = wire.decode_request(request)
    except ValueError as exc:
        raise Malformed(f"the request cannot be read: {exc}") from None
    if asked is None:
        raise Malformed("the request asks for nothing")
    form.check_text(asked.tts_text)
    match asked:
        case wire.Sft(name, text):
            form.check_speaker(name, speakers)
            return Job(cosyvoice.SFT, text, speaker=name)
        case wire.Instruct(text, name, how):
            form.check_speaker(name, speakers)
            form.check_words(how)
            return Job(cosyvoice.INSTRUCT, text, speaker=name, instruction=how)
        case wire.ZeroShot(text, words, pcm):
            form.check_words(words)
            return Job(cosyvoice.ZERO_SHOT, text, prompt=await _prompt(pcm), prompt_text=words)
        case wire.CrossLingual(text, pcm):
            return Job(cosyvoice.CROSS_LINGUAL, text, prompt=await _prompt(pcm))


async def _prompt(pcm: bytes) -> Prompt:
    """Raises Malformed."""
    if len(pcm) % 2:
        raise Malformed("prompt_audio ends in the middle of a sample; it is 16-bit mono PCM at 16000 Hz")
    file = wav.header(wire.PROMPT_RATE, len(pcm) // 2) + pcm
    return await to_thread.run_sync(prompt.read, file)


async def _answer(speech: Speech, context: Context) -> None:
    await context.send_initial_metadata(((cosyvoice.SAMPLE_RATE_HEADER, str(speech.sample_rate)),))
    silent = True
    async for piece in speech:
        silent = False
        for at in range(0, len(piece), _WRITE):
            await context.write(wire.encode_response(piece[at : at + _WRITE]))
    if silent:
        raise RuntimeError("the backend made no sound")


async def _refuse(exc: Exception, context: Context) -> None:
    """Ends the call. What has a status, as of HTTP, was raised to be read by the caller."""
    status: int | None = getattr(exc, "status", None)
    if status is None:
        log.error("synthesis failed", exc_info=exc)
        await context.abort(StatusCode.INTERNAL, f"synthesis failed: {type(exc).__name__}")
    elif status == 503:
        code = StatusCode.RESOURCE_EXHAUSTED if isinstance(exc, Busy) else StatusCode.UNAVAILABLE
        await context.abort(code, str(exc), (("retry-after", _RETRY_AFTER),))
    else:
        await context.abort(StatusCode.INVALID_ARGUMENT if status < 500 else StatusCode.INTERNAL, str(exc))
