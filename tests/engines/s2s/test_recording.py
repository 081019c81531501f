import numpy as np
import pytest

from engines.s2s.memory import BYTES
from engines.s2s.recording import Recording
from gateway.wire import opus
from tests.engines.s2s.talking import tone


def pages(pcm: bytes) -> list[bytes]:
    packer = opus.Packer()
    return [*packer.feed(pcm), *packer.end()]


def hertz(pcm: bytes) -> float:
    samples = np.frombuffer(pcm, "<i2")
    return float(np.argmax(np.abs(np.fft.rfft(samples)))) * BYTES / 2 / len(samples)


def test_all_that_was_said_is_kept_at_the_rate_of_the_models() -> None:
    recording = Recording(300)
    for page in pages(tone(2.0, 500)):
        recording.add(page)
    pcm = recording.finish()
    assert len(pcm) / BYTES == pytest.approx(2.04, abs=0.005)
    assert hertz(pcm) == pytest.approx(500, abs=2)
    assert recording.finish() == b""


@pytest.mark.parametrize("size", [1, 7, 100, 4000])
def test_the_stream_may_be_cut_anywhere(size: int) -> None:
    whole, cut = Recording(300), Recording(300)
    stream = b"".join(pages(tone(0.5)))
    whole.add(stream)
    for at in range(0, len(stream), size):
        cut.add(stream[at : at + size])
    assert cut.finish() == whole.finish()


def test_only_the_latest_is_kept_of_what_is_long() -> None:
    recording = Recording(3.0)
    for page in pages(tone(4.0, 400) + tone(2.9, 800)):
        recording.add(page)
    pcm = recording.finish()
    assert len(pcm) == 3.0 * BYTES
    assert hertz(pcm) == pytest.approx(800, abs=2)


def test_an_hour_takes_no_more_memory_than_what_is_kept() -> None:
    recording = Recording(1.0)
    first, *others = pages(tone(1.0))
    recording.add(first)
    for _ in range(40):
        for page in others:
            recording.add(page)
        assert repr(recording) == "<recording, 1.0 s>"


def test_what_is_said_while_paused_is_dropped_and_the_stream_goes_on() -> None:
    recording = Recording(300)
    stream = pages(tone(3.0))
    for page in stream[:25]:
        recording.add(page)
    recording.finish()
    for page in stream[25:50]:
        recording.add(page)
    recording.start()
    for page in stream[50:]:
        recording.add(page)
    assert len(recording.finish()) / BYTES == pytest.approx(1.04, abs=0.05)


def test_a_stream_without_headers_is_heard() -> None:
    recording = Recording(300)
    recording.add(b"".join(pages(tone(1.0))[1:]))
    assert recording.finish()


def test_after_garbage_the_next_page_is_heard() -> None:
    recording = Recording(300)
    first, *others = pages(tone(1.0))
    recording.add(first)
    for wrong in (b"no page at all", others[0][:27] + b"\xff" * 255 + bytes(65025)):
        with pytest.raises(opus.NotOpus):
            recording.add(wrong)
            recording.add(bytes(5))
    for page in others:
        recording.add(page)
    assert len(recording.finish()) / BYTES == pytest.approx(1.0, abs=0.05)
