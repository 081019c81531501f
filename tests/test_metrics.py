"""What a monitor reads: names that stay, figures that are true, nobody's words."""

from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import CONTENT_TYPE, TIMINGS, Metrics
from tests.conftest import Gateway


def samples(metrics: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and labels, as Prometheus' own parser reads them."""
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(metrics.decode())
        for one in family.samples
    }


async def test_turns_are_counted_by_how_they_ended_and_timed_by_their_adapter() -> None:
    metrics = Metrics()
    metrics.turn_ended("cascade", "completed", {"recognition": 0.25, "first_audio": 0.4})
    metrics.turn_ended("cascade", "failed", {})
    metrics.timed("cascade", "barge_in", 0.03)
    found = samples(metrics.exposition())
    of = (("adapter", "cascade"),)
    assert found["voxgate_turns_total", (*of, ("status", "completed"))] == 1
    assert found["voxgate_turns_total", (*of, ("status", "failed"))] == 1
    assert found["voxgate_turn_recognition_seconds_sum", of] == 0.25
    assert found["voxgate_turn_first_audio_seconds_bucket", (*of, ("le", "0.3"))] == 0
    assert found["voxgate_turn_first_audio_seconds_bucket", (*of, ("le", "0.5"))] == 1
    assert found["voxgate_turn_barge_in_seconds_count", of] == 1
    assert ("voxgate_turn_queued_seconds_count", of) not in found


async def test_each_timing_of_a_reply_has_its_histogram() -> None:
    text = Metrics().exposition().decode()
    for name in TIMINGS:
        assert f"# TYPE voxgate_turn_{name}_seconds histogram" in text


async def test_two_gateways_in_one_process_count_for_themselves() -> None:
    one, other = Metrics(), Metrics()
    one.conversations.inc()
    assert samples(one.exposition())["voxgate_conversations", ()] == 1
    assert samples(other.exposition())["voxgate_conversations", ()] == 0


async def test_the_gateway_serves_them(gateway: Gateway) -> None:
    gateway.state["metrics"].turn_ended("cascade", "completed", {"first_audio": 0.4})
    answer = await gateway.client.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"]) == (200, CONTENT_TYPE)
    assert samples(answer.content)["voxgate_turn_first_audio_seconds_count", (("adapter", "cascade"),)] == 1
