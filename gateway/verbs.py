"""The verbs: what a surface may ask, and what an adapter must offer.

A verb is a typed request; an engine turns it into a session, an iterator of events (gateway/events.py). Surfaces
know requests and events, adapters know requests, events and one engine's wire; neither knows the other.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from gateway.events import Animated, Audio, Conversed, Opus, ReplyAudio, Transcript
from gateway.memory import Message
from gateway.wire.engine_health import Progress


@dataclass(frozen=True, slots=True)
class Preset:
    """A voice that the engine itself knows by name, such as CosyVoice's 中文女."""

    name: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A voice given by a recording of it."""

    pcm: bytes
    """Mono s16le, 1 to 30 s."""
    sample_rate: int
    """Hz; 16000 for everything that normalise.py made."""
    digest: str
    """Names the content, so that an engine may keep what it derived from it."""
    text: str = ""
    """What is said in the recording; empty where nobody knows."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A whole recording on disk: a WAV file, mono s16le. It lives as long as the workspace that holds it."""

    path: Path
    sample_rate: int
    """Hz."""
    frames: int

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


@dataclass(frozen=True, slots=True)
class Speak:
    """text → audio."""

    text: str
    voice: Preset | Reference
    language: str = ""
    """ISO 639 code; empty lets the engine tell from the text."""
    speed: float = 1.0
    """1.0 is the voice's own pace, 2.0 twice as fast."""
    instruction: str = ""
    """How to say it, in words, for engines that take such."""


@dataclass(frozen=True, slots=True)
class Live:
    """Audio that is still arriving. Its end is the end of `pieces`: then whatever was not yet recognised is."""

    pieces: AsyncIterator[Audio]
    """All of the same rate."""
    sample_rate: int
    """Hz."""


@dataclass(frozen=True, slots=True)
class Transcribe:
    """audio → text."""

    audio: Recording | Live
    language: str = ""
    """As the caller wrote it ("中文", "en", …); empty leaves it to the engine."""
    hotwords: tuple[str, ...] = ()
    partials: bool = False
    """Whether Transcripts that are not final are wanted, from engines that have them."""
    itn: bool = True
    """Whether numbers and dates are written in figures, by engines that can (inverse text normalisation)."""
    punctuation: bool = True
    """Whether sentences are punctuated, by engines that can."""
    words: bool = False
    """Whether the times of words are wanted, from engines that know them."""
    translate: bool = False
    """Whether the text is wanted in English, whatever is spoken; engines that cannot refuse what is not English already
    (BadRequest, code "translation_unsupported")."""


@dataclass(frozen=True, slots=True)
class Begin:
    """The user begins to speak. A reply that runs is not wanted any more: no more of it is yielded, and its engine
    stops. What was said since the last End and before this is dropped; what follows is kept, whatever the engine is
    busy with."""

    interrupts: bool = True
    """False: replies go on; only what was said is dropped."""


@dataclass(frozen=True, slots=True)
class End:
    """The user has finished; the next turn is what was said since the last Begin, End or Write."""

    reply: bool = True
    """False: only its words are wanted, as a Transcript, and then the turn is done. It waits for no other turn, none
    waits for it, and no Begin or Cancel ends it. For engines with `Converser.follows`."""


@dataclass(frozen=True, slots=True)
class Write:
    """A turn that is written, not spoken."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Cancel:
    """The reply that runs or waits is not wanted any more."""


@dataclass(frozen=True, slots=True)
class Change:
    """How replies are wanted from the next turn on; None leaves it as it is."""

    persona: str | None = field(default=None, repr=False)
    """The system prompt; empty is the engine's own."""
    voice: Preset | Reference | None = None
    language: str | None = None
    speech: bool | None = None
    """Whether replies are spoken, or text only."""
    tools: tuple[dict[str, Any], ...] | None = None
    """As OpenAI writes them: {"type": "function", "function": {"name", "description", "parameters"}}."""

    speed: float | None = None
    """1.0 is the voice's own pace, 2.0 twice as fast."""
    tool_choice: str | None = None
    """"required", or the name of the one function to call; empty leaves it to the engine."""

    def then(self, newer: "Change") -> "Change":
        """Both; the newer one's wishes before these."""
        given = {one.name: getattr(newer, one.name) for one in fields(newer)}
        return replace(self, **{name: wish for name, wish in given.items() if wish is not None})


