"""Whether the engine can speak yet: loading, ready, or failed with a reason."""

import logging
from threading import Thread

from engines.tts.backends import Backend
from engines.tts.job import NotReady
from gateway.wire.engine_health import Report

log = logging.getLogger(__name__)


class Readiness:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.report = self._report("loading")

    def start(self) -> None:
        """Loads in a thread that the process need not wait for when it is told to end."""
        Thread(target=self._load, name="load", daemon=True).start()

    def require(self) -> None:
        """Raises NotReady."""
        if self.report.state != "ready":
            raise NotReady(self.report.reason or "the engine is loading")

    def _load(self) -> None:
        try:
            self._backend.load()
        except Exception as exc:
            log.exception("the engine cannot be loaded")
            self.report = self._report("failed", f"{type(exc).__name__}: {exc}")
        else:
            self.report = self._report("ready")

    def _report(self, state: str, reason: str = "") -> Report:
        return Report(state, self._backend.model, self._backend.device, reason)
