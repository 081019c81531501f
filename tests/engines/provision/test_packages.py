"""Packages: what cannot be imported is installed, at the pins, whole or not at all, without a network if so told."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.provision import ProvisionError, packages, provide, requirements
from engines.settings import Engines
from tests.engines.provision.conftest import Told
from tests.engines.provision.wheels import wheel

Make = Callable[..., Engines]


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    return tmp_path / "wheels"


@pytest.fixture
def asked(tmp_path: Path, wheels: Path, settings: Make, vad: Path) -> Callable[[str], Engines]:
    """Settings for recognition whose lock of packages has the given lines."""

    def made(lines: str) -> Engines:
        lock = tmp_path / "pins.lock"
        lock.write_text(lines)
        return settings(asr_model_id=str(vad), packages_lock=lock, wheels_dir=wheels)

    return made


Asked = Callable[[str], Engines]


def no_process(*_: object, **__: object) -> None:
    raise AssertionError("a process was started")


def test_what_is_missing_is_installed_from_a_folder_of_wheels(
    asked: Asked, wheels: Path, volume: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = wheel(wheels, "voxgate-test-one") + wheel(wheels, "voxgate-test-two")
    settings = asked("annotated-doc==0.0.7 \\\n    --hash=sha256:00\nnumpy==1\n" + lines)
    (volume / "packages" / ".staging-gone").mkdir(parents=True)
    assert packages.faults("asr", settings) == ["packages are missing: voxgate-test-one, voxgate-test-two"]
    (folder,) = provide("asr", settings, told).python_path
    assert folder.parent == (volume / "packages").absolute()
    assert folder.name.startswith(f"cp3{sys.version_info.minor}-")
    assert (folder / "voxgate_test_one" / "__init__.py").exists()
    assert "voxgate_test_one" not in sys.modules
    assert str(folder) not in sys.path
    assert told.of("packages")[-1].bytes > 0
    monkeypatch.setattr(packages.subprocess, "Popen", no_process)
    assert provide("asr", settings, told).python_path == (folder,)
    assert packages.faults("asr", settings) == []
    assert provide("asr", settings, told, with_packages=False).python_path == ()


def test_with_everything_importable_no_process_is_started(
    asked: Asked, volume: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages.subprocess, "Popen", no_process)
    lines = "numpy==1\nPyYAML==6\ncolorama==1\nmatcha-tts==1\nnvidia-cublas-cu12==1\ntriton==3\n"
    assert provide("asr", asked(lines), told).python_path == ()
    assert not volume.exists()


def test_a_wheel_that_is_not_the_pinned_one_is_refused(asked: Asked, wheels: Path, volume: Path, told: Told) -> None:
    lines = wheel(wheels, "voxgate-test-one")
    wheel(wheels, "voxgate-test-one", content="changed = True")
    with pytest.raises(ProvisionError, match=r"pip cannot install voxgate-test-one .*DO NOT MATCH.*put their wheels"):
        provide("asr", asked(lines), told)
    assert list((volume / "packages").iterdir()) == []


def test_a_wheel_that_is_not_there_is_named(asked: Asked, wheels: Path, told: Told) -> None:
    wheels.mkdir()
    with pytest.raises(ProvisionError, match=r"pip cannot install voxgate-test-no \(.*voxgate-test-no==1"):
        provide("asr", asked("voxgate-test-no==1 --hash=sha256:" + "0" * 64), told)


def test_a_package_that_pip_installs_under_another_name_is_refused(
    asked: Asked, wheels: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(requirements._IMPORTED_AS, "voxgate-test-one", "voxgate_test_other")
    with pytest.raises(ProvisionError, match="pip has installed voxgate-test-one, but nothing can import it"):
        provide("asr", asked(wheel(wheels, "voxgate-test-one")), told)


def test_a_lock_that_is_not_there_is_refused(settings: Make, vad: Path, told: Told, tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match="none cannot be read: No such file"):
        provide("asr", settings(asr_model_id=str(vad), packages_lock=tmp_path / "none"), told)


def test_what_rides_comes_with_what_asks_for_it(asked: Asked) -> None:
    lines = "torch==2 \\\n    --hash=a\ntriton==3 ; x\nnvidia-cublas-cu12==1\nwetext==1\n"
    lock = asked(lines).packages_lock
    assert requirements.lines(lock, {"wetext"}) == ["wetext==1"]
    assert requirements.lines(lock, {"torch"}) == lines.splitlines()[:4]


def test_the_roles_ask_for_what_the_shipped_lock_pins() -> None:
    lock = Engines().packages_lock
    pinned = {*requirements._blocks(lock), *requirements._blocks(lock.with_name("matcha.lock"))}
    mentioned = {
        *requirements._ONLY["tts"],
        *requirements._ONLY["asr"],
        *requirements._UNUSED,
        *requirements._IMPORTED_AS,
    }
    assert mentioned <= pinned
    assert not requirements._ONLY["tts"] & requirements._ONLY["asr"]
    assert {"funasr", "conformer", "torch", "wetext", "matcha-tts", "jieba"} <= pinned


def test_what_has_no_wheel_for_this_python_is_taken_from_one_for_another(
    asked: Asked, wheels: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(requirements._IMPORTED_AS, "matcha-tts", "voxgate_test_matcha")
    settings = asked("")
    (settings.packages_lock.with_name("matcha.lock")).write_text(wheel(wheels, "matcha-tts"))
    (batch,) = requirements.batches("tts", settings)
    assert batch.names == ("matcha-tts",)
    assert batch.options[-4:] == ("--python-version", "310", "--platform", "manylinux1_x86_64")
    monkeypatch.setitem(requirements._IMPORTED_AS, "matcha-tts", "matcha_tts")
    (folder,) = packages.provide("tts", settings, told)
    assert (folder / "matcha_tts" / "__init__.py").exists()
    assert requirements.batches("asr", settings) == []


def test_a_role_does_not_ask_for_what_only_the_other_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "importable", lambda *_: False)
    lock = Engines().packages_lock
    tts, asr = requirements.missing("tts", lock), requirements.missing("asr", lock)
    assert "funasr" in asr - tts
    assert {"conformer", "wetext"} <= tts - asr
    matcha = lock.with_name("matcha.lock")
    assert (requirements.missing("tts", matcha), requirements.missing("asr", matcha)) == ({"matcha-tts"}, set())
    assert "torch" in tts & asr
    assert not {"colorama", "triton"} & (tts | asr)


@pytest.mark.parametrize(
    ("name", "there"),
    [("json", True), ("json.decoder", True), ("xml.etree", True), ("nothing_of_the_sort", False), ("json.no", False)],
)
def test_a_module_is_looked_for_without_being_run(name: str, there: bool) -> None:
    assert requirements.importable(name) is there


def test_a_switch_that_no_package_fits_is_refused_with_the_reason(settings: Make, told: Told) -> None:
    with pytest.raises(ProvisionError, match=r"vllm cannot be imported: .* torch 2\.7\.0 .*leave the switch off"):
        provide("tts", settings(tts_load_vllm=True), told)
    assert packages.provide("tts", settings(tts_load_vllm=True, tts_gpus="CPU"), told) == ()


def test_a_switch_installs_what_it_needs_at_upstreams_pins(
    settings: Make, wheels: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(wheels, "voxgate-test-trt", "10.13.3.9")
    extra = requirements.Extra("voxgate_test_trt", ("voxgate-test-trt==10.13.3.9",))
    monkeypatch.setitem(requirements._EXTRAS, "tts_load_trt", extra)
    asked = settings(tts_load_trt=True, wheels_dir=wheels)
    assert packages.faults("tts", asked) == ["packages are missing: voxgate_test_trt"]
    (folder,) = packages.provide("tts", asked, told)
    assert (folder / "voxgate_test_trt").is_dir()
    assert packages.faults("tts", asked) == []
    assert packages.provide("asr", asked, told) == ()
