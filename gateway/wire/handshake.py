"""The HTTP request that opens a WebSocket, mended where real clients break it."""

import re

_ONCE = re.compile(rb"\r\n(sec-websocket-(?:key|version)):[^\r\n]*", re.IGNORECASE)


def mended(request: bytes) -> bytes:
    """`request` with the first of each header that there must be one of. Alibaba's Python client sends two keys, and
    expects the answer to the first."""
    seen: set[bytes] = set()

    def kept(header: re.Match[bytes]) -> bytes:
        name = header[1].lower()
        if name in seen:
            return b""
        seen.add(name)
        return header[0]

    return _ONCE.sub(kept, request)
