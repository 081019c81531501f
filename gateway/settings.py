"""Every setting, once. The only file that reads the environment.

Order: command line > environment > config file > defaults. An unknown name or a wrong value stops the start with
one line. `deploy/env.example` is printed from this file.
"""

import argparse
import ipaddress
import os
import re
import shlex
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

PREFIX = "VOXGATE_"
CLIENT_KEY = f"{PREFIX}KEY"
"""Of the clients at the command line, and no setting of the gateway."""


class SettingsError(Exception):
    """One clear line for the operator."""


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _pairs(named: tuple[str, ...]) -> list[tuple[str, str]]:
    """[("alloy", "中文女"), …] of ("alloy=中文女", …)."""
    return [(name.strip(), value.strip()) for name, _, value in (one.partition("=") for one in named)]


def _with_port(url: str) -> str:
    urlsplit(url).port  # noqa: B018  (raises ValueError above 65535)
    return url


def _place(name: str) -> str:
    """A host, an address or a network, in small letters."""
    if not re.fullmatch(r"[a-zA-Z0-9_.-]*[a-zA-Z][a-zA-Z0-9_.-]*", name):
        ipaddress.ip_network(name, strict=False)  # ValueError, in words
    return name.lower()


def _command(text: str) -> str:
    shlex.split(text)  # ValueError, in words, for a quotation that does not end
    return text


