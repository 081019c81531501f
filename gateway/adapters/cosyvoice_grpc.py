"""Synthesis by an engine that speaks CosyVoice's gRPC protocol: upstream's server, or ours.

A preset goes out as sft, or as instruct with an instruction; a reference as zero_shot where its words are known and as
cross_lingual where they are not. What the protocol has no words for is refused here, and never left out in silence.

Rule 1: an engine is asked only over a connection that stands, so that a failure tells whether it may have been asked.
Rule 2: a call that ends because its channel is closed looks to asyncio like a cancellation of our own task; it is told
apart.
"""

import asyncio
from types import TracebackType
from urllib.parse import urlsplit

import grpc
from grpc import ChannelConnectivity, StatusCode

from gateway.adapters.connections import Client
from gateway.errors import (
    BadRequest,
    EngineBroke,
    EngineBusy,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    EngineUnreachable,
    GatewayError,
    ShuttingDown,
)
from gateway.events import Audio
from gateway.settings import Settings
from gateway.verbs import EngineHealth, Preset, Reference, Speak, Speaker, State
from gateway.wire import cosyvoice, engine_health
from gateway.wire import cosyvoice_grpc as wire

_LARGEST = 64 * 1024 * 1024
"""Bytes of one message: upstream sends a whole sentence in one, 4 MiB of which are a minute and a half."""
_SAID = 500
_HEALTH_SECONDS = 2.0
_MAX_WAIT = 3600
_OPTIONS = (
    ("grpc.max_receive_message_length", _LARGEST),
    ("grpc.max_send_message_length", _LARGEST),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    # What is read ahead of the consumer. The probe would let it grow to 12 MB, over loopback.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 * 1024),
    # An engine that is back is found within about a second, and so is one that has another address now.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
)


class CosyVoiceGrpc:
    def __init__(self, url: str, http: Client, settings: Settings) -> None:
        """url: grpc://host:port. `http` closes the channel with its own connections."""
        self.url = url
        self._settings = settings
        connecting = ("grpc.min_reconnect_backoff_ms", round(1000 * settings.engine_connect_timeout))
        self._channel = grpc.aio.insecure_channel(urlsplit(url).netloc, (*_OPTIONS, connecting))
        self._infer: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(wire.INFERENCE)
        self._check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(wire.HEALTH)
        http.owns(self._channel.close)

    def session(self, job: Speak) -> "_Session":
        return _Session(self, job)

    async def call(self, request: wire.Request) -> "_Call":
        """Raises EngineUnreachable and ShuttingDown."""
        await self._connected()
        call = self._infer(wire.encode_request(request), timeout=self._settings.engine_total_timeout)
        return _Call(call, self._settings)

    async def health(self) -> EngineHealth:
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                await self._connected()
                call = self._check(b"")
                try:
                    code, told = await call.code(), await call.initial_metadata()
                finally:
                    call.cancel()
        except TimeoutError:
            return EngineHealth(State.DOWN, reason=f"no answer within {_HEALTH_SECONDS:g} s")
        except (EngineError, ShuttingDown) as exc:
            return EngineHealth(State.DOWN, reason=str(exc))
        if code in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED):
            return EngineHealth(State.DOWN, reason="the engine closed the connection without an answer")
        report = engine_health.decode(200, _value(told, wire.REPORT_METADATA))
        return EngineHealth(State(report.state), report.model, report.device, report.reason, report.progress)

    async def _connected(self) -> None:
        try:
            async with asyncio.timeout(self._settings.engine_connect_timeout):
                while (state := self._channel.get_state(try_to_connect=True)) is not ChannelConnectivity.READY:
                    if state is ChannelConnectivity.TRANSIENT_FAILURE:
                        raise EngineUnreachable("the engine cannot be reached")
                    await self._channel.wait_for_state_change(state)
        except TimeoutError:
            limit = self._settings.engine_connect_timeout
            raise EngineUnreachable(f"the engine does not accept a connection within {limit:g} s") from None
        except grpc.aio.UsageError:
            raise _shutting_down() from None


def _request(job: Speak) -> wire.Request:
    """Raises BadRequest for what the protocol cannot say."""
    if job.speed != 1.0:
        raise _inexpressible("a speed")
    text = cosyvoice.without_control(job.text)
    instruction = cosyvoice.without_control(job.instruction)
    match job.voice:
        case Preset(name) if instruction:
            return wire.Instruct(text, name, instruction)
        case Preset(name):
            return wire.Sft(name, cosyvoice.tagged(text, job.language))
        case Reference() if instruction:
            raise _inexpressible("an instruction with a voice of one's own")
        case Reference(sample_rate=rate) if rate != wire.PROMPT_RATE:
            raise _inexpressible(f"a reference of {rate} Hz")
        case Reference(pcm, text=words) if words:
            return wire.ZeroShot(text, cosyvoice.without_control(words), pcm)
        case Reference(pcm):
            return wire.CrossLingual(cosyvoice.tagged(text, job.language), pcm)


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the connections to the engines are closed")