@dataclass(frozen=True, slots=True)
class Reply:
    """A turn of its own: a reply to exactly these messages is wanted, whatever was said before, and the session
    remembers none of it. For clients that keep and edit their conversation, and engines with `Converser.follows`."""

    messages: tuple[Message, ...]
    """Oldest first."""
    wishes: Change = Change()
    """Of this one reply, before the session's."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a ToolCall gave. When all of a turn's calls have theirs, the engine goes on: that is a turn of its own."""

    id: str
    output: str = field(repr=False)


Said = Audio | Opus | Begin | End | Write | Cancel | Change | ToolResult | Reply
"""What goes into a conversation. Turns are counted from 1: each End, Write and Reply, and each ToolResult that
completes a turn's calls, is the next one."""


@runtime_checkable
class Direct(Protocol):
    """What `Converse.said` may be besides: a short way for Opus, both ways, without a queue or a task. Whoever takes it
    keeps the order: it is for an engine that waits for the next item and is waited for itself, and nothing else."""

    def direct(self, hear: Callable[[Opus], bool]) -> None:
        """From now on each page is given to `hear` while the next item is awaited; what it does not take comes as an
        item."""
        ...

    def reply(self, audio: ReplyAudio) -> bool:
        """Whether it was taken; else it has to be yielded."""
        ...


@dataclass(frozen=True, slots=True)
class Converse:
    """speech in, speech out, turn by turn, as long as `said` goes on."""

    said: AsyncIterator[Said]
    """Read at once, whatever the engine is busy with. Its end ends the session, after the reply that runs."""
    opus: bool = False
    """Whether audio goes both ways as Opus, from engines that can (`Converser.packed`)."""
    resume: str = ""
    """Token of an earlier Resumable; one that is not known any more begins anew."""
    wishes: Change = Change(persona="", language="", speech=True, tools=())
    """How replies are wanted at the start."""


@dataclass(frozen=True, slots=True)
class Animate:
    """a recording and a template video → a talking video. It takes minutes, so unlike the other verbs it outlives its
    session: who asks again by the same code gets what has become of it, also after either side has been restarted."""

    code: str
    """Ours: `vg-` and 32 hexadecimal digits. The same again is the same job."""
    audio: Path
    video: Path
    """Files that were checked. They are copied before the session is entered."""
    ping_pong: bool = True
    """Whether the template is played forward and backward by turns; else from its start each time."""
    super_resolution: bool = False
    watermark: bool = False


class State(StrEnum):
    """What an engine can do now."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    """It answers, and says that it will not become ready by itself."""
    DOWN = "down"
    """It does not answer."""


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """What an engine says of itself, or what its silence says of it."""

    state: State
    model: str = ""
    device: str = ""
    reason: str = ""
    """One line a person can act on; empty when ready."""
    progress: Progress | None = None
    """How far it is, while it is loading and says so."""


J = TypeVar("J", contravariant=True)
E = TypeVar("E", covariant=True)


class Verb(Protocol[J, E]):
    """Whichever of a verb's engines is free (gateway/replicas.py)."""

    def session(self, job: J) -> AbstractAsyncContextManager[AsyncIterator[E]]:
        """As an Engine's; waits for a place first. Raises EngineBusy, EngineLoading, EngineUnavailable."""
        ...

    def health(self) -> EngineHealth: ...


class Engine(Protocol[J, E]):
    """One replica of one engine. One instance per process, owned by the lifespan; one session per request."""

    @property
    def url(self) -> str: ...

    def session(self, job: J) -> AbstractAsyncContextManager[AsyncIterator[E]]:
        """Entered once the engine has accepted the job; leaving early cancels it at the engine."""
        ...

    async def health(self) -> EngineHealth:
        """Asks the engine now. Never raises for an engine that is down: that is an answer too."""
        ...


Speaker = Engine[Speak, Audio]
Transcriber = Engine[Transcribe, Transcript]


class Animator(Engine[Animate, Animated], Protocol):
    """Leaving a session early leaves the job as it is; its last event is the Video."""

    async def holds(self, code: str) -> bool:
        """Whether this very engine knows the job. False where it cannot be asked."""
        ...

    async def discard(self, code: str) -> None:
        """Ends the job where the engine can, and removes its files. Never raises for what is not there."""
        ...


class Converser(Engine[Converse, Conversed], Protocol):
    @property
    def packed(self) -> bool:
        """Whether it takes and gives audio as Opus, where a job asks for it."""
        ...

    @property
    def follows(self) -> bool:
        """Whether it takes End(reply=False), Begin(interrupts=False) and Reply: it follows a conversation that its
        client keeps, besides remembering one itself."""
        ...