Command = Annotated[str, AfterValidator(_command)]
Verbs = Annotated[tuple[Literal["speak", "transcribe", "converse", "animate"], ...], BeforeValidator(_split)]
Commands = Annotated[
    tuple[Annotated[Command, Field(pattern=r"^(speak|transcribe|converse|animate)=.+$")], ...], BeforeValidator(_split)
]
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Aliases = Annotated[tuple[Annotated[str, Field(pattern=r"^[^=]+=[^=]+$")], ...], BeforeValidator(_split)]
Url = Annotated[
    str,
    Field(pattern=r"^(https?|grpc|wss?)://(\[[0-9a-fA-F:.]+\]|[^\s/?#@:\[\]]+)(:[0-9]{1,5})?(/[^\s?#]*)?$"),
    AfterValidator(_with_port),
]
Urls = Annotated[tuple[Url, ...], BeforeValidator(_split), Field(min_length=1)]
Publics = Annotated[tuple[Literal["files", "avatar", "ready", "metrics", "docs"], ...], BeforeValidator(_split)]
Port = Annotated[int, Field(ge=0, le=65535)]
Ports = Annotated[tuple[Port, ...], BeforeValidator(_split)]
Places = Annotated[tuple[Annotated[str, AfterValidator(_place)], ...], BeforeValidator(_split)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Sizes in bytes, times in seconds, unless a name says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str = "0.0.0.0"
    """Address that both public ports listen on; 127.0.0.1 keeps the gateway to this machine."""
    port: Port = 9090
    """The port: everything is on it."""
    avatar_port: Port = 8383
    """A second socket of the same process, for desktop clients configured with 8383."""
    data_dir: Path = Path("data")
    """Voices, synthesised files and the database."""
    database_url: str = Field(default="", repr=False, pattern=r"^(postgresql://\S+)?$")
    """A PostgreSQL database (postgresql://user:password@host:port/name) for voices, chats, keys and jobs; when empty,
    SQLite in the data folder. Better in the environment or the config file: command lines can be read by every user."""
    scratch_dir: Path | None = None
    """Where uploads live while a request lasts; `scratch` in the data folder when unset."""
    cors_origins: Names = ("*",)
    """Web origins that may call the gateway, comma-separated."""
    keys: Literal["auto", "required", "off"] = "auto"
    """Whether a key is asked for. auto: once there is one (`voxgate keys create`), and then for good; required: from
    the start, so that without one nobody gets in; off: never."""
    public_surfaces: Publics = ("files", "avatar", "ready")
    """What is open without a key, comma-separated. files: synthesised audio under its unguessable, expiring name;
    avatar: the digital human, whose clients send no key; ready: GET /ready; metrics: GET /metrics; docs: /docs and
    /openapi.json. GET /health always is, and says less."""
    keys_refresh: Seconds = 1.0
    """How often keys made and revoked at the command line are taken up, and what was used is written down."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """User speech and text are never logged at info or above."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, JSON otherwise."""

    speak_engine: str = "cosyvoice"
    """Adapter for synthesis: cosyvoice (CosyVoice's HTTP server, or ours) or cosyvoice_grpc (its gRPC server, or ours,
    which takes no speed, and no instruction with a reference)."""
    speak_urls: Urls = ("http://127.0.0.1:50000",)
    """Replicas of the synthesis engine, comma-separated; grpc://host:port for the adapter cosyvoice_grpc."""
    speak_slots: Count = 4
    """Syntheses at a time on each replica."""
    speak_queue: int = Field(default=32, ge=0)
    """Requests that may wait for a slot; the next one is refused with 503."""
    speak_sample_rate: int | None = Field(default=None, ge=8000, le=192000)
    """Rate in Hz of a synthesis engine that does not state it (stock CosyVoice: 22050 for 300M, 24000 for 2 and 3)."""
    presets: Names = ("中文女", "中文男", "日语男", "粤语女", "英文女", "英文男", "韩语女")
    """Voices that the synthesis engine knows by name, comma-separated."""
    default_voice: str = "中文女"
    """The preset that the name `default` stands for."""
    openai_voices: Aliases = (
        "alloy=中文女",
        "ash=中文男",
        "ballad=英文男",
        "coral=英文女",
        "echo=英文男",
        "fable=英文男",
        "onyx=中文男",
        "nova=英文女",
        "sage=中文女",
        "shimmer=英文女",
        "verse=中文男",
        "marin=中文女",
        "cedar=中文男",
    )
    """The presets that OpenAI's voices stand for, comma-separated. While this is not set, one whose preset there is not
    stands for `default`."""
    openai_consents: bool = True
    """Whether a voice that is registered with OpenAI's API needs a consent, recorded there before; false takes any word
    for one, as vLLM-Omni does."""

    transcribe_engine: str = "funasr"
    """Adapter for recognition: funasr (ours: recordings over HTTP, live audio over a WebSocket), funasr_http
    (recordings only) or funasr_ws (FunASR's own WebSocket servers, which have no HTTP)."""
    transcribe_urls: Urls = ("http://127.0.0.1:8003",)
    """Replicas of the recognition engine, comma-separated; ws://host:port or wss://host:port for the adapter
    funasr_ws."""
    transcribe_certificate: Path | None = None
    """File (PEM) of the certificate that recognition engines at wss:// show, where it is their own, as FunASR's is: it
    is then the only one accepted, whatever its name and its dates. Unset: one that this system trusts."""
    transcribe_slots: Count = 4
    """Recognitions at a time on each replica."""
    transcribe_queue: int = Field(default=32, ge=0)
    """Requests that may wait for a slot; the next one is refused with 503."""
    transcribe_together: Count = 2
    """Pieces of one long recording that are recognised at a time, each in a slot."""

    converse_engine: str = "cascade"
    """Adapter for conversation: cascade (recognition, a reply, synthesis, one after the other, in the gateway) or
    fun_audio_chat (its server, or ours)."""
    converse_urls: Urls = ("http://127.0.0.1:11235",)
    """Replicas of the conversation engine, comma-separated; cascade needs none."""
    converse_sessions: Count = 256
    """Conversations at a time on each replica, most of them silent; the next one is refused with 503."""
    converse_slots: Count | None = None
    """Turns at a time on each replica; unset, 1 for fun_audio_chat and 8 for cascade."""
    converse_queue: int = Field(default=8, ge=0)
    """Turns that may wait for their replica, told their place; the next one is refused."""
    converse_timeout: Seconds = 30.0
    """Longest time that a turn, once taken, may show no sign of life; then it is ended and its client told."""
    converse_keep: Seconds = 600.0
    """How long after its connection has ended a conversation can be taken up again by its resume token."""
    converse_history: Count = 8
    """Turns of a conversation that the next reply is made with."""
    converse_turn_seconds: Seconds = 300.0
    """Longest recording of one turn that engines which hear it whole are given; the latest of it is kept."""
    persona: str = ""
    """System prompt of conversations that name none; empty is the engine's own."""
    socket_max_bytes: Count = 1024 * 1024
    """Largest message on a WebSocket."""
    socket_ping: Seconds = 10.0
    """How often an idle conversation's client is sent something, so that it stays."""

    vocabulary_dir: Path | None = None
    """Folder of lists of hotwords, a word on each line of <id>.txt, that NLS clients name as vocabulary_id."""
    nls_models: Names = ("qwen3-asr-flash", "paraformer-large", "sensevoice-small", "dolphin-small")
    """Names that NLS clients may give as customization_id, the first where they give none. The recognition engine
    answers to all of them, whatever it is; GET /stream/v1/asr/models and every answer say which."""
    nls_streams: Count = 256
    """NLS recognitions over sockets at a time, most of them silent; the next one is refused."""
    nls_voices: Aliases = (
        "xiaoyun=中文女",
        "xiaogang=中文男",
        "ruoxi=中文女",
        "siqi=中文女",
        "sijia=中文女",
        "sicheng=中文男",
        "aiqi=中文女",
        "aijia=中文女",
        "aicheng=中文男",
        "aida=中文男",
        "shanshan=粤语女",
        "tomoya=日语男",
        "longxiaochun=中文女",
        "longxiaoxia=中文女",
        "longcheng=中文男",
        "longshu=中文男",
    )
    """The presets that Alibaba's voices stand for, comma-separated. While this is not set, one whose preset there is
    not stands for `default`."""
    nls_device: Annotated[str, Field(min_length=1, max_length=200)] = "funspeech"
    """The device_id whose registered voices NLS clients, which name no device, may use by name or id."""
    nls_honest_types: bool = False
    """Whether POST /stream/v1/tts names the type of its audio. Else it is audio/mpeg whatever the format, by which
    Alibaba's clients know that it is no failure."""
    nls_idle_timeout: Seconds = 12.0
    """NLS sockets: silence between two tasks that closes the connection. Clients take it up again within 10."""
    nls_task_timeout: Seconds = 300.0
    """NLS sockets: silence of both sides that ends a task."""

    chat_url: Annotated[str, AfterValidator(_with_port)] = Field(
        default="", pattern=r"^(https?://[^\s/?#@]+(/[^\s?#]*)?)?$"
    )
    """Where the cascade's replies come from: any OpenAI-compatible chat API, up to and without /chat/completions, such
    as http://127.0.0.1:11434/v1. Empty: a small built-in responder (repeats, time, arithmetic, help)."""
    chat_key: str = Field(default="", repr=False, pattern=r"^[!-~]*$")
    """Its API key. Better in the environment or the config file: command lines can be read by every user."""
    chat_model: str = ""
    """Its model."""
    chat_timeout: Seconds = 30.0
    """Longest wait for its next token."""

    animate_engine: str = "duix"
    """Adapter for the digital human: duix (Duix-Avatar's server, or ours)."""
    animate_urls: Annotated[tuple[Url, ...], BeforeValidator(_split)] = ()
    """Replicas of its engine, comma-separated; each makes one video at a time. Empty: there is no digital human."""
    animate_folder: Path | None = None
    """The folder that it shares with its engines, their /code/data; `avatar` in the data folder when unset."""
    animate_poll: Seconds = 1.0
    """How often an engine is asked how far it is."""
    animate_stall: Seconds = 600.0
    """Longest time that an engine may make no progress with a video; then it is given up."""
    animate_restart: Command = ""
    """A command that restarts an engine which is stuck: busy for `animate_stall` with nothing of ours, or without
    progress for as long. {url} in it is the engine's address. Run without a shell, once in `animate_stall` at most;
    for engines that serve this gateway alone. Empty: /health says it, and nobody does anything."""

    avatar_upload_max_bytes: Count = 4 * 1024**3
    """Largest upload for the digital human."""
    avatar_max_seconds: Seconds = 1800.0
    """Longest recording that a video is made for, and longest template."""
    avatar_max_side: Count = 4096
    """Most pixels of a template's width or height."""
    avatar_ttl: Seconds = 24 * 3600.0
    """How long its uploads and videos stay."""
    avatar_most_bytes: Count = 50 * 1024**3
    """Most bytes of uploads, and of videos; beyond it the oldest go."""
    avatar_shared: bool = False
    """Whether jobs may name files that lie in the engines' folder, as Duix-Avatar's own desktop puts them there, and
    their videos are put beside them."""
    avatar_queue: Count = 1000
    """Videos that may wait for an engine; the next one is refused."""

    gpu_group: Verbs = ()
    """Verbs whose engines share a GPU that holds one of them at a time, comma-separated (speak,animate): they take
    turns. Empty: each engine has what it needs."""
    gpu_start: Commands = ()
    """What starts the engine of each, comma-separated (animate=docker start avatar). Run without a shell; done before
    the engine is ready."""
    gpu_stop: Commands = ()
    """What stops it, or makes it leave the GPU."""
    gpu_dwell: Seconds = 30.0
    """How long whoever has got the GPU keeps it at least."""
    gpu_turn: Seconds = 120.0
    """After so long, while others wait, nothing new begins at it; what runs is never ended."""
    gpu_switch_timeout: Seconds = 180.0
    """Longest time of each of these commands, and until the engine is ready then."""

    endpoint_silence: Seconds = 0.6
    """Hands-free: silence that ends a turn."""
    endpoint_threshold: float = Field(default=0.5, gt=0, lt=1)
    """Probability above which sound counts as speech."""
    endpoint_padding: Seconds = 0.3
    """What is kept before speech is noticed, for the soft sounds that words begin with."""
    nearfield_filter: bool = True
    """NLS sockets: whether only what is near the microphone, and so loud enough, may begin an utterance."""
    nearfield_threshold: float = Field(default=0.01, ge=0, le=1, allow_inf_nan=False)
    """The loudness (RMS, 1 is full scale) from which it may; FunSpeech advises 0.005 in quiet rooms, 0.015 in loud."""

    health_interval: Seconds = 1.0
    """How often each engine's health is asked."""
    engine_connect_timeout: Seconds = 3.0
    """Longest wait for an engine to accept a connection."""
    engine_idle_timeout: Seconds = 120.0
    """Longest silence of an engine in the middle of its answer, before the request is given up."""
    engine_total_timeout: Seconds = 3600.0
    """Longest time of one request at an engine."""

    client_idle_timeout: Seconds = 20.0
    """Longest time that a client may read nothing of its answer; until then it holds its place at the engine."""
    queue_timeout: Seconds = 40.0
    """Longest wait for a slot, then 503; shorter than `answer_pulse`, after which no status can be sent."""
    upload_max_bytes: Count = 200 * 1024 * 1024
    """Largest upload."""
    upload_idle_timeout: Seconds = 60.0
    """Longest silence of a client in the middle of its upload."""
    text_max_chars: Count = 20_000
    """Longest text of one synthesis."""
    reference_max_seconds: Seconds = 600.0
    """Longest reference recording accepted; the cleanest part of it is kept."""
    reference_keep_seconds: Seconds = 30.0
    """Longest part kept; CosyVoice refuses more than 30."""
    reference_min_speech_seconds: Seconds = 1.0
    """Least speech that a reference must hold."""
    transcribe_max_seconds: Seconds = 4 * 3600.0
    """Longest recording accepted for recognition."""
    file_ttl: Seconds = 24 * 3600.0
    """How long a synthesised file can be downloaded."""
    answer_pulse: Seconds = 45.0
    """A JSON answer that takes longer than this begins with blanks, one each time, so that the client's idle timeout
    does not end a long synthesis."""
    repeat_window: Seconds = 600.0
    """A synthesis asked again within this time is answered with the file already made."""

    public_url: Annotated[str, AfterValidator(_with_port)] = Field(
        default="", pattern=r"^(https?://[^\s/?#@]+(/[^\s?#]*)?)?$"
    )
    """Where clients reach the gateway, such as https://speech.example; absolute addresses of files begin with it.
    Empty: with the Host that each request was sent to."""
    forwarded: bool = False
    """Whether X-Forwarded-Host and X-Forwarded-Proto are believed; only behind a proxy that sets both."""

    jobs_slots: Count = 2
    """Asynchronous syntheses at a time."""
    jobs_queue: Count = 10_000
    """Asynchronous syntheses that may wait; the next one is refused with 503."""
    jobs_attempts: Count = 8
    """How often a job is begun whose gateway or engine dies in it, before it has failed."""
    jobs_patience: Seconds = 24 * 3600.0
    """How long after it was submitted a job is still tried again while its engine is down or busy."""
    jobs_keep: Seconds = 7 * 24 * 3600.0
    """How long a job that has ended is remembered, and its audio kept."""
    webhook_secret: str = Field(default="", repr=False, pattern=r"^[!-~]*$")
    """What calls of webhooks are signed with, at best 24 random bytes or more in Base64 after whsec_; empty, they are
    not signed."""
    webhook_timeout: Seconds = 15.0
    """Longest time of one call of a webhook."""
    webhook_attempts: Count = 12
    """Calls of a webhook that does not answer with 2xx; 12 take about two hours and a half."""

    fetch_allow: Places = ()
    """Where URLs that clients name may lead besides public addresses, comma-separated: host names, addresses and
    networks (storage.internal, 10.1.2.3, 10.9.0.0/16), on any port."""
    fetch_ports: Ports = (80, 443, 8080, 8443)
    """Ports that such URLs may name at public addresses, comma-separated."""
    fetch_slots: Count = 16
    """Downloads of such URLs at a time; four times as many may wait."""
    fetch_idle_timeout: Seconds = 10.0
    """Longest wait for such a host to take a connection, and longest silence of it after that."""
    fetch_total_timeout: Seconds = 120.0
    """Longest time of one such download, redirects included."""

    ffmpeg: str = ""
    """The ffmpeg program; when empty, the one that comes with the Python package imageio-ffmpeg."""
    decode_slots: Count = 2
    """Decoder processes at a time."""
    decode_queue: int = Field(default=64, ge=0)
    """Uploads that may wait for a decoder; the next one is refused with 503."""
    decode_wall_seconds: Seconds = 60.0
    """Longest time of one decoder process."""
    decode_cpu_seconds: Count = 60
    """Most CPU time of one decoder process."""
    decode_memory_bytes: Count = 1024 * 1024 * 1024
    """Most address space of one decoder process."""
    encode_threads: Count = 2
    """Threads that resample synthesised speech and pack it (MP3, Opus, AAC, FLAC), for all requests together."""

    shutdown_grace: Seconds = 2.0
    """How long running requests may finish after SIGTERM or Ctrl-C."""

    @model_validator(mode="after")
    def _agree(self) -> "Settings":
        if self.presets and self.default_voice not in self.presets:
            raise ValueError(f"default_voice {self.default_voice!r} is not one of presets")
        for setting, aliases in (("openai_voices", self.openai_voices), ("nls_voices", self.nls_voices)):
            for name, preset in _pairs(aliases):
                if setting in self.model_fields_set and self.presets and preset not in self.presets:
                    raise ValueError(f"{setting}: {preset!r}, for {name}, is not one of presets")
        self._check_gpu_group()
        if self.reference_keep_seconds < self.reference_min_speech_seconds:
            raise ValueError("reference_keep_seconds is less than reference_min_speech_seconds")
        return self

    def _check_gpu_group(self) -> None:
        if len(self.gpu_group) == 1 or len(set(self.gpu_group)) < len(self.gpu_group):
            raise ValueError("gpu_group names two verbs or more, each once")
        if "converse" in self.gpu_group and self.converse_engine == "cascade":
            raise ValueError("gpu_group: converse has no engine of its own in the cascade")
        for verb in self.gpu_group:
            if verb not in self.gpu_commands[1]:
                raise ValueError(f"gpu_stop does not say what stops {verb}")

    @property
    def gpu_commands(self) -> tuple[dict[str, str], dict[str, str]]:
        """What starts the engine of each verb, and what stops it."""
        starts, stops = (dict(_pairs(named)) for named in (self.gpu_start, self.gpu_stop))
        return starts, stops

    @property
    def animation(self) -> Path:
        return self.animate_folder or self.data_dir / "avatar"

    @property
    def openai_presets(self) -> dict[str, str]:
        """OpenAI's name of a voice → the preset that speaks for it."""
        return self._presets_of(self.openai_voices)

    @property
    def nls_presets(self) -> dict[str, str]:
        """Alibaba's name of a voice → the preset that speaks for it."""
        return self._presets_of(self.nls_voices)

    def _presets_of(self, aliases: tuple[str, ...]) -> dict[str, str]:
        known = set(self.presets)
        return {name: preset if preset in known else self.default_voice for name, preset in _pairs(aliases)}

    @property
    def scratch(self) -> Path:
        return self.scratch_dir or self.data_dir / "scratch"


SECRETS = frozenset(name for name, field in Settings.model_fields.items() if not field.repr)
"""Settings that are shown nowhere."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One flag for each setting, `--avatar-port` for `avatar_port`."""
    parser.add_argument("--config", metavar="FILE", help=f"a TOML file of settings (or {PREFIX}CONFIG)")
    group = parser.add_argument_group("settings", f"or {PREFIX}NAME in the environment, or name in the config file")
    for name, field in Settings.model_fields.items():
        text = f"{field.description} [{_shown(field.default)}]".replace("%", "%%")
        group.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="…", default=argparse.SUPPRESS, help=text)


