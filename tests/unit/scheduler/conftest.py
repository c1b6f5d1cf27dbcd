"""The scheduler in memory."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.scheduler_house import House


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """All use cases over ports in memory."""
    made = House()
    yield made
    await made.close()
