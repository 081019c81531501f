"""Consents: kept with their recordings, each owner's own, and nothing left of those that are gone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.accounts import Account
from gateway.caller import EVERYTHING, Caller, acting
from gateway.consents import Consents
from gateway.database import open_database
from gateway.errors import BadRequest, NotFound
from gateway.files import Files
from gateway.keys import Keys, Wanted, pepper
from gateway.settings import Settings
from tests.conftest import speech


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "yes.wav"
    path.write_bytes(speech())
    return path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(Settings(data_dir=tmp_path / "data"))


@pytest.fixture
async def consents(tmp_path: Path, files: Files) -> AsyncIterator[Consents]:
    async with open_database(Settings(data_dir=tmp_path / "data")) as database:
        yield Consents(database, files)


async def test_a_consent_is_kept_with_its_recording(consents: Consents, recording: Path) -> None:
    made = await consents.add("device", " Ann ", "en-US", recording)
    assert await consents.get("device", made.id) == made
    assert (made.name, made.language) == ("Ann", "en-US")
    assert await consents.recording(made) == speech()


async def test_another_owner_s_does_not_exist(consents: Consents, recording: Path, tmp_path: Path) -> None:
    made = await consents.add("device", "Ann", "en-US", recording)
    for use in (consents.get, consents.delete):
        with pytest.raises(NotFound):
            await use("another", made.id)
    keys = Keys(consents._database, pepper(tmp_path / "data"))
    key, _ = await keys.create(Wanted(EVERYTHING, tenant="another"))
    with acting(Caller(Account(key))), pytest.raises(NotFound):
        await consents.get("device", made.id)
    assert await consents.page("another", None, 10) == ([], False)
    assert await consents.get("device", made.id) == made


async def test_the_recording_goes_with_it(consents: Consents, recording: Path) -> None:
    made = await consents.add("device", "Ann", "en-US", recording)
    await consents.delete("device", made.id)
    for use in (consents.get("device", made.id), consents.recording(made)):
        with pytest.raises(NotFound):
            await use


async def test_pages_follow_each_other_newest_first(consents: Consents, recording: Path) -> None:
    made = [await consents.add("device", f"{number}", "en", recording) for number in range(5)]
    names, after, more = [], None, True
    while more:
        page, more = await consents.page("device", after, 2)
        names += [one.name for one in page]
        after = page[-1].id
    assert names == [one.name for one in reversed(made)]
    with pytest.raises(NotFound):
        await consents.page("device", "cons_nobody", 2)


@pytest.mark.parametrize("name", ["", " ", "a" * 201, "a\0b"])
async def test_a_name_that_cannot_be_is_refused_and_leaves_nothing(
    consents: Consents, files: Files, recording: Path, name: str
) -> None:
    with pytest.raises(BadRequest):
        await consents.add("device", name, "en", recording)
    assert await files.entries("consents") == []


async def test_a_recording_of_no_consent_is_swept_once_it_is_old(
    consents: Consents, files: Files, recording: Path
) -> None:
    made = await consents.add("device", "Ann", "en", recording)
    await files.put("consents/cons_orphan.wav", recording)
    assert await consents.sweep() == 0
    assert await consents.sweep(older_than=0) == 1
    assert await consents.recording(made)