def load(flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process.

    flags: what the command line gave, by field name, plus optionally `config`. Raises SettingsError.
    """
    environment = os.environ if environment is None else environment
    flags = {name: value for name, value in (flags or {}).items() if value is not None}
    config = flags.pop("config", None) or environment.get(f"{PREFIX}CONFIG")
    from_environment = _from_environment(environment)
    values = {**_from_file(config), **from_environment, **flags}
    for name in values:
        if name not in Settings.model_fields:
            raise SettingsError(f"unknown setting: {name}")
    try:
        return Settings.model_validate(values)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        if not first["loc"]:  # settings that do not agree with each other
            raise SettingsError(first["msg"].removeprefix("Value error, ")) from None
        name = str(first["loc"][0])
        origin = f"{PREFIX}{name.upper()}" if name in from_environment and name not in flags else name
        got = "" if name in SECRETS else f", got {first['input']!r}"
        raise SettingsError(f"{origin}: {first['msg']}{got}") from None


def foreign_environment() -> dict[str, str]:
    """The environment of a program that is not ours, or is told by other means: our settings are not in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def client_key() -> str:
    """The key that `voxgate say`, `transcribe` and `talk` send; empty without one."""
    return os.environ.get(CLIENT_KEY, "")


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for variable, value in environment.items():
        if not variable.startswith(PREFIX) or variable in (f"{PREFIX}CONFIG", CLIENT_KEY):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in Settings.model_fields:
            raise SettingsError(f"unknown setting: {variable}")
        if value != "":  # Compose passes ${NAME:-} as empty: not set
            found[name] = value
    return found


def _from_file(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        with Path(path).open("rb") as file:
            found = tomllib.load(file)
    except (OSError, ValueError) as exc:
        raise SettingsError(f"config file {path}: {exc}") from None
    for name in found:
        if name not in Settings.model_fields:
            raise SettingsError(f"config file {path}: unknown setting: {name}")
    return found


def _shown(value: object) -> str:
    if value is None:
        return ""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def env_example() -> str:
    """The text of deploy/env.example: every setting with its default, commented out."""
    lines = [
        "# Settings of the gateway. Printed by `make env`; copy to deploy/.env and uncomment what you change.",
        "# Order: command line > environment > config file (VOXGATE_CONFIG, TOML) > the defaults shown here.",
    ]
    for name, field in Settings.model_fields.items():
        lines += ["", *textwrap.wrap(field.description or "", 110, initial_indent="# ", subsequent_indent="# ")]
        lines.append(f"#{PREFIX}{name.upper()}={_shown(field.default)}")
    return "\n".join(lines) + "\n"


def arguments_of(settings: Settings) -> Sequence[str]:
    """The flags that give another process of ours these same settings, but for its secrets."""
    return [
        part
        for name in sorted(settings.model_fields_set - SECRETS)
        for part in (f"--{name.replace('_', '-')}", _shown(getattr(settings, name)))
    ]


def secrets_of(settings: Settings) -> dict[str, str]:
    """The variables that give another process of ours the rest: only its own user can read them."""
    given = sorted(settings.model_fields_set & SECRETS)
    return {f"{PREFIX}{name.upper()}": _shown(getattr(settings, name)) for name in given}
