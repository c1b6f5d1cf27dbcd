"""The scheduler on a database and a Redis of its own."""

from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from pydantic import SecretStr

from easel_local.testing import Databases
from scheduler.main import migrate
from scheduler.settings import Settings
from tests.fakes.scheduler_stack import SchedulerStack

_EMPTY = """
    TRUNCATE scheduler.events, scheduler.results, scheduler.attempts, scheduler.jobs,
        scheduler.open_jobs, scheduler.tombstones RESTART IDENTITY;
    UPDATE scheduler.feed SET generation = 1, pruned_generation = 0, pruned_transaction_id = 0,
        pruned_sequence = 0;
"""


@pytest.fixture(scope="session")
def _scheduler_database(databases: Databases) -> Iterator[str]:
    """One migrated database for all tests of a process: emptying is cheaper than copying."""

    def prepare(url: str) -> None:
        migrate(Settings(database_url=SecretStr(url), redis_url=SecretStr("redis://127.0.0.1:1")))

    url = databases.create_migrated("scheduler", prepare)
    yield url
    databases.drop(url)


@pytest.fixture
def scheduler_url(_scheduler_database: str) -> str:
    """The address of a migrated database without rows."""
    with psycopg.connect(_scheduler_database, autocommit=True) as connection:
        connection.execute(_EMPTY)
    return _scheduler_database


@pytest.fixture
def idle_stack(scheduler_url: str, redis_url: str) -> SchedulerStack:
    """A scheduler that a test starts and stops itself."""
    return SchedulerStack(scheduler_url, redis_url)


@pytest.fixture
async def stack(idle_stack: SchedulerStack) -> AsyncIterator[SchedulerStack]:
    """A scheduler that runs."""
    async with idle_stack.running():
        yield idle_stack
