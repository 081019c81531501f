"""What every image of the project keeps to, read from its Dockerfile and from compose.yaml."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted(
    path.relative_to(ROOT).as_posix()
    for top in ("bench", "deploy", "engines", "gateway")
    for path in (ROOT / top).rglob("Dockerfile*")
)
ENGINES = {name: f"engines/{name}/Dockerfile" for name in ("tts", "asr", "s2s", "avatar")}
WEIGHTS = (".pt", ".pth", ".onnx", ".safetensors", ".ckpt", ".gguf", ".bin", ".tar.gz", ".zip")
USER = "10001:10001"
"""A number, which Kubernetes too can see not to be root's."""


@dataclass(frozen=True)
class Instruction:
    name: str
    text: str
    """Its lines joined, without comments."""

    @property
    def words(self) -> list[str]:
        """Its arguments, without options."""
        if self.text.startswith("["):
            parsed: list[str] = json.loads(self.text)
            return parsed
        return [word for word in self.text.split() if not word.startswith("--")]

    def option(self, name: str) -> str:
        found = re.search(rf"--{name}=(\S+)", self.text)
        return found[1] if found else ""


Stage = list[Instruction]


def parse(text: str) -> list[Stage]:
    """The instructions before the first FROM, then those of each stage."""
    lines = [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    stages: list[Stage] = [[]]
    for line in joined.split("\n"):
        name, _, rest = line.strip().partition(" ")
        if name.upper() == "FROM":
            stages.append([])
        stages[-1].append(Instruction(name.upper(), rest.strip()))
    return stages


def stages(path: str) -> list[Stage]:
    return parse((ROOT / path).read_text())


def shipped(path: str) -> list[Stage]:
    """The stages that an image is made of: those that nothing is only copied from."""
    found = stages(path)[1:]
    copied = {each.option("from") for stage in found for each in stage if each.name == "COPY"} - {""}
    return [stage for stage in found if stage[0].text.partition(" AS ")[2] not in copied]


def only(stage: Stage, name: str) -> Instruction:
    (found,) = (each for each in stage if each.name == name)
    return found


def instructions(path: str, *names: str) -> list[Instruction]:
    return [each for stage in stages(path) for each in stage if each.name in names]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def test_every_dockerfile_is_looked_at() -> None:
    assert {"gateway/Dockerfile", *ENGINES.values()} <= set(DOCKERFILES)
    assert all(shipped(path) for path in DOCKERFILES)


def test_lines_are_joined_and_comments_left_out() -> None:
    text = '# a\nARG A=1\nFROM ${A} AS x\nRUN one \\\n  # why\n && two\nCMD ["a", "b c"]\n'
    first, stage = parse(text)
    assert first == [Instruction("ARG", "A=1")]
    assert [each.name for each in stage] == ["FROM", "RUN", "CMD"]
    assert stage[1].text == "one && two" and stage[2].words == ["a", "b c"]


@pytest.mark.parametrize("path", DOCKERFILES)
def test_every_stage_stands_on_the_base_that_the_builder_names(path: str) -> None:
    before, *all_stages = stages(path)
    assert only(before, "ARG").text.startswith("PYTHON_IMAGE=python:")
    assert {stage[0].words[0] for stage in all_stages} == {"${PYTHON_IMAGE}"}


def test_compose_pins_the_base_by_its_digest(compose: dict[str, Any]) -> None:
    overlay = yaml.safe_load((ROOT / "deploy/compose.cpu.yaml").read_text())
    assert overlay["services"]["avatar"]["build"]["args"] == compose["x-build"]["args"]
    (before, *_) = stages("gateway/Dockerfile")
    tag = only(before, "ARG").text.removeprefix("PYTHON_IMAGE=")
    pinned = re.fullmatch(r"\$\{PYTHON_IMAGE:-(.+)@sha256:[0-9a-f]{64}\}", compose["x-build"]["args"]["PYTHON_IMAGE"])
    assert pinned and pinned[1] == tag
    for path in DOCKERFILES:
        assert only(stages(path)[0], "ARG").text == f"PYTHON_IMAGE={tag}"


@pytest.mark.parametrize("path", DOCKERFILES)
def test_an_image_runs_a_program_as_nobody_in_particular(path: str) -> None:
    for stage in shipped(path):
        names = [each.name for each in stage]
        assert only(stage, "USER").text == USER
        assert not set(names[names.index("USER") :]) & {"RUN", "COPY"}, "what follows USER is the user's to change"
        assert only(stage, "CMD").words[:2] == ["python", "-m"]
        assert only(stage, "CMD").text.startswith("["), "a shell would take the signals"
        assert "ENTRYPOINT" not in names


@pytest.mark.parametrize("path", DOCKERFILES)
def test_nothing_comes_into_an_image_but_the_project_and_what_its_locks_pin(path: str) -> None:
    assert not instructions(path, "ADD"), "which fetches and unpacks"
    for copy in instructions(path, "COPY"):
        *sources, _ = copy.words
        for source in sources:
            if copy.option("from"):
                assert source in ("/venv", "/app")
            else:
                assert (ROOT / source).exists() and not source.endswith(WEIGHTS), source
                assert not {"models", "data", ".git"} & set(Path(source).parts), source
    for run in instructions(path, "RUN"):
        assert not re.search(r"\b(curl|wget|git|hf|huggingface-cli|modelscope)\b|https?://", run.text), run.text
        for command in re.findall(r"pip [^&]*install[^&]*", run.text):
            assert {"--require-hashes", "--no-deps", "--no-cache-dir"} <= set(command.split()), command
            assert re.search(r" -r /tmp/\w+\.lock\s*$", command), command
        if "apt-get" in run.text:
            assert "--no-install-recommends" in run.text and "rm -rf /var/lib/apt/lists/*" in run.text


@pytest.mark.parametrize("path", DOCKERFILES)
def test_no_setting_of_the_builder_is_one_of_the_image(path: str) -> None:
    """Where pip looks may hold a password."""
    for each in instructions(path, "ENV", "LABEL"):
        assert not re.search(r"PIP_|INDEX_URL|_TOKEN\b|PASSWORD|PROXY", each.text, re.IGNORECASE), each.text


@pytest.mark.parametrize(("service", "path"), ENGINES.items())
def test_an_engine_image_says_whether_it_can_serve_as_compose_does(
    compose: dict[str, Any], service: str, path: str
) -> None:
    wanted = compose["services"][service]["healthcheck"]
    for stage in shipped(path):
        check = only(stage, "HEALTHCHECK")
        options, _, command = check.text.partition("CMD ")
        assert ["CMD", *json.loads(command)] == wanted["test"]
        assert only(stage, "CMD").words[-1] in {each.text.split()[-1] for each in stage if each.name == "EXPOSE"}
    assert f"--start-period={wanted['start_period']}" in options, "the last target may have to download first"


def test_a_gateway_container_says_whether_it_serves(compose: dict[str, Any]) -> None:
    assert "/health" in compose["services"]["gateway"]["healthcheck"]["test"][-1]


def test_what_is_not_named_stays_out_of_the_build() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().split("\n") if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert not [name for name in let_in if name.startswith(("models", ".", "data"))]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_given_the_gpu_and_every_setting_that_is_its_own(compose: dict[str, Any], engine: str) -> None:
    from engines.settings import Engines

    service = compose["services"][engine]
    assert service["runtime"] == "nvidia"
    given = service["environment"]
    assert given["NVIDIA_VISIBLE_DEVICES"] == "${GPUS:-all}"
    own = {name.upper() for name in Engines.model_fields if name.startswith(f"{engine}_")}
    assert own <= set(given), own - set(given)
    assert all(given[name] == f"${{{name}:-}}" for name in own)
