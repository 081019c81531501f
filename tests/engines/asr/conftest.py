from collections.abc import Iterator

import pytest

from tests.engines.asr.running import Server, serving


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests that leave it as they found it."""
    with serving(tmp_path_factory.mktemp("asr"), "--workers", "1", "--upload-mib", "150") as running:
        yield running
