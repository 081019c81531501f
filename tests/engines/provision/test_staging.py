import os
from pathlib import Path
from typing import Any

import pytest

from engines.provision.staging import staging


def test_it_is_gone_afterwards_and_so_is_what_a_killed_one_has_left(tmp_path: Path) -> None:
    for name in (".staging-cosyvoice-killed", ".staging-other-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").touch()
    with staging(tmp_path, "cosyvoice") as place:
        (place / "half").touch()
        assert len(list(tmp_path.glob(".staging-cosyvoice-*"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [".staging-other-1"]


def test_what_cannot_be_removed_hides_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_path: Any, **_options: Any) -> None:
        raise PermissionError

    with pytest.raises(ValueError, match="the mirror is down"), staging(tmp_path, "cosyvoice") as place:
        (place / "half").touch()
        monkeypatch.setattr(os, "unlink", refuses)
        monkeypatch.setattr(os, "rmdir", refuses)
        raise ValueError("the mirror is down")
    monkeypatch.undo()
