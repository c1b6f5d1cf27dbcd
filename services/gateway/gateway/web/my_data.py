"""A person's data as one JSON document, written while it is read."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import datetime, timedelta

from easel_kit.ids import UserId
from gateway.service.generations import PricedJob
from gateway.service.privacy import LINK_TTL_S, Privacy
from gateway.web.schemas.base import Out
from gateway.web.schemas.generation import GenerationOut
from gateway.web.schemas.image import LinkedImageOut


async def document(
    privacy: Privacy, user_id: UserId, account: AsyncIterator[bytes], now: datetime
) -> AsyncGenerator[bytes, None]:
    """The document (UTF-8) in parts that end anywhere; where it breaks off, it is no JSON.

    Args:
        privacy: what is asked for jobs and pictures.
        user_id: whose data.
        account: billing's part, a JSON value in parts.
        now: the time that the document says it is of.
    """
    links_until = now + timedelta(seconds=LINK_TTL_S)
    yield _head({"user_id": user_id, "exported_at": now, "links_work_until": links_until})
    yield b', "account": '
    async for part in account:
        yield part
    yield b', "jobs": '
    async with aclosing(privacy.jobs(user_id)) as jobs:
        async for part in _array(GenerationOut.of(PricedJob(job, None)) async for job in jobs):
            yield part
    yield b', "images": '
    async with aclosing(privacy.pictures(user_id)) as pictures:
        async for part in _array(LinkedImageOut.linked(one) async for one in pictures):
            yield part
    yield b"}\n"


def _head(values: dict[str, str | datetime]) -> bytes:
    written = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in values.items()
    }
    return json.dumps(written).removesuffix("}").encode()


async def _array(items: AsyncIterator[Out]) -> AsyncIterator[bytes]:
    separator = b"["
    async for item in items:
        yield separator + item.model_dump_json(by_alias=True).encode()
        separator = b",\n"
    yield b"[]" if separator == b"[" else b"]"
