"""A Compose project of the tests' own: made, looked at and taken away as an operator does it."""

import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
PYTHON_IMAGE = "python:3.11-slim-bookworm"
"""Without the digest of compose.yaml: a stand-in of the same name has another one."""


class Stack:
    """One Compose project with ports and images of its own."""

    def __init__(self) -> None:
        name = f"voxgate-test-{uuid.uuid4().hex[:8]}"
        self.port, avatar_port = _free_port(), _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.filter = f"label=com.docker.compose.project={name}"
        self.images = {kind: f"voxgate-{kind}:{name[8:]}" for kind in ("gateway", "tts", "asr", "avatar")}
        self.environment = {
            "BUILD_NETWORK": "host",
            "PYTHON_IMAGE": PYTHON_IMAGE,
            **os.environ,
            **{f"{kind.upper()}_IMAGE": image for kind, image in self.images.items()},
            "COMPOSE_PROJECT_NAME": name,
            "DEVICE": "cpu",
            "SEALED": "false",
            "ENV_FILE": "none, though the developer may have one",
            "UP_TIMEOUT": "180",
            "VOXGATE_HOST": "127.0.0.1",
            "VOXGATE_PORT": str(self.port),
            "VOXGATE_TEXT_MAX_CHARS": "500",
            "VOXGATE_AVATAR_PORT": str(avatar_port),
        }

    def make(self, verb: str, arguments: str = "", **changed: str) -> str:
        self.environment |= changed
        done = self.try_make(verb, arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def try_make(self, verb: str, arguments: str = "", **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", verb, f"ARGS={arguments}"],
            cwd=ROOT,
            env=self.environment | changed,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def container(self, service: str) -> str:
        found = docker("ps", "-q", "--filter", self.filter, "--filter", f"label=com.docker.compose.service={service}")
        assert found, f"{service} is not running"
        return found

    def inspect(self, service: str) -> dict[str, Any]:
        (found,) = json.loads(docker("inspect", self.container(service)))
        assert isinstance(found, dict)
        return found

    def python(self, service: str, code: str) -> subprocess.CompletedProcess[str]:
        command = ["docker", "exec", self.container(service), "python", "-c", code]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    def check_rights(self, service: str) -> None:
        """It is nobody in particular, may do nothing, and writes nowhere but to its volume."""
        host = self.inspect(service)["HostConfig"]
        assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["Privileged"]
        assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
        assert self.python(service, "import os; print(os.getuid())").stdout.strip() == "10001"
        assert "Read-only" in self.python(service, "open('/app/x', 'w')").stderr

    def ways_out(self, service: str) -> list[str]:
        """Its networks that are not internal. (Docker 20.10 sets a default route in internal ones too, leading
        nowhere.)"""
        networks = self.inspect(service)["NetworkSettings"]["Networks"]
        internal = {name: docker("network", "inspect", "-f", "{{.Internal}}", name) for name in networks}
        return [name.rpartition("_")[2] for name, is_internal in internal.items() if is_internal == "false"]

    def state(self, engine: str) -> str:
        body = httpx.get(f"{self.url}/health", timeout=10, trust_env=False).json()
        return str(body["engines"][engine]["state"])

    def leftovers(self) -> str:
        kinds = (("ps", "-aq"), ("network", "ls", "-q"), ("volume", "ls", "-q"))
        return "".join(docker(*kind, "--filter", self.filter) for kind in kinds)


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def no_docker() -> str:
    """Why the Docker tests cannot run here; empty when they can."""
    try:
        answer = subprocess.run(["docker", "version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"no Docker engine answers: {exc}"
    return "" if answer.returncode == 0 else f"no Docker engine answers: {answer.stderr.strip()}"


def wait_until(true: Callable[[], bool], what: str, limit: float = 60) -> None:
    deadline = time.monotonic() + limit
    while not true():
        assert time.monotonic() < deadline, f"waited {limit:g} s for {what}"
        time.sleep(0.05)


# Private


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
