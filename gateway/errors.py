"""Every way a request can fail, as a type. The type says who is to blame:

GatewayError 500 us
├── CallerError 4xx the caller: BadRequest 400 (UrlRefused, FetchFailed among them), Unauthorized 401, Forbidden 403,
│                   NotFound 404, MethodNotAllowed 405, TooLarge 413, AudioRejected 422, TooSlow 429, RateLimited 429,
│                   QuotaUsed 429
├── EngineError 5xx the engine: EngineBroke 502, EngineTimeout 504,
│                   EngineBusy 503, EngineLoading 503, EngineUnavailable 503
└── ClientGone  499 nobody is left to read the answer

A surface turns one into bytes with its own shape; `status`, `code` and `retry_after` are the same everywhere.
"""


class GatewayError(Exception):
    """Our fault, unless a subclass says otherwise. `str()` of it may be shown to the client."""

    status = 500
    code = "internal"
    retry_after: int | None = None
    """Seconds after which the same request may succeed; None where it will not."""

    def __init__(
        self,
        text: str = "",
        *,
        code: str | None = None,
        retry_after: int | None = None,
        quotes: bool = False,
        param: str | None = None,
    ) -> None:
        """quotes: whether `text` holds words that are not ours and may be a user's; those are not logged.
        param: the field of the request that is wrong, where it is one."""
        super().__init__(text or "the gateway failed on this request")
        self.quotes, self.param = quotes, param
        if code is not None:
            self.code = code
        if retry_after is not None:
            self.retry_after = retry_after


class CallerError(GatewayError):
    status, code = 400, "bad_request"


class BadRequest(CallerError):
    """The request itself is wrong."""


class UrlRefused(BadRequest):
    """A URL that a caller names may not be asked: its form, its port, or where it leads."""

    code = "url_refused"


class FetchFailed(BadRequest):
    """A URL that a caller names was asked, and gave nothing that can be used."""

    code = "fetch_failed"


class Unauthorized(CallerError):
    """No key was given where one is asked for, or one that is not known, revoked or expired. Which of them it is, the
    client is not told."""

    status, code = 401, "unauthorized"

    def __init__(self, text: str, *, what: str = "", given: str = "") -> None:
        """For surfaces that say it in their own words: what is missing or wrong, token or appkey, and what was given
        instead, masked."""
        super().__init__(text)
        self.what, self.given = what, given


class Forbidden(CallerError):
    """The key is good, but not for this."""

    status, code = 403, "forbidden"


class NotFound(CallerError):
    status, code = 404, "not_found"


class MethodNotAllowed(CallerError):
    status, code = 405, "method_not_allowed"


class TooLarge(CallerError):
    status, code = 413, "too_large"


class AudioRejected(CallerError):
    """The uploaded audio cannot be used. `code` is one of audio_empty, audio_undecodable, audio_silent,
    audio_too_short, audio_too_long, audio_decode_timeout."""

    status, code = 422, "audio_rejected"


class TooSlow(CallerError):
    """The client does not read what it asked for."""

    status, code = 429, "too_slow"


class RateLimited(CallerError):
    """The key has asked too often, or holds as many sessions as it may."""

    status, code, retry_after = 429, "rate_limited", 1


class QuotaUsed(CallerError):
    """The seconds of audio that the key may use are used."""

    status, code = 429, "quota_used"


class EngineError(GatewayError):
    status, code = 502, "engine_error"


class EngineBroke(EngineError):
    """The engine died, or answered something that is not its protocol."""

    code = "engine_broke"


class EngineBusy(EngineError):
    """Every slot is taken and so is every place in the queue."""

    status, code, retry_after = 503, "engine_busy", 5


class EngineLoading(EngineError):
    status, code, retry_after = 503, "engine_loading", 10


class EngineUnavailable(EngineError):
    """No replica answers, or each one says that it has failed."""

    status, code, retry_after = 503, "engine_unavailable", 10


class EngineUnreachable(EngineUnavailable):
    """No connection to it can be made: nothing of the request has reached it."""


class EngineTimeout(EngineError):
    status, code = 504, "engine_timeout"


class ShuttingDown(GatewayError):
    status, code, retry_after = 503, "shutting_down", 5


class ClientGone(GatewayError):
    """The client hung up. Never sent; ends the request's scopes."""

    status, code = 499, "client_gone"
