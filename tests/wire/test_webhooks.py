"""Calls of webhooks are signed as the verifiers of Standard Webhooks expect."""

import pytest

from gateway.wire import webhooks


def test_the_example_of_the_standard_comes_out() -> None:
    found = webhooks.signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["plain words", "whsec_not base64!"])
def test_a_secret_that_is_no_base64_is_taken_as_it_is(secret: str) -> None:
    assert webhooks.signature(secret, "id", 1, b"{}") != webhooks.signature(secret + "x", "id", 1, b"{}")


def test_each_part_is_signed() -> None:
    signed = {
        webhooks.signature("s", *parts) for parts in [("a", 1, b"x"), ("b", 1, b"x"), ("a", 2, b"x"), ("a", 1, b"y")]
    }
    assert len(signed) == 4


def test_without_a_secret_a_call_is_not_signed() -> None:
    assert webhooks.SIGNATURE not in webhooks.headers("", "id", 1, b"{}")
    assert webhooks.headers("s", "id", 1, b"{}")[webhooks.TIMESTAMP] == "1"
