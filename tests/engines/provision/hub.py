"""Both model hubs on loopback, with their bad days: what the tests of provisioning fetch from."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = 1000
"""Bytes from which Hugging Face keeps a file as LFS and sends it from another host."""


@dataclass
class Seen:
    """One request."""

    path: str
    headers: dict[str, str]

    @property
    def range(self) -> str:
        return self.headers.get("range", "")


@dataclass
class FakeHub:
    """models: {id: {path: content}}. bad: {path in the model: what happens to its next requests, in order}.

    500, 404, 401: that status. ("cut", n): the body ends after n bytes. ("hold", n): after n bytes, waits for
    `released`. "wrong": other bytes. "longer": more bytes. "drip": never ends, a byte at a time. "ok": nothing.
    """

    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    bad: dict[str, list[Any]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)
    digests: bool = True
    """Whether the listings state any."""
    other: "FakeHub | None" = None
    """Another host, which large files are sent from."""
    url: str = ""
    page: int = 100
    documents: dict[str, bytes] = field(default_factory=dict)
    """Anything else, by path."""

    def asked(self, name: str) -> list[Seen]:
        """The requests for a file's content at its last place."""
        return [one for one in self.seen if one.path.endswith(f"/content/{name}") or f"FilePath={name}" in one.path]


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None: ...

    def do_GET(self) -> None:
        hub, url = self.hub, urlsplit(self.path)
        hub.seen.append(Seen(unquote(self.path), {name.lower(): value for name, value in self.headers.items()}))
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path in hub.documents:
            return self._content(url.path, hub.documents[url.path])
        if parts[:3] == ["api", "v1", "models"]:
            return self._modelscope("/".join(parts[3:5]), query)
        if parts[:2] == ["api", "models"]:
            return self._tree("/".join(parts[2:4]), query)
        if parts[2:3] == ["resolve"]:
            return self._resolve("/".join(parts[:2]), "/".join(parts[4:]))
        model, name = "/".join(parts[:2]), "/".join(parts[3:])
        return self._content(name, hub.models[model][name])

    def _modelscope(self, model: str, query: dict[str, str]) -> None:
        hub = self.hub
        if model not in hub.models:
            return self._body(404, b'{"Code": 404, "Success": false}')
        if "FilePath" in query:
            return self._content(query["FilePath"], hub.models[model][query["FilePath"]])
        if self._bad("listing"):
            return None
        files: list[dict[str, Any]] = [{"Path": "a-folder", "Type": "tree", "Size": 0}]
        for path, content in hub.models[model].items():
            stated = {"Sha256": hashlib.sha256(content).hexdigest()} if hub.digests else {}
            files.append({"Path": path, "Type": "blob", "Size": len(content)} | stated)
        return self._body(200, json.dumps({"Code": 200, "Data": {"Files": files}}).encode())

    def _tree(self, model: str, query: dict[str, str]) -> None:
        hub = self.hub
        if model not in hub.models:
            return self._body(404, b'{"error": "Repository not found"}')
        start = int(query.get("cursor", "0"))
        files: list[dict[str, Any]] = []
        for path, content in list(hub.models[model].items())[start : start + hub.page]:
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git}
            if len(content) >= LARGE:
                oid = hashlib.sha256(content).hexdigest()
                entry |= {"oid": "0" * 40, "lfs": {"oid": oid, "size": len(content), "pointerSize": 130}}
            files.append(entry)
        more = {}
        if start + hub.page < len(hub.models[model]):  # a mirror: its links name the host that it mirrors
            address = f"http://mirrored.invalid/api/models/{model}/tree/main?recursive=true&cursor={start + hub.page}"
            more["Link"] = f'<{address}>; rel="next"'
        return self._body(200, json.dumps(files).encode(), more)

    def _resolve(self, model: str, name: str) -> None:
        content = self.hub.models[model][name]
        if self.headers.get("authorization") == "Bearer wrong":
            return self._body(401, b"")
        if len(content) < LARGE:
            return self._content(name, content)
        host = self.hub.other or self.hub
        return self._body(302, b"", {"Location": f"{host.url}/{model}/content/{name}"})

    def _content(self, name: str, content: bytes) -> None:
        bad = self._bad(name)
        if bad is True:
            return
        if bad == "wrong":
            content = bytes(len(content))
        if bad == "longer":
            content += b"and more"
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        asked = self.headers.get("range", "")
        if asked.startswith("bytes=") and self.headers.get("if-range", etag) == etag:
            start = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self._send(content[start:], bad)

    def _send(self, body: bytes, bad: Any) -> None:
        if bad == "drip":
            while not self.hub.released.wait(0.01):
                self.wfile.write(b"x")
        elif isinstance(bad, tuple):
            what, count = bad
            self.wfile.write(body[:count])
            self.wfile.flush()
            if what == "hold":
                self.hub.held.set()
                self.hub.released.wait(20)
                self.wfile.write(body[count:])
            else:
                self.close_connection = True
        else:
            self.wfile.write(body)

    def _bad(self, name: str) -> Any:
        """True when it has been answered."""
        queue = self.hub.bad.get(name)
        bad = queue.pop(0) if queue else "ok"
        if isinstance(bad, int):
            self._body(bad, b"")
            return True
        return None if bad == "ok" else bad

    def _body(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:  # the client has left, as some tests want it to
            self.connection.close()

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True
