"""The way of pictures to and from the object store: coded off the event loop, tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import stamina

from easel_kit.errors import DependencyDown
from easel_kit.objects import ObjectStore
from gpu_worker.clients.decoding import InputBounds, decode_picture
from gpu_worker.clients.encoding import encode_picture, encode_preview, encode_thumbnail
from gpu_worker.domain.drawing import DrawnPicture, EncodedPicture, Raster
from gpu_worker.domain.generation import Generation

_FETCHES = 4
"""At a time over all jobs: each holds a file and its pixels in memory."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the store is tried: times, and seconds for each and for all."""

    tries: int = 4
    first_wait_s: float = 0.1
    max_wait_s: float = 2.0
    one_try_s: float = 30.0


class ObjectGallery:
    """Port `Gallery` over an object store."""

    def __init__(self, store: ObjectStore, patience: Patience, bounds: InputBounds) -> None:
        """Each upload is one PutObject under the same key, so that trying again is harmless.

        Args:
            store: where pictures are.
            patience: with it.
            bounds: of pictures that jobs read.
        """
        self._store = store
        self._patience = patience
        self._bounds = bounds
        self._fetching = asyncio.Semaphore(_FETCHES)

    async def fetch(self, key: str) -> Raster:
        """See the port."""
        async with self._fetching:
            data = await self._patiently(lambda: self._store.get(key))
            return await asyncio.to_thread(decode_picture, data, self._bounds)

    async def preview(self, raster: Raster) -> EncodedPicture:
        """A PNG without settings, packed for speed."""
        return await asyncio.to_thread(encode_preview, raster)

    async def thumbnail(self, raster: Raster) -> EncodedPicture:
        """See the port."""
        return await asyncio.to_thread(encode_thumbnail, raster)

    async def encode(self, picture: DrawnPicture, generation: Generation) -> EncodedPicture:
        """See the port; how settings stand inside is `encoding`'s to say."""
        return await asyncio.to_thread(encode_picture, picture, generation)

    async def store(self, key: str, picture: EncodedPicture) -> None:
        """See the port."""
        await self._patiently(lambda: self._store.put(key, picture.data, picture.media_type))

    async def _patiently(self, call: Callable[[], Awaitable[_Result]]) -> _Result:
        patience = self._patience
        async for attempt in stamina.retry_context(
            on=DependencyDown,
            attempts=patience.tries,
            timeout=None,
            wait_initial=patience.first_wait_s,
            wait_max=patience.max_wait_s,
            wait_jitter=patience.first_wait_s,
        ):
            with attempt:
                try:
                    async with asyncio.timeout(patience.one_try_s):
                        return await call()
                except TimeoutError:
                    raise DependencyDown("the object store does not answer") from None
        raise AssertionError("the last try returns or raises")  # pragma: no cover
