"""The ways of turning a request down; the text is for the caller, and never repeats what was said."""


class Refused(Exception):
    status = 400


class TooLarge(Refused):
    status = 413


class TooSlow(Refused):
    status = 408


class Busy(Refused):
    status = 503


class NotReady(Refused):
    status = 503


class WorkerFailed(Refused):
    """What a worker says is wrong, under its own status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status
