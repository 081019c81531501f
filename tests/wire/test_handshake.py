from gateway.wire.handshake import mended

REQUEST = b"GET /ws/v1 HTTP/1.1\r\nhost: a\r\nsec-websocket-key: one\r\nsec-websocket-version: 13\r\n%b\r\n"


def test_of_two_keys_the_first_counts() -> None:
    """Alibaba's Python client sends its own and a fixed one."""
    more = b"Sec-WebSocket-Key: two\r\nSec-WebSocket-Version: 13\r\nx-nls-token: t\r\n"
    assert mended(REQUEST % more) == REQUEST % b"x-nls-token: t\r\n"


def test_a_request_that_is_right_stays_as_it_is() -> None:
    assert mended(REQUEST % b"sec-websocket-protocol: a\r\n") == REQUEST % b"sec-websocket-protocol: a\r\n"
