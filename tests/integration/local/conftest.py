"""A Stripe stand-in with something on offer."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.stripe_shop import Shop, open_shop
from tests.fakes.stripe_stand_in import stripe_stand_in


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with stripe_stand_in() as stand_in:
        yield await open_shop(stand_in)
