"""What every patch has to be, and that none is applied to an upstream that nobody has read."""

import ast
import re
import shutil
import sys
from collections.abc import Iterator
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import patches
from patches.guard import check
from tests.patches.conftest import START, run
from tests.tiny.fixtures import COMMIT

FILES = sorted(path for path in START.parent.glob("*_*/*.py") if path.name != "__init__.py")
FIELDS = ("Upstream", "Pinned", "Reason", "Sent", "Remove when")


@pytest.fixture
def importing() -> Iterator[None]:
    """A test may change the machinery of imports, and what is imported."""
    finders, modules, path = list(sys.meta_path), dict(sys.modules), list(sys.path)
    sys.meta_path[:] = [finder for finder in finders if not isinstance(finder, patches._Finder)]
    yield
    sys.meta_path[:], sys.path[:] = finders, path
    sys.modules.clear()
    sys.modules.update(modules)


@pytest.fixture
def cosyvoice(tmp_path: Path, importing: None) -> Path:
    """The module cosyvoice.llm.llm of an upstream that has changed."""
    package = tmp_path / "cosyvoice" / "llm"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    file = package / "llm.py"
    file.write_text("class TransformerLM:\n    def sampling_ids(self):\n        return 0\n")
    sys.path.insert(0, str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "cosyvoice"]:
        del sys.modules[name]
    return file


def test_there_are_patches() -> None:
    assert [Path(str(patch.__file__)) for patch in patches.found()] == FILES


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
class TestEveryPatch:
    def test_its_header_says_of_what_and_why_and_until_when(self, file: Path) -> None:
        header = ast.get_docstring(ast.parse(file.read_text()), clean=False) or ""
        found = re.split(rf"^({'|'.join(FIELDS)}): +", header, flags=re.M)
        assert tuple(found[1::2]) == FIELDS, "each field once, in this order"
        assert all(len(text.strip()) > 10 for text in found[2::2])
        assert COMMIT in found[4]

    def test_it_names_its_targets_and_what_it_was_read_against(self, file: Path) -> None:
        patch = import_module(f"patches.{file.parent.name}.{file.stem}")
        assert patch.TARGETS and callable(patch.apply)
        hashes = [each for value in patch.READ_AGAINST.values() for each in _values(value)]
        assert hashes and all(re.fullmatch(r"[0-9a-f]{64}", each) for each in hashes)
        assert "check(module, READ_AGAINST" in file.read_text()

    def test_it_needs_nothing_of_upstreams_before_upstream_is_imported(self, file: Path) -> None:
        imported = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in imported if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module) for node in imported if isinstance(node, ast.ImportFrom)}
        assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names | {"patches"}

    def test_it_can_be_read_by_upstreams_python(self, file: Path) -> None:
        ast.parse(file.read_text(), feature_version=(3, 8))
        assert "from __future__ import annotations" in file.read_text()


def _values(value: str | dict[str, str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value.values())


class TestInstall:
    def test_it_imports_nothing_of_upstream(self) -> None:
        script = "import sys, patches; patches.install(); print([n for n in sys.modules if n.split('.')[0] in"
        assert run(["-c", f"{script} ('torch', 'numpy', 'cosyvoice', 'matcha')])"]).strip() == "[]"

    def test_twice_is_as_good_as_once(self, importing: None) -> None:
        before = len(sys.meta_path)
        patches.install()
        patches.install()
        assert len(sys.meta_path) == before + 1

    def test_it_refuses_an_upstream_that_has_changed(self, cosyvoice: Path) -> None:
        patches.install()
        with pytest.raises(SystemExit, match=r"^end_of_sequence.py: upstream changed: cosyvoice.llm.llm\.") as refused:
            import_module("cosyvoice.llm.llm")
        assert "\n" not in str(refused.value) and "then fix or delete" in str(refused.value)

    def test_it_refuses_one_that_was_imported_already(self, cosyvoice: Path) -> None:
        import_module("cosyvoice.llm.llm")
        with pytest.raises(SystemExit, match="upstream changed"):
            patches.install()

    def test_it_leaves_all_else_alone(self, tmp_path: Path, importing: None) -> None:
        (tmp_path / "unrelated.py").write_text("found = __loader__.__class__.__name__")
        sys.path.insert(0, str(tmp_path))
        patches.install()
        assert import_module("unrelated").found == "SourceFileLoader"


class TestGuard:
    def test_a_file_is_known_by_all_its_source(self, tmp_path: Path, importing: None) -> None:
        (tmp_path / "small.py").write_text("x = 1\n")
        sys.path.insert(0, str(tmp_path))
        module = import_module("small")
        check(module, {"": sha256(b"x = 1\n").hexdigest()}, "patches/here.py")
        with pytest.raises(SystemExit, match="^here.py: upstream changed: small is [0-9a-f]{64}; re-read it"):
            check(module, {"": sha256(b"x = 2\n").hexdigest()}, "patches/here.py")

    def test_what_is_gone_is_refused(self) -> None:
        with pytest.raises(SystemExit, match=r"empty\.What\.ever is gone"):
            check(ModuleType("empty"), {"What.ever": ""}, "here.py")


class TestStart:
    """patches/start, the one environment variable of upstream's own server."""

    def test_a_python_with_it_on_its_path_is_patched(self, tmp_path: Path) -> None:
        script = "import sys; print(type(sys.meta_path[0]).__module__, [p for p in sys.path if p.endswith('patches')])"
        assert run(["-c", script], START).split(maxsplit=1) == ["patches", "[]\n"]

    def test_the_sitecustomize_that_it_hides_still_runs(self, tmp_path: Path) -> None:
        (tmp_path / "sitecustomize.py").write_text("print('the other one')")
        assert run(["-c", ""], START, tmp_path) == "the other one\n"

    def test_the_folder_may_have_any_name(self, tmp_path: Path) -> None:
        shutil.copytree(START.parent, tmp_path / "fixes")
        script = "import sys; print(type(sys.meta_path[0]).__name__)"
        assert run(["-c", script], tmp_path / "fixes" / "start") == "_Finder\n"

    def test_no_server_starts_without_its_patches(self, tmp_path: Path) -> None:
        (tmp_path / "patches" / "start").mkdir(parents=True)
        (tmp_path / "patches" / "__init__.py").write_text("raise ValueError('broken')")
        start = tmp_path / "patches" / "start"
        (start / "sitecustomize.py").write_text((START / "sitecustomize.py").read_text())
        with pytest.raises(AssertionError, match="ValueError: broken"):
            run(["-c", "print('started')"], start)
