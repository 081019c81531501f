"""Calls of webhooks, each a job of its own: tried again until it is taken, whatever happens to this process."""

import time
from typing import Any

from gateway.errors import FetchFailed, GatewayError, UrlRefused
from gateway.fetch import Fetcher
from gateway.jobs import Job, Kind, Submission
from gateway.settings import Settings
from gateway.wire import webhooks as wire

KIND = "webhook"
_SLOTS = 8
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 3600.0


class Undelivered(GatewayError):
    """The webhook was not reached, or did not answer with 2xx."""

    status, code = 502, "webhook_undelivered"


def call(url: str, body: bytes, about: Job) -> Submission:
    """A call that tells `about`'s end: one for each job. body: JSON."""
    return Submission(KIND, {"url": url, "body": body.decode()}, about.tenant, key=about.id)


class Webhooks:
    def __init__(self, fetcher: Fetcher, settings: Settings) -> None:
        self._fetcher, self._settings = fetcher, settings

    def kind(self) -> Kind:
        return Kind(
            KIND,
            self.deliver,
            slots=_SLOTS,
            attempts=self._settings.webhook_attempts,
            first_pause=_FIRST_PAUSE,
            longest_pause=_LONGEST_PAUSE,
        )

    async def deliver(self, job: Job) -> dict[str, Any]:
        """Raises Undelivered, also where the URL leads inward by now: it may be its name server that is ill."""
        body = job.payload["body"].encode()
        headers = wire.headers(self._settings.webhook_secret, job.id, int(time.time()), body)
        try:
            status = await self._fetcher.post(job.payload["url"], body, headers, seconds=self._settings.webhook_timeout)
        except (FetchFailed, UrlRefused) as exc:
            raise Undelivered(str(exc)) from None
        if not 200 <= status <= 299:
            raise Undelivered(f"the webhook answered with status {status}")
        return {"status": status}
