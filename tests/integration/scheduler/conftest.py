"""The scheduler on a database and a Redis of its own."""

from collections.abc import AsyncIterator, Callable

import pytest
from pydantic import SecretStr

from easel_local.testing import Migrate
from scheduler.main import migrate
from scheduler.settings import Settings
from tests.fakes.scheduler_stack import SchedulerStack


@pytest.fixture
def scheduler_url(migrated_database: Callable[[str, Migrate], str]) -> str:
    """The address of a migrated database without rows."""

    def prepare(url: str) -> None:
        migrate(Settings(database_url=SecretStr(url), redis_url=SecretStr("redis://127.0.0.1:1")))

    return migrated_database("scheduler", prepare)


@pytest.fixture
def idle_stack(scheduler_url: str, redis_url: str) -> SchedulerStack:
    """A scheduler that a test starts and stops itself."""
    return SchedulerStack(scheduler_url, redis_url)


@pytest.fixture
async def stack(idle_stack: SchedulerStack) -> AsyncIterator[SchedulerStack]:
    """A scheduler that runs."""
    async with idle_stack.running():
        yield idle_stack
