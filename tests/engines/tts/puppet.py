"""What every backend made up for a test has in common."""

from engines.tts.job import Job, Refused


class Puppet:
    model, device, parallel = "puppet", "cpu", 1
    speakers: tuple[str, ...] = ("one",)
    registered: tuple[str, ...] = ()
    sample_rate = 24_000

    def load(self) -> None:
        pass

    def rate(self, job: Job) -> int:
        return self.sample_rate

    def register(self, name: str, job: Job) -> None:
        raise Refused("no voices are kept here")
