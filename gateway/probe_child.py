"""What a media file holds, as one line of JSON. A program of its own: gateway/probe.py runs it with limits.

    python -I probe_child.py FILE CONTAINERS CPU_SECONDS MEMORY_BYTES

It opens one local file, decodes one picture of it, and ends with 1 and a line of words where that cannot be done.
"""

import json
import resource
import sys
from contextlib import suppress


def main(path: str, containers: str, cpu_seconds: str, memory_bytes: str) -> int:
    """The exit status."""
    import av  # before the limits: its libraries take address space

    for kind, limit in (
        (resource.RLIMIT_CPU, int(cpu_seconds)),
        (resource.RLIMIT_AS, int(memory_bytes)),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    av.logging.set_level(None)
    options = {"protocol_whitelist": "file", "format_whitelist": containers}
    try:
        with av.open(f"file:{path}", options=options, metadata_errors="ignore") as file:
            print(json.dumps(_found(file)))
    except (av.FFmpegError, ValueError, MemoryError, OverflowError) as exc:
        print(type(exc).__name__)
        return 1
    return 0


def _found(file: object) -> dict[str, object]:
    streams = file.streams  # type: ignore[attr-defined]
    duration = file.duration / 1_000_000 if file.duration else 0.0  # type: ignore[attr-defined]
    found: dict[str, object] = {"seconds": duration, "audio": bool(streams.audio), "video": None}
    pictures = [one for one in streams.video if not one.disposition & 1024]  # 1024: the cover of a recording
    if pictures:
        stream = pictures[0]
        stream.thread_count = 1
        frame = next(file.decode(stream))  # type: ignore[attr-defined]
        rate = stream.average_rate
        found["video"] = {
            "width": frame.width,
            "height": frame.height,
            "codec": stream.codec_context.name,
            "rate": float(rate) if rate else 0.0,
            "seconds": float(stream.duration * stream.time_base) if stream.duration else duration,
        }
    return found


if __name__ == "__main__":
    with suppress(StopIteration):
        sys.exit(main(*sys.argv[1:]))
    print("no picture")
    sys.exit(1)
