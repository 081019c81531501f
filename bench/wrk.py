"""One round of wrk, the load generator, against one contender."""

import re
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from bench.stand import Contender


@dataclass(frozen=True, slots=True)
class Load:
    """One round. Times in milliseconds."""

    requests_per_second: float
    p50: float
    p99: float
    cpu_ms: float
    """Of the contender's process, for each request."""


_REPORT = """
done = function(summary, latency)
  local e = summary.errors
  local bad = e.status + e.connect + e.read + e.write + e.timeout
  io.write(string.format('RESULT %d %d %d %d %d', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), bad))
end
"""


def load(one: Contender, connections: int, seconds: float) -> Load:
    """Fails where a single request does."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f"wrk.method, wrk.body = 'POST', '{one.body.decode()}'\n")
        script.write(f"wrk.headers['Content-Type'] = '{one.content_type}'\n{_REPORT}")
        script.flush()
        before = one.cpu_seconds()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", script.name, one.url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        cpu = one.cpu_seconds() - before
    match = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", output)
    assert match, output
    requests, duration, p50, p99, bad = map(int, match.groups())
    assert not bad, f"{one.name}: {bad} of {requests} requests failed"
    return Load(requests / duration * 1e6, p50 / 1000, p99 / 1000, cpu * 1000 / requests)


def median(loads: Sequence[Load]) -> Load:
    return Load(*(statistics.median(getattr(load, name) for load in loads) for name in Load.__slots__))
