"""One stack for the modules that leave it whole."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with two workers that all quiet end-to-end tests share."""
    folder: Path = tmp_path_factory.mktemp("stack") / "state"
    with running_stack(folder, workers=1) as running:
        yield running
