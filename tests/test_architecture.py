"""Which file may know which: the arrows of the tree, read from the imports themselves."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("gateway", "engines", "patches")
FILES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
STANDARD = frozenset(sys.stdlib_module_names)

INWARD = {"gateway.verbs", "gateway.events", "gateway.errors", "gateway.settings"}
"""The words that surfaces and adapters share."""
STEPS = {
    "gateway.admission",
    "gateway.commands",
    "gateway.cutter",
    "gateway.endpointing",
    "gateway.memory",
    "gateway.narration",
    "gateway.recogniser",
    "gateway.recognition",
    "gateway.resample",
    "gateway.segments",
    "gateway.sentences",
    "gateway.tape",
    "gateway.tasks",
    "gateway.utterances",
}
"""What some adapters need beyond them. Those of conversation: a place for each turn, ears, what was said before, what
to say. The digital human's: the operator's command that restarts its engine."""


def in_package(package: str) -> list[Path]:
    return [path for path in FILES if path.is_relative_to(package)]


def module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), str(path))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it: `gateway.wire.wav`, `asyncio`, `aiohttp.web`."""
    return set(_imports(tree(path)))


def _imports(found: ast.AST) -> Iterator[str]:
    for node in ast.walk(found):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "relative imports hide where an arrow ends"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if is_module(name) else node.module for name in whole)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] in PACKAGES}


def below(names: set[str], *packages: str) -> set[str]:
    return {name for name in names if any(f"{name}.".startswith(f"{package}.") for package in packages)}


def test_the_test_sees_imports_in_every_form() -> None:
    assert {"asyncio", "gateway.wire.engine_health", "gateway.errors"} <= imports(Path("gateway/adapters/http.py"))
    assert "gateway.serve" in imports(Path("gateway/__main__.py")), "one inside a function"


@pytest.mark.parametrize("path", in_package("gateway/wire"), ids=str)
def test_wire_knows_nothing_but_the_standard_library(path: Path) -> None:
    assert ours(path) <= below(ours(path), "gateway.wire")
    codecs = {"numpy", "sphn"} if path.name == "opus.py" else set()
    assert {name.split(".")[0] for name in imports(path)} <= STANDARD | {"gateway"} | codecs


@pytest.mark.parametrize("path", in_package("gateway/wire"), ids=str)
def test_wire_does_no_io(path: Path) -> None:
    doors = {"asyncio", "io", "logging", "os", "pathlib", "selectors", "socket", "subprocess", "threading", "time"}
    assert not {name.split(".")[0] for name in imports(path)} & doors
    for node in ast.walk(tree(path)):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith), path
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            assert name not in ("open", "print", "now", "today", "utcnow"), f"{path}:{node.lineno} calls {name}"


@pytest.mark.parametrize("path", in_package("gateway/adapters"), ids=str)
def test_adapters_know_wire_and_the_verbs(path: Path) -> None:
    assert ours(path) <= INWARD | STEPS | below(ours(path), "gateway.wire", "gateway.adapters")


@pytest.mark.parametrize("path", in_package("gateway/surfaces"), ids=str)
def test_surfaces_know_no_adapter_and_no_engine(path: Path) -> None:
    assert not below(ours(path), "gateway.adapters", "engines", "gateway.app", "gateway.serve")


@pytest.mark.parametrize("path", in_package("gateway/adapters"), ids=str)
def test_adapters_know_no_other_adapter(path: Path) -> None:
    """But what http.py, http1.py and connections.py offer to all of them, and their own parts, whose names begin with
    theirs; the registry knows every one."""
    if path.name != "__init__.py":
        stems = sorted(other.stem for other in in_package("gateway/adapters"))
        family = next(stem for stem in stems if f"{path.stem}_".startswith(f"{stem}_"))
        parts = {name for name in ours(path) if f"{name}_".startswith(f"gateway.adapters.{family}_")}
        others = below(ours(path), "gateway.adapters") - {"gateway.adapters"} - parts
        assert others <= {"gateway.adapters.http", "gateway.adapters.http1", "gateway.adapters.connections"}


@pytest.mark.parametrize("path", in_package("engines"), ids=str)
def test_engines_know_only_wire_and_what_every_engine_stands_on(path: Path) -> None:
    """No kind of engine knows another, what they share knows no kind, and only what starts one provisions it."""
    mine = f"engines.{path.parts[1]}".removesuffix(".py")
    kinds = {"engines.tts", "engines.asr", "engines.s2s", "engines.scripted"}
    shared = {"engines.settings", "engines.workers", "engines.serving", "engines.preparation"}
    starts = {"engines.provision"} if path.name == "__main__.py" and mine in kinds else set()
    backends = {"patches"} if "backends" in path.parts else set()
    assert ours(path) <= below(ours(path), "gateway.wire", mine, *shared, *starts, *backends)


@pytest.mark.parametrize("path", in_package("patches"), ids=str)
def test_patches_know_only_themselves(path: Path) -> None:
    """They are mounted into images that have nothing else of ours."""
    assert ours(path) <= below(ours(path), "patches")


@pytest.mark.parametrize("path", FILES, ids=str)
def test_nothing_imports_the_application_but_what_starts_it(path: Path) -> None:
    if path not in (Path("gateway/serve.py"), Path("gateway/__main__.py")):
        assert "gateway.app" not in imports(path)


def test_the_steps_know_no_surface_and_no_adapter() -> None:
    for path in in_package("gateway"):
        joins = path.stem in ("app", "door") or path.stem.startswith("apidoc")
        if path.parent == Path("gateway") and not joins:
            assert not below(ours(path), "gateway.surfaces", "gateway.adapters"), path


@pytest.mark.parametrize("path", in_package("gateway"), ids=str)
def test_only_the_settings_read_the_environment(path: Path) -> None:
    """The supervisor may too: it keeps our variables away from the processes that it starts."""
    if path.name in ("settings.py", "supervise.py"):
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("environ", "environb", "getenv"), f"{path}:{node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            assert not {alias.name for alias in node.names} & {"environ", "environb", "getenv"}, path


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "common", "manager", "base", "helpers", "misc", "core"}
    assert not {str(path) for path in FILES if path.stem in empty}


def test_imports_make_no_circle() -> None:
    graph = {module(path): ours(path) - {module(path)} for path in in_package("gateway")}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
