"""Bodies that are taken byte for byte."""

from __future__ import annotations

import asyncio

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from easel_kit.errors import DeadlineExceeded


async def raw_body(request: Request, *, within_s: float) -> bytes:
    """The body's bytes as they came; the middleware bounds how many.

    Raises:
        DeadlineExceeded: the body took longer than `within_s` seconds.
        HTTPException: 400, the client has gone.
    """
    try:
        async with asyncio.timeout(within_s):
            return await request.body()
    except TimeoutError as error:
        raise DeadlineExceeded("the body took too long to arrive") from error
    except ClientDisconnect as error:
        raise HTTPException(400) from error
