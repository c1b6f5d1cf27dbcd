"""Billing on a database of its own."""

from collections.abc import AsyncIterator, Callable

import pytest
from pydantic import SecretStr

from billing.main import migrate
from billing.settings import Settings
from easel_local.testing import Migrate
from tests.fakes.billing_stack import BillingStack


@pytest.fixture
def new_billing_url(migrated_database: Callable[[str, Migrate], str]) -> Callable[[], str]:
    """Makes migrated databases without rows."""

    def prepare(url: str) -> None:
        migrate(Settings(database_url=SecretStr(url)))

    return lambda: migrated_database("billing", prepare)


@pytest.fixture
def billing_url(new_billing_url: Callable[[], str]) -> str:
    """The address of a migrated database without rows."""
    return new_billing_url()


@pytest.fixture
def idle_stack(billing_url: str) -> BillingStack:
    """Billing that a test starts and stops itself."""
    return BillingStack(billing_url)


@pytest.fixture
async def stack(idle_stack: BillingStack) -> AsyncIterator[BillingStack]:
    """Billing that runs, beside a scheduler in memory."""
    async with idle_stack.running() as running:
        yield running
