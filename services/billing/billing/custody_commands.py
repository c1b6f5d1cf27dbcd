"""One-off commands about people's data and the audit log."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from billing.custody import SERVICE_NAME, build_privacy
from billing.domain.audit import Actor
from billing.domain.privacy import Erasure
from billing.settings import Settings
from easel_kit.audit_check import AuditReport, verify
from easel_kit.clock import SystemClock
from easel_kit.db import Pool, open_pool
from easel_kit.errors import InvalidInput
from easel_kit.ids import UserId, user_id
from easel_kit.lifecycle import Command
from easel_kit.objects import open_object_store

# a check reads every row of the log, an export every row of an account
_TIMEOUT_S = 600.0
_CONNECTIONS = 2


def audit_verify(settings: Settings) -> None:
    """Prints everything in the audit log that is not as it was written; then exits with 1.

    Raises:
        InvalidInput: no object store is set.
    """
    report = asyncio.run(_verify(settings))
    for finding in report.findings:
        sys.stdout.write(f"{finding}\n")
    sys.stdout.write(
        f"audit-verify: {len(report.findings)} findings in {report.rows} rows, "
        f"{report.unanchored} of them not yet anchored\n"
    )
    if report.findings:
        sys.exit(1)


async def _verify(settings: Settings) -> AuditReport:
    if settings.objects is None:
        raise InvalidInput("objects", "must name the store with the anchors: BILLING_OBJECTS__URL")
    async with (
        _pool(settings) as pool,
        open_object_store(settings.objects, SystemClock()) as store,
    ):
        return await verify(pool, store, SERVICE_NAME)


def erase(settings: Settings, arguments: argparse.Namespace) -> None:
    """Begins the erasure of a user, which a billing that serves goes on with; prints its state."""

    async def act() -> Erasure:
        async with _pool(settings) as pool:
            return await build_privacy(pool, SystemClock()).erase(arguments.user, Actor.OPERATOR)

    erasure = asyncio.run(act())
    sys.stdout.write(f"{erasure.id}: {erasure.state.value}\n")


def export(settings: Settings, arguments: argparse.Namespace) -> None:
    """Writes everything that is kept of a user into a file that is not there yet, as JSON."""

    async def act(file: IO[str]) -> None:
        async with _pool(settings) as pool:
            privacy = build_privacy(pool, SystemClock())
            async with await privacy.export(arguments.user, Actor.OPERATOR) as parts:
                async for part in parts:
                    file.write(part)

    try:
        file = arguments.out.open("x", encoding="utf-8")
    except OSError as error:
        raise InvalidInput("out", error.strerror or "cannot be written") from error
    try:
        with file:
            asyncio.run(act(file))
    except BaseException:
        arguments.out.unlink()  # a part would pass for the whole
        raise
    sys.stdout.write(f"{arguments.out}\n")


@asynccontextmanager
async def _pool(settings: Settings) -> AsyncIterator[Pool]:
    async with open_pool(
        settings.database_url.get_secret_value(),
        schema="billing",
        name="billing command",
        max_size=_CONNECTIONS,
        command_timeout_s=_TIMEOUT_S,
    ) as pool:
        yield pool


def _user(text: str) -> UserId:
    try:
        return user_id(text)
    except InvalidInput as error:
        raise argparse.ArgumentTypeError(error.reason) from error


def _declare_erase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", type=_user, help="the user's id, as tokens have it")


def _declare_export(parser: argparse.ArgumentParser) -> None:
    _declare_erase(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new file")


ERASE = Command(erase, _declare_erase)
EXPORT = Command(export, _declare_export)
