"""One-off commands of operators."""

from __future__ import annotations

import argparse
import asyncio
import sys

from easel_kit.clock import SystemClock
from easel_kit.db import open_pool
from easel_kit.errors import InvalidInput
from easel_kit.ids import UserId, user_id
from easel_kit.lifecycle import Command
from gateway.domain.privacy import Erasure
from gateway.main import SCHEMA
from gateway.settings import Settings
from gateway.storage.erasures import PostgresErasures


def erase(settings: Settings, arguments: argparse.Namespace) -> None:
    """Begins the erasure of a user, which a gateway that serves goes on with; prints its state."""

    async def act() -> Erasure:
        url = settings.database_url.get_secret_value()
        async with open_pool(url, schema=SCHEMA, name="gateway command", max_size=1) as pool:
            return await PostgresErasures(pool).request(arguments.user, SystemClock().now())

    sys.stdout.write(f"{asyncio.run(act()).state.value}\n")


def _user(text: str) -> UserId:
    try:
        return user_id(text)
    except InvalidInput as error:
        raise argparse.ArgumentTypeError(error.reason) from error


def _declare_erase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", type=_user, help="the user's id, as tokens have it")


ERASE = Command(erase, _declare_erase)
