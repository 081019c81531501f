"""`make bench-engines`, `make bench-gpu`: the real engine servers under load, on networks of random weights.

The method is that of the published benchmark of FunSpeech on one RTX 4090: a warm-up, then one burst of N clients for
each level; 16 clips of 4 to 7 s, 16 sentences of 26 characters. Targets are set beside figures of full-size networks
on a GPU, and only there. Prints Markdown, and writes what it measured to bench/out/engines.json.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.engines import load, models
from bench.engines.figures import Burst, Live, Target, drift, gigabytes, milliseconds, percentile, table
from bench.engines.server import NotReady, running, vram
from engines.settings import inherited

OUT = models.ROOT / "bench" / "out"

Server = tuple[str, str, dict[str, str]]
"""Module, backend, settings."""


@dataclass(frozen=True, slots=True)
class Plan:
    size: str
    recognisers: tuple[str, ...]
    voices: tuple[str, ...]
    levels: tuple[int, ...]
    """Clients, of recognition."""
    speaking: tuple[int, ...]
    """Clients, of synthesis."""
    streams: tuple[int, ...]
    """Live."""
    workers: tuple[int, ...]
    """Processes on the device, compared."""
    rounds: int
    """Bursts of each level, of recognition; one synthesis lasts long enough to be measured once."""
    sequential: int
    """Syntheses one after the other."""


_ALL = (1, 2, 4, 8, 16, 32)
PLANS: dict[str, tuple[Plan, ...]] = {
    "cpu": (
        Plan("tiny", ("sensevoice",), ("cosyvoice2",), _ALL, _ALL, (1, 4, 8), (1, 2), 3, 100),
        Plan("short", ("sensevoice",), ("cosyvoice2",), (1, 4), (1, 2), (1, 2), (1,), 1, 0),
    ),
    "gpu": (
        Plan(
            "full", ("seaco-paraformer", "sensevoice"), ("cosyvoice", "cosyvoice3"), _ALL, _ALL, (1, 4, 16, 32),
            (1, 2, 3), 1, 100,
        ),
    ),
}  # fmt: skip


class Bench:
    def __init__(self, plan: Plan, device: str, scratch: Path) -> None:
        self._plan, self._device, self._scratch = plan, device, scratch
        self.targets: list[Target] = []
        self.record: dict[str, Any] = {"plan": dataclasses.asdict(plan), "device": device}

    async def recognition(self, name: str) -> None:
        plan = self._plan
        bursts: dict[int, list[Burst]] = {}
        for workers in plan.workers:
            with running(*self._recogniser(name, workers, "offline"), self._log(name, workers)) as server:
                ask = load.transcribe(server)
                await load.burst(server, ask, workers, 1)  # warm, each of them
                bursts[workers] = [
                    _told(name, workers, await load.burst(server, ask, clients, plan.rounds)) for clients in plan.levels
                ]
        head = ("workers", "clients", "req/s", "p50 ms", "p95 ms", "audio/wall", "RTF of a client", *_SHARED)
        rows = (
            (f"{workers}", f"{one.clients}", f"{one.per_second:.2f}", milliseconds(one.took(0.5)),
             milliseconds(one.took(0.95)), f"{one.audio_per_wall:.2f}", f"{one.rtf:.3f}", *_shared(one))
            for workers, found in bursts.items() for one in found
        )  # fmt: skip
        print(f"#### {name}: POST /api/transcribe\n\n{table(head, rows)}")
        self._compare(bursts)
        self._keep(f"recognition {name}", bursts)
        busiest = [found[-1] for found in bursts.values()]
        best = max(one.per_second for one in busiest)
        self._target(f"{name}: requests/s at {plan.levels[-1]} clients", 25, best, at_least=True)
        self._healthy(name, bursts)

    async def talk(self, name: str) -> None:
        """Live, in two passes, the second of them by `name`."""
        plan = self._plan
        rows = []
        found: dict[str, Live] = {}
        for workers in plan.workers:
            with running(*self._recogniser(name, workers, "all"), self._log(f"live-{name}", workers)) as server:
                await load.live(server, workers)
                for count in plan.streams:
                    one = found[f"{workers} workers, {count} streams"] = await load.live(server, count)
                    rows.append((f"{workers}", f"{count}", *_live(one), *_shared(one)))
                    if one.realtime < count:
                        break  # more of them do not fare better
        head = (
            "workers", "streams", "in real time", "deltas of each", "utterances of each", "first delta ms",
            "STOP → final p50 ms", "p95 ms", *_SHARED,
        )  # fmt: skip
        print(f"#### {models.STREAMING} and {name}: live, 2pass, paced as spoken\n\n{table(head, rows)}")
        self._keep(f"live {name}", found)

    async def synthesis(self, version: str) -> None:
        plan = self._plan
        bursts: dict[int, list[Burst]] = {}
        firsts: list[float] = []
        for workers in plan.workers:
            with running(*self._speaker(version, workers), self._log(version, workers)) as server:
                if version != "cosyvoice":
                    await load.register(server)
                ask = load.speak(server, version == "cosyvoice", models.characters(version, plan.size))
                await load.burst(server, ask, workers, 1)  # warm, each of them
                bursts[workers] = [
                    _told(version, workers, await load.burst(server, ask, clients, 1)) for clients in plan.speaking
                ]
                if workers == plan.workers[0] and plan.sequential:
                    firsts = [one.first for one in await load.one_by_one(server, ask, plan.sequential)]
        head = (
            "workers", "clients", "req/s", "p50 ms", "p95 ms", "TTFA p50 ms", "TTFA p95 ms", "audio/wall",
            "RTF of a client", *_SHARED,
        )  # fmt: skip
        rows = (
            (f"{workers}", f"{one.clients}", f"{one.per_second:.2f}", milliseconds(one.took(0.5)),
             milliseconds(one.took(0.95)), milliseconds(one.first(0.5)), milliseconds(one.first(0.95)),
             f"{one.audio_per_wall:.2f}", f"{one.rtf:.3f}", *_shared(one))
            for workers, found in bursts.items() for one in found
        )  # fmt: skip
        print(f"#### {version}: {'preset' if version == 'cosyvoice' else 'cloned'} voice, streamed\n")
        print(table(head, rows))
        self._compare(bursts)
        if firsts:
            p50, p95 = (milliseconds(percentile(firsts, share)) for share in (0.5, 0.95))
            print(
                f"{plan.sequential} requests one after the other: TTFA p50 {p50} ms, p95 {p95} ms; "
                f"the last ten over the first ten: {drift(firsts):.2f}\n"
            )
        self._keep(f"synthesis {version}", {"bursts": bursts, "ttfa one by one": firsts})
        best = max(one.audio_per_wall for found in bursts.values() for one in found)
        self._target(f"{version}: realtime streams per GPU (audio/wall)", 4, best, at_least=True)
        if firsts:
            self._target(f"{version}: TTFA p50 ms at 1 client", 300, statistics.median(firsts) * 1000, at_least=False)
            self._target(f"{version}: TTFA of the last ten of {plan.sequential} over the first ten", 1.2,
                         drift(firsts), at_least=False)  # fmt: skip
        self._healthy(version, bursts)

    def batches(self, name: str) -> None:
        """Whether clips of several requests would be recognised sooner together."""
        plan, device = self._plan, "cpu" if self._device == "cpu" else "cuda:0"
        command = [
            sys.executable, "-W", "ignore", "-m", "bench.engines.batching", str(models.funasr(name, plan.size)),
            str(models.funasr(models.VAD, plan.size)), "--device", device, "--threads", str(min(4, _cores())),
        ]  # fmt: skip
        environment = inherited({"OMP_WAIT_POLICY": "PASSIVE"})  # as workers have it
        said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        found: dict[str, float] = json.loads(said.strip().splitlines()[-1])
        alone = found["1"]
        rows = ((each, f"{took:.1f}", "" if each == "vad" else f"{alone / took:.2f}") for each, took in found.items())
        print(f"#### {name}: clips at a time, in one process, without a server\n")
        print(table(("clips", "ms for each clip", "× one by one"), rows))
        self._keep(f"batches {name}", found)

    # Private

    def _recogniser(self, name: str, workers: int, mode: str) -> Server:
        size = self._plan.size
        marks = name in models.WRITES_MARKS
        return "engines.asr", "funasr", {
            "MODELS_DIR": str(self._scratch),
            "ASR_MODEL_MODE": mode,
            "ASR_MODEL_ID": str(models.funasr(name, size)),
            "ASR_REALTIME_MODEL_ID": str(models.funasr(models.STREAMING, size)) if mode == "all" else "",
            "VAD_MODEL_ID": str(models.funasr(models.VAD, size)),
            "PUNC_MODEL_ID": "none" if marks else str(models.funasr(models.PUNCTUATION, size)),
            "ASR_GPUS": "cpu" if self._device == "cpu" else "0",
            "ASR_WORKERS": str(workers),
        }  # fmt: skip

    def _speaker(self, version: str, workers: int) -> Server:
        folder = str(models.cosyvoice(version, self._plan.size))
        return "engines.tts", "cosyvoice", {
            "MODELS_DIR": str(self._scratch),
            "COSYVOICE_SOURCE": str(models.cosyvoice_source()),
            "TTS_MODEL_MODE": "sft" if version == "cosyvoice" else "clone",
            "CLONE_MODEL_VERSION": "cosyvoice2" if version == "cosyvoice2" else "cosyvoice3",
            "SFT_MODEL_ID": folder,
            "CLONE_MODEL_ID": folder,
            "COSYVOICE3_MODEL_ID": folder,
            "TTS_GPUS": "cpu" if self._device == "cpu" else "0",
            "TTS_WORKERS": str(workers),
        }  # fmt: skip

    def _log(self, name: str, workers: int) -> Path:
        return OUT / f"{name}-{self._plan.size}-{workers}.log"

    def _compare(self, bursts: dict[int, list[Burst]]) -> None:
        (alone, first), *others = bursts.items()
        for workers, found in others:
            each = ", ".join(
                f"{now.per_second / before.per_second:.2f} at {now.clients}"
                for before, now in zip(first, found, strict=True)
            )
            print(f"requests/s of {workers} workers over {alone}: {each}\n")

    def _healthy(self, name: str, bursts: dict[int, list[Burst]]) -> None:
        slowest = max(percentile(one.health, 0.95) for found in bursts.values() for one in found)
        self._target(f"{name}: /health p95 ms under load", 5, slowest * 1000, at_least=False)

    def _target(self, what: str, wanted: float, found: float, *, at_least: bool) -> None:
        if self._device == "gpu" and self._plan.size == "full":
            self.targets.append(Target(what, wanted, found, at_least))

    def _keep(self, name: str, found: Any) -> None:
        self.record[name] = found


_SHARED = ("/health p50 ms", "/health p95 ms", "RSS GB", "VRAM GB")


def _shared(found: Burst | Live) -> tuple[str, ...]:
    health = (milliseconds(percentile(found.health, share)) for share in (0.5, 0.95))
    return (*health, gigabytes(found.rss), gigabytes(found.vram))


def _told(name: str, workers: int, found: Burst) -> Burst:
    """The whole takes minutes: whoever waits is shown that it goes on."""
    print(f"{name}, {workers} workers, {found.clients} clients: {found.per_second:.2f}/s", file=sys.stderr, flush=True)
    return found


def _live(found: Live) -> tuple[str, ...]:
    streams = found.streams
    return (
        f"{found.realtime}",
        f"{statistics.fmean(one.deltas for one in streams):.1f}",
        f"{statistics.fmean(one.utterances for one in streams):.1f}",
        milliseconds(percentile([one.first for one in streams], 0.5)),
        milliseconds(percentile([one.final for one in streams], 0.5)),
        milliseconds(percentile([one.final for one in streams], 0.95)),
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _machine(device: str) -> str:
    if device == "gpu":
        command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return f"{_cores()} CPU cores, {platform.machine()}"


async def _measure(plans: Sequence[Plan], device: str, parts: Sequence[str]) -> list[Bench]:
    benches = []
    for plan in plans:
        with tempfile.TemporaryDirectory() as scratch:
            bench = Bench(plan, device, Path(scratch))
            print(f"### {plan.size} networks\n", flush=True)
            for name in plan.recognisers if "asr" in parts else ():
                await bench.recognition(name)
            for name in plan.recognisers[:1] if "live" in parts else ():
                await bench.talk(name)
            for name in plan.recognisers if "batches" in parts and plan.size != "tiny" else ():
                bench.batches(name)
            for version in plan.voices if "tts" in parts else ():
                await bench.synthesis(version)
            benches.append(bench)
    return benches


def _verdict(targets: Sequence[Target]) -> str:
    rows = (
        (one.what, f"{'≥' if one.at_least else '≤'} {one.wanted:g}", f"{one.found:.2f}", "met" if one.met else "MISSED")
        for one in targets
    )
    return "### Targets\n\n" + table(("", "wanted", "found", ""), rows)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.engines")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--parts", type=_names, default=("asr", "live", "batches", "tts"))
    parser.add_argument("--size", choices=models.SIZES, help="only the networks of this size")
    for name in ("levels", "speaking", "streams", "workers"):
        parser.add_argument(f"--{name}", type=_numbers, help="such as 1,2,4")
    parser.add_argument("--recognisers", type=_names, help=", ".join(models.RECOGNISERS))
    parser.add_argument("--voices", type=_names, help=", ".join(models.VOICES))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--sequential", type=int)
    return parser.parse_args()


def main() -> None:
    asked = _asked()
    if asked.device == "gpu" and vram() is None:
        sys.exit("voxgate: there is no GPU here: nvidia-smi answers nothing; `make bench-engines` measures on the CPU")
    fields = [one.name for one in dataclasses.fields(Plan) if one.name != "size"]
    given = {name: getattr(asked, name) for name in fields if getattr(asked, name) is not None}
    plans = [dataclasses.replace(plan, **given) for plan in PLANS[asked.device] if asked.size in (None, plan.size)]
    if not plans:
        plans = [dataclasses.replace(PLANS[asked.device][0], size=asked.size, **given)]
    OUT.mkdir(parents=True, exist_ok=True)
    print(f"{_machine(asked.device)}. Random weights. Ratios count; the times belong to this machine on this day.\n")
    try:
        benches = asyncio.run(_measure(plans, asked.device, asked.parts))
    except NotReady as exc:
        sys.exit(f"voxgate: {exc}")
    if targets := [target for bench in benches for target in bench.targets]:
        print(_verdict(targets))
    records = [bench.record for bench in benches]
    (OUT / "engines.json").write_text(json.dumps(records, default=dataclasses.asdict, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
