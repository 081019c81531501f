"""The digital human in Docker, on a host without a GPU: COMPOSE_PROFILES=avatar, then `make up`.

One stack serves the whole file, in its order.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e import avatar
from tests.e2e.stack import Stack, docker, no_docker

pytestmark = pytest.mark.docker

LEFT_BY_ROOT = """
import os, pathlib
os.umask(0)
folder = pathlib.Path("/code/data/temp/vg-" + "0" * 32)
folder.mkdir()
(folder / "0001.png").write_bytes(b"x")
"""
"""What Duix-Avatar leaves in the folder, as root."""
DISCARD = """
from pathlib import Path
from gateway.adapters.duix_files import Folder
Folder(Path("/avatar")).discard("vg-" + "0" * 32)
raise SystemExit(any(Path("/avatar/temp").glob("vg-" + "0" * 32 + "*")))
"""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    if reason := no_docker():
        pytest.skip(reason)
    stack = Stack()
    try:
        stack.make("build", COMPOSE_PROFILES="avatar")
        stack.make("up")
        yield stack
    finally:
        stack.try_make("down", "-v")
        subprocess.run(["docker", "rmi", "--no-prune", *stack.images.values()], capture_output=True)


@pytest.mark.parametrize("port", ["VOXGATE_AVATAR_PORT", "VOXGATE_PORT"])
async def test_the_desktop_client_gets_a_video_that_plays(stack: Stack, tmp_path: Path, port: str) -> None:
    url = f"http://127.0.0.1:{stack.environment[port]}"
    avatar.assert_it_plays(await avatar.video_by_way_of(url, tmp_path))


def test_its_engine_is_reached_by_the_gateway_alone(stack: Stack) -> None:
    inspected = stack.inspect("avatar")
    assert not any(inspected["NetworkSettings"]["Ports"].values())
    assert stack.ways_out("avatar") == []
    stack.check_rights("avatar")


def test_the_gateway_removes_what_an_engine_that_is_root_leaves(stack: Stack) -> None:
    """Duix-Avatar's image is; with the rights that compose.yaml gives it, and its umask."""
    volume = next(one["Name"] for one in stack.inspect("avatar")["Mounts"] if one["Destination"] == "/code/data")
    rights = ["--cap-drop", "ALL", "--cap-add", "DAC_OVERRIDE", "--user", "0", "-v", f"{volume}:/code/data"]
    docker("run", "--rm", *rights, stack.images["avatar"], "python", "-c", LEFT_BY_ROOT)
    done = stack.python("gateway", DISCARD)
    assert done.returncode == 0, done.stderr


def test_without_the_profile_there_is_none_and_its_image_is_not_asked_for(stack: Stack) -> None:
    told = stack.make("up", COMPOSE_PROFILES="", AVATAR_IMAGE="registry.invalid/never-pulled:1")
    assert "avatar is not wanted any more" in told and "ready on" in told
    assert not docker("ps", "-q", "--filter", stack.filter, "--filter", "label=com.docker.compose.service=avatar")
    assert httpx.post(f"{stack.url}/easy/submit", content=b"{}", trust_env=False).status_code == 503
