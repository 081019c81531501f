"""What the lifespan builds and every request may use: one typed bag, nothing global."""

from pathlib import Path
from typing import TypedDict

from gateway.access import Access
from gateway.admission import Gate
from gateway.animation import Animations
from gateway.chats import Chats
from gateway.consents import Consents
from gateway.encoding import Encoders
from gateway.events import Audio, Conversed, Transcript
from gateway.fetch import Fetcher
from gateway.files import Downloads
from gateway.gpu_group import GpuGroup
from gateway.health import Verbs
from gateway.jobs import Jobs
from gateway.metrics import Metrics
from gateway.normalise import Decoder
from gateway.repeats import Repeats
from gateway.replicas import Replicas
from gateway.rooms import Rooms
from gateway.settings import Settings
from gateway.tasks import KeyedLocks, SharedWork
from gateway.verbs import Converse, Speak, Transcribe
from gateway.voices import Voices


class State(TypedDict):
    settings: Settings
    access: Access
    scratch: Path
    """Parent of every request's workspace."""
    speak: Replicas[Speak, Audio]
    transcribe: Replicas[Transcribe, Transcript]
    converse: Replicas[Converse, Conversed]
    verbs: Verbs
    metrics: Metrics
    decoder: Decoder
    decoding: Gate
    encoders: Encoders
    voices: Voices
    consents: Consents
    downloads: Downloads
    repeats: Repeats
    jobs: Jobs
    fetcher: Fetcher
    nls_streams: Gate
    """Who may be recognised over NLS sockets."""
    """The only way to a URL that a client names."""
    syntheses: SharedWork
    references: KeyedLocks
    chats: Chats
    rooms: Rooms
    animations: Animations | None
    """None where no setting says where an engine of the digital human is."""
    gpu: GpuGroup | None
    """None where every engine has what it needs."""
