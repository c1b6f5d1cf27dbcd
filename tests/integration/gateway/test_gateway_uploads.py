"""Uploads over HTTP: bounded, re-encoded, the caller's own, and good to begin a picture with."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
from PIL import Image

from tests.fakes.gateway import Gateway, Start


def file(width: int = 64, height: int = 32, kind: str = "JPEG") -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(made, kind)
    return made.getvalue()


async def upload(gateway: Gateway, content: Any, user: str = "alice") -> httpx.Response:  # noqa: ANN401 (what httpx takes)
    return await gateway.http.post("/v1/images", content=content, headers=gateway.auth(user))


async def test_an_upload_is_a_picture_of_the_library(gateway: Gateway) -> None:
    answer = await upload(gateway, file())
    about = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"/v1/images/{about['id']}")
    assert (about["kind"], about["job_id"], about["seed"]) == ("uploaded", None, None)
    assert (about["width"], about["height"], about["media_type"]) == (64, 32, "image/png")
    headers = gateway.auth()
    assert (await gateway.http.get(answer.headers["location"], headers=headers)).json() == about
    listed = await gateway.http.get("/v1/images", params={"kind": "uploaded"}, headers=headers)
    assert listed.json()["items"] == [about]
    for url, kind in ((about["url"], "PNG"), (about["thumbnail_url"], "WEBP")):
        link = await gateway.http.get(url, headers=headers)
        fetched = await gateway.http.get(link.headers["location"])
        picture = Image.open(io.BytesIO(fetched.content))
        assert (fetched.headers["content-type"], picture.format, picture.size) == (
            f"image/{kind.lower()}",
            kind,
            (64, 32),
        )
    path = f"/v1/images/{about['id']}"
    assert (await gateway.http.get(path, headers=gateway.auth("mallory"))).status_code == 404
    assert (await gateway.http.delete(path, headers=headers)).status_code == 204
    assert [one for one in gateway.objects.rglob("*") if one.is_file()] == []


async def test_a_picture_can_begin_with_an_upload(gateway: Gateway) -> None:
    image, mask = [(await upload(gateway, file())).json()["id"] for _ in range(2)]
    begun = {"image": image, "strength": 0.5, "mask": mask}
    assert (await gateway.submit(init_image=begun))["init_image"] == begun
    sent = gateway.scheduler.submissions[-1].jobs[0].generation
    assert (gateway.objects / sent.init_image.object_key).is_file()
    assert sent.init_image.object_key == f"users/alice/uploads/{image}.png"
    assert sent.init_image.mask_object_key == f"users/alice/uploads/{mask}.png"
    other = await gateway.http.post(
        "/v1/generations",
        json={"prompt": "x", "init_image": {"image": image, "strength": 0.5}},
        headers=gateway.auth("mallory"),
    )
    assert (other.status_code, other.json()["errors"][0]["field"]) == (422, "init_image.image")


async def test_what_is_no_picture_or_too_many_pixels_is_422(start: Start) -> None:
    async with start(max_upload_pixels=64 * 32) as gateway:
        assert (await upload(gateway, file())).status_code == 201
        for content, reason in (
            (b"", "PNG, JPEG or WebP"),
            (file(kind="GIF"), "PNG, JPEG or WebP"),
            (file(65, 32), "at most 2048 pixels"),
            (file(kind="PNG")[:-30], "damaged"),
        ):
            answer = await upload(gateway, content)
            assert answer.status_code == 422
            (error,) = answer.json()["errors"]
            assert error["field"] == "body"
            assert reason in error["reason"]
        files = [one for one in gateway.objects.rglob("*") if one.is_file()]
        assert len(files) == 2


async def test_an_upload_has_a_bound_of_its_own_declared_or_not(start: Start) -> None:
    async with start(max_body_bytes=1000, max_upload_bytes=100_000) as gateway:

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(11):
                yield b" " * 10_000

        assert (await upload(gateway, file() + b" " * 90_000)).status_code == 201
        for content in (b" " * 100_001, chunks()):
            answer = await upload(gateway, content)
            assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-large")


async def test_too_many_uploads_at_once_are_refused_at_once(start: Start) -> None:
    async with start(max_uploads=1) as gateway:
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield file()[:10]
            entered.set()
            await go_on.wait()
            yield file()[10:]

        first = asyncio.ensure_future(upload(gateway, slow()))
        await entered.wait()
        async with asyncio.timeout(5):
            while (answer := await upload(gateway, file())).status_code == 201:
                pass  # the first one's head may not have arrived yet
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/overloaded")
        go_on.set()
        assert (await first).status_code == 201
        assert (await upload(gateway, file())).status_code == 201


async def test_an_upload_needs_a_caller(gateway: Gateway) -> None:
    assert (await gateway.http.post("/v1/images", content=file())).status_code == 401