def _inexpressible(what: str) -> BadRequest:
    return BadRequest(f"the engine's protocol, CosyVoice's gRPC, has no words for {what}", code="unsupported_by_engine")


class _Session:
    """The scope of one synthesis."""

    def __init__(self, engine: CosyVoiceGrpc, job: Speak) -> None:
        self._engine, self._job = engine, job

    async def __aenter__(self) -> "_Pieces":
        self._call = await self._engine.call(_request(self._job))
        try:
            first = await self._call.read()
            if first is None:
                raise EngineBroke("the engine gave no audio for this text")
            return _Pieces(self._call, first, await self._call.rate())
        except BaseException:
            self._call.leave()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.leave()


class _Call:
    """One call at the engine, whose failures are ours."""

    def __init__(self, call: "grpc.aio.UnaryStreamCall[bytes, bytes]", settings: Settings) -> None:
        self._call, self._settings = call, settings
        self._begun = False

    async def read(self) -> bytes | None:
        """The PCM of the next message; None after the last one. Raises EngineError, BadRequest."""
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        try:
            async with asyncio.timeout(self._settings.engine_idle_timeout):
                message = await self._call.read()
        except TimeoutError:
            raise EngineTimeout(f"the engine was silent for {self._settings.engine_idle_timeout:g} s") from None
        except grpc.aio.AioRpcError as exc:
            raise self._meant(exc) from None
        except asyncio.CancelledError:
            if task.cancelling() > cancelling:
                raise
            raise _shutting_down() from None
        if not isinstance(message, bytes):  # the end
            return None
        self._begun = True
        try:
            return wire.decode_response(message)
        except ValueError as exc:
            raise EngineBroke(f"the engine's answer is not CosyVoice's: {exc}") from None

    async def rate(self) -> int:
        """What the engine states, or the setting for those that state none. Raises EngineBroke."""
        stated = _value(await self._call.initial_metadata(), cosyvoice.SAMPLE_RATE_HEADER)
        if stated:
            try:
                return cosyvoice.read_rate(stated)
            except ValueError as exc:
                raise EngineBroke(str(exc)) from None
        if self._settings.speak_sample_rate is None:
            raise EngineBroke("the engine does not state its sample rate; set VOXGATE_SPEAK_SAMPLE_RATE")
        return self._settings.speak_sample_rate

    def leave(self) -> None:
        self._call.cancel()

    def _meant(self, exc: grpc.aio.AioRpcError) -> GatewayError:
        """What an engine's refusal means, or the loss of its connection. Its words about a caller's mistake are the
        caller's to read."""
        code, says = exc.code(), (exc.details() or "")[:_SAID]
        if code is StatusCode.DEADLINE_EXCEEDED:
            return EngineTimeout(f"the engine took longer than {self._settings.engine_total_timeout:g} s")
        if self._begun:
            return EngineBroke(f"the engine broke off its answer ({code.name}: {says})", quotes=True)
        if code is StatusCode.INVALID_ARGUMENT and says:
            return BadRequest(says, code="engine_refused", quotes=True)
        wait = _value(exc.trailing_metadata(), "retry-after")
        if code is StatusCode.RESOURCE_EXHAUSTED or (code is StatusCode.UNAVAILABLE and wait):
            seconds = min(int(wait[:9]), _MAX_WAIT) if wait.isdigit() else EngineBusy.retry_after
            return EngineBusy(f"the engine cannot take it now: {says}", retry_after=seconds, quotes=True)
        if code is StatusCode.UNAVAILABLE:
            return EngineUnavailable("the engine closed the connection without an answer")
        return EngineBroke(f"the engine answered {code.name}: {says}", quotes=True)


class _Pieces:
    """Whole samples as they arrive; a message may end between the two bytes of one."""

    def __init__(self, call: _Call, first: bytes, rate: int) -> None:
        self._call, self._rate = call, rate
        self._first: bytes | None = first
        self._half = b""
        self._silent = True

    def __aiter__(self) -> "_Pieces":
        return self

    async def __anext__(self) -> Audio:
        while (message := await self._message()) is not None:
            piece = self._half + message
            whole = len(piece) & ~1
            self._half = piece[whole:]
            if whole:
                self._silent = False
                return Audio(piece[:whole], self._rate)
        if self._half:
            raise EngineBroke("the engine ended in the middle of a sample")
        if self._silent:
            raise EngineBroke("the engine gave no audio for this text")
        raise StopAsyncIteration

    async def _message(self) -> bytes | None:
        first, self._first = self._first, None
        return await self._call.read() if first is None else first


def _value(metadata: "grpc.aio.Metadata | None", name: str) -> bytes:
    """Empty where there is none."""
    found = metadata.get(name, b"") if metadata is not None else b""
    return found.encode() if isinstance(found, str) else found


_: type[Speaker] = CosyVoiceGrpc
