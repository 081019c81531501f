"""Duix-Avatar's server as its clients meet it, faults included; without its model.

One request after the other; every answer 200 and text/html; one job at a time, told `busy` before anything is looked
at; an outcome that is gone once it was read; all state in memory; `code` missing is an HTML page with 500. What its
builds do differently can be chosen.
"""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

MP4 = b"\0\0\0\x10ftypisom\0\0\0\0" + b"\0\0\0\x0cmdatabcd" + b"\0\0\0\x08moov"


@dataclass(slots=True)
class Behaviour:
    """May be changed between requests."""

    steps: tuple[int, ...] = (0, 10, 20, 90)
    """Progress told by one query after the other; then the outcome."""
    error: str = ""
    """Why the job fails."""
    early_result: bool = True
    """Older builds name the result at 90, still running."""
    late_file: int = 0
    """Queries after `success` that it takes until the file is whole."""
    result: str = "/{code}-r.mp4"
    place: str = "temp/{code}-r.mp4"
    stuck: bool = False
    """Busy for ever, with nothing."""
    hung: bool = False
    """No progress any more."""
    bad_moments: int = 0
    """Answers of 9999 before the next good one."""
    film: bytes = MP4


@dataclass(slots=True)
class Seen:
    submitted: list[dict[str, Any]] = field(default_factory=list)
    queried: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    """Codes of the jobs that were run to their end."""


class StockDuix:
    """A server in a thread of its own, over a folder that is its /code/data."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.behaviour, self.seen = folder, Behaviour(), Seen()
        self._jobs: dict[str, int] = {}
        """Queries answered of each job that is known."""
        self._written: dict[str, int] = {}
        (folder / "temp").mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "StockDuix":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, port: int = 0) -> None:
        """Again after a stop: nothing is known any more."""
        self._jobs.clear()
        handler = type("Handler", (_Handler,), {"duix": self})
        self._server = HTTPServer(("127.0.0.1", port), handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    # What its routes do

    def submit(self, body: bytes) -> tuple[int, bytes]:
        try:
            asked = json.loads(body)
            code = asked["code"]
        except (ValueError, KeyError, TypeError):
            return 500, b"<!doctype html><title>500 Internal Server Error</title>"
        if self._jobs or self.behaviour.stuck:
            return 200, _body(10001, "忙碌中", success=True)
        for name in ("audio_url", "video_url"):
            if not asked.get(name):
                return 200, _body(10002, f"{name}参数缺失", success=False)
            if not (self.folder / "temp" / asked[name]).is_file():
                return 200, _body(10002, f"{name} not found", success=False)
        self.seen.submitted.append(asked)
        self._jobs[code] = 0
        return 200, _body(10000, 10000, success=True)

    def query(self, code: str) -> tuple[int, bytes]:
        self.seen.queried.append(code)
        if self.behaviour.bad_moments:
            self.behaviour.bad_moments -= 1
            return 200, _body(9999, "system error", success=False)
        if code in self._written:
            self._write(code)
        if code not in self._jobs:
            return 200, _body(10004, "任务不存在", success=True)
        count, steps = self._jobs[code], self.behaviour.steps
        if count < len(steps) or self.behaviour.hung:
            self._jobs[code] += not self.behaviour.hung
            progress = steps[min(count, len(steps) - 1)]
            named = self._named(code) if progress >= 90 and self.behaviour.early_result else ""
            return 200, _data(status=1, progress=progress, result=named, msg="")
        del self._jobs[code]  # told once
        self.seen.ran.append(code)
        if self.behaviour.error:
            return 200, _data(status=3, progress=20, result="", msg=self.behaviour.error)
        self._written[code] = -1
        self._write(code)
        return 200, _data(status=2, progress=100, result=self._named(code), msg="")

    # Private

    def _named(self, code: str) -> str:
        return self.behaviour.result.format(code=code)

    def _write(self, code: str) -> None:
        self._written[code] += 1
        path = self.folder / self.behaviour.place.format(code=code)
        path.parent.mkdir(parents=True, exist_ok=True)
        film = self.behaviour.film
        path.write_bytes(film if self._written[code] >= self.behaviour.late_file else film[: len(film) // 2])


class _Handler(BaseHTTPRequestHandler):
    duix: StockDuix
    protocol_version = "HTTP/1.0"
    """As Flask's own server speaks it."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self._answer(*self.duix.submit(body) if urlsplit(self.path).path == "/easy/submit" else (404, b"Not Found"))

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path != "/easy/query":
            self._answer(404, b"<!doctype html><title>404 Not Found</title>")
            return
        self._answer(*self.duix.query(parse_qs(parts.query).get("code", [""])[0]))

    def do_DELETE(self) -> None:
        self._answer(405, b"<!doctype html><title>405 Method Not Allowed</title>")

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _data(**data: Any) -> bytes:
    return _body(10000, "", data, success=True)


def _body(code: int, text: str | int, data: dict[str, Any] | None = None, *, success: bool) -> bytes:
    return json.dumps({"code": code, "data": data or {}, "msg": text, "success": success}).encode()
