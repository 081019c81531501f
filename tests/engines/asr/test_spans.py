import io

from engines.asr.backends import spans
from engines.asr.recording import RATE, Recording
from tests.engines.asr.sound import noise, say, silence


def find(pcm: bytes) -> list[tuple[float, float]]:
    recording = Recording(io.BytesIO(pcm), 0, len(pcm) // 2)
    return [(span.first / RATE, span.end / RATE) for span in spans.find(recording, lambda: None)]


def test_silence_and_faint_noise_hold_no_speech() -> None:
    assert find(b"") == find(silence(0.001)) == find(silence(5)) == find(noise(5, -40)) == []


def test_speech_is_found_between_silences() -> None:
    spoken = say("the weather is very nice today")
    ((first, end),) = find(silence(3) + spoken + silence(3))
    assert 2.5 < first < 3.3
    assert -0.4 < end - 3 - len(spoken) / 2 / RATE < 0.7


def test_a_short_pause_does_not_part_an_utterance_and_a_long_one_does() -> None:
    spoken = say("hello world")
    assert len(find(spoken + silence(0.3) + spoken)) == 1
    assert len(find(spoken + silence(2) + spoken)) == 2


def test_speech_without_a_pause_is_cut_into_pieces_without_loss() -> None:
    found = find(noise(40, -10))
    assert max(end - first for first, end in found) <= spans.LONGEST / RATE
    assert all(end == first for (_, end), (first, _) in zip(found, found[1:], strict=False))
    assert found[0][0] < 0.5
    assert found[-1][1] == 40


def test_the_cut_is_made_where_it_is_quietest() -> None:
    loud = noise(10.5, -10)
    found = find(loud + silence(0.1) + loud)
    assert abs(found[0][1] - 10.55) < 0.06


def test_looking_for_speech_can_be_stopped() -> None:
    calls = []
    recording = Recording(io.BytesIO(silence(60)), 0, 60 * RATE)
    assert not list(spans.find(recording, lambda: calls.append(1)))
    assert len(calls) >= 10
