import pytest

from engines.settings import SettingsError
from engines.workers import devices


@pytest.mark.parametrize(
    ("text", "gpus", "found"),
    [
        ("", 0, ("cpu",)),
        ("auto", 0, ("cpu",)),
        ("", 2, ("cuda:0",)),
        (" Auto ", 2, ("cuda:0",)),
        ("cpu", 2, ("cpu",)),
        ("0", 1, ("cuda:0",)),
        ("0,1,2", 3, ("cuda:0", "cuda:1", "cuda:2")),
        ("cuda:1", 2, ("cuda:1",)),
        ("1, 1,0", 2, ("cuda:1", "cuda:0")),
    ],
)
def test_a_list_of_devices_is_read(monkeypatch: pytest.MonkeyPatch, text: str, gpus: int, found: tuple[str]) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: gpus)
    assert devices.named("TTS_GPUS", text) == found


@pytest.mark.parametrize(
    ("text", "says"), [("gpu", "not a device"), ("0,x", "'x'"), ("2", "no GPU 2"), ("-1", "'-1'"), ("²", "'²'")]
)
def test_what_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, text: str, says: str) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: 1)
    with pytest.raises(SettingsError, match=f"TTS_GPUS: .*{says}"):
        devices.named("TTS_GPUS", text)


def test_every_device_can_have_several_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: 2)
    assert devices.named("TTS_GPUS", "0,1", 2) == ("cuda:0", "cuda:0", "cuda:1", "cuda:1")


def test_a_machine_without_the_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    devices.gpus.cache_clear()
    assert devices.gpus() == 0
    devices.gpus.cache_clear()


def test_workers_on_the_cpu_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert [devices.threads(places) for places in (["cpu"], ["cpu"] * 3, ["cpu"] * 9, ["cuda:0"])] == [8, 2, 1, 8]
