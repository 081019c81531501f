"""The table of packages, held against the environment that the engines run in."""

import pytest

from engines.provision import requirements
from engines.provision.needs import Role
from engines.settings import Engines

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("role", ["tts", "asr", "s2s"])
def test_the_whole_lock_can_be_imported_where_it_is_installed(role: Role) -> None:
    pytest.importorskip("torch")
    assert requirements.batches(role, Engines()) == []
