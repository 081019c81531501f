"""The figure of kills, with fewer of everything."""

from pathlib import Path

from bench.avatar_kills import count


async def test_no_video_is_lost_or_made_twice_though_both_sides_are_killed(tmp_path: Path) -> None:
    outcome = await count(tmp_path, jobs=10, kills=3, seed=3)
    assert outcome.ended == {"succeeded": 10} and outcome.videos == 10
    assert (outcome.lost, outcome.doubled, outcome.left) == (0, 0, 0), str(outcome)
    assert set(outcome.kills) == {"gateway", "engine"}
