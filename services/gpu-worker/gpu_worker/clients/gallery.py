"""Pictures as files: encoding off the event loop, settings inside, and the way to the store."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

import stamina
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from easel_kit.errors import DependencyDown
from easel_kit.objects import ObjectStore
from gpu_worker.domain.drawing import DrawnPicture, EncodedPicture, Raster
from gpu_worker.domain.generation import Generation

_MEDIA_TYPE = "image/png"
_SOFTWARE = f"Easel {version('easel-gpu-worker')}"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an upload is tried: times, and seconds for each and for all."""

    tries: int = 4
    first_wait_s: float = 0.1
    max_wait_s: float = 2.0
    one_try_s: float = 30.0


class ObjectGallery:
    """Port `Gallery` over an object store."""

    def __init__(self, store: ObjectStore, patience: Patience) -> None:
        """Each upload is one PutObject under the same key, so that trying again is harmless."""
        self._store = store
        self._patience = patience

    async def preview(self, raster: Raster) -> EncodedPicture:
        """A PNG without settings, packed for speed."""
        return await asyncio.to_thread(_encode, raster, {}, compress_level=1)

    async def encode(self, picture: DrawnPicture, generation: Generation) -> EncodedPicture:
        """See the port; the settings stand in iTXt chunks, as text."""
        settings = settings_of(picture, generation)
        return await asyncio.to_thread(_encode, picture.raster, settings, compress_level=6)

    async def store(self, key: str, picture: EncodedPicture) -> None:
        """See the port."""
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
                await self._put(key, picture)

    async def _put(self, key: str, picture: EncodedPicture) -> None:
        try:
            async with asyncio.timeout(self._patience.one_try_s):
                await self._store.put(key, picture.data, picture.media_type)
        except TimeoutError:
            raise DependencyDown("the object store does not answer") from None


def settings_of(picture: DrawnPicture, generation: Generation) -> Mapping[str, str]:
    """What repeats this very picture. Nothing that differs between two equal requests."""
    return {
        "Software": _SOFTWARE,
        "prompt": generation.prompt,
        "negative_prompt": generation.negative_prompt,
        "model": generation.model_key,
        "seed": str(picture.seed),
        "steps": str(generation.steps),
        "guidance": f"{generation.guidance:g}",
        "sampler": generation.sampler,
        "size": f"{picture.raster.width_px}x{picture.raster.height_px}",
    }


def _encode(raster: Raster, settings: Mapping[str, str], *, compress_level: int) -> EncodedPicture:
    image = Image.frombytes("RGB", (raster.width_px, raster.height_px), raster.rgb)
    chunks = PngInfo()
    for key, value in settings.items():
        chunks.add_itxt(key, value)
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=chunks, compress_level=compress_level)
    data = file.getvalue()
    return EncodedPicture(data, _MEDIA_TYPE, hashlib.sha256(data).hexdigest())
