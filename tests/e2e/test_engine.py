"""What the engine can do, asked for at the front door: other pictures' pictures, files, turns."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.e2e.stack import Stack, User, running_stack, wait_for

pytestmark = [pytest.mark.timeout(180)]

PROMPT = "a red circle on a white background"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose one worker takes one job at a time."""
    folder: Path = tmp_path_factory.mktemp("narrow") / "state"
    with running_stack(folder, WORKER_SLOTS="1") as running:
        yield running


@pytest.fixture(scope="module")
def alice(narrow: Stack) -> User:
    return narrow.client("alice", "enterprise")


def upload(stack: Stack, user: User, picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    answer = httpx.post(
        f"{stack.url}/v1/images",
        content=file.getvalue(),
        headers={**user._headers, "Content-Type": "image/png"},
        timeout=30,
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def opened(user: User, url: str) -> Image.Image:
    answer = user.get(url, follow=True)
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def test_an_uploaded_picture_is_painted_anew_where_the_mask_is_white(
    narrow: Stack, alice: User
) -> None:
    start = Image.new("RGB", (64, 64), (250, 220, 40))
    mask = Image.new("RGB", (64, 64), (0, 0, 0))
    mask.paste((255, 255, 255), (32, 0, 64, 64))
    init = {
        "image": upload(narrow, alice, start),
        "mask": upload(narrow, alice, mask),
        "strength": 1.0,
    }
    job = alice.wait(alice.submit(PROMPT, seed=3, init_image=init)["id"])
    assert job["state"] == "succeeded", job
    drawn = opened(alice, job["images"][0]["url"]).convert("RGB")
    left = drawn.crop((0, 0, 32, 64))
    assert left.tobytes() == start.crop((0, 0, 32, 64)).tobytes()
    assert drawn.crop((32, 0, 64, 64)).tobytes() != start.crop((32, 0, 64, 64)).tobytes()


def test_someone_elses_picture_is_not_there(narrow: Stack, alice: User) -> None:
    theirs = upload(narrow, alice, Image.new("RGB", (64, 64)))
    answer = narrow.client("mallory", "pro").try_submit(
        PROMPT, init_image={"image": theirs, "strength": 0.5}
    )
    assert answer.status_code == 422, answer.text
    assert "init_image" in answer.text


def test_files_are_what_was_asked_for_with_settings_and_thumbnails(alice: User) -> None:
    asked = {"format": "webp", "quality": 80}
    hires = {"scale": 2.0, "steps": 6, "strength": 0.5}
    job = alice.wait(alice.submit(PROMPT, seed=4, hires=hires, output=asked)["id"])
    assert job["state"] == "succeeded", job
    image = job["images"][0]
    assert image["media_type"] == "image/webp"
    assert (image["width"], image["height"]) == (128, 128)
    file = opened(alice, image["url"])
    assert (file.format, file.size) == ("WEBP", (128, 128))
    settings = json.loads(file.getexif()[270])  # ImageDescription
    assert settings["prompt"] == PROMPT
    thumbnail = opened(alice, image["thumbnail_url"])
    assert (thumbnail.format, max(thumbnail.size)) == ("WEBP", 128)
    # the second pass is priced and counted: 10 steps, then half of 6
    assert job["progress"]["steps"] == 13


def test_words_that_the_model_does_not_know_are_named(alice: User) -> None:
    job = alice.wait(alice.submit("a red zeppelin on a white background", steps=2)["id"])
    assert any("zeppelin" in warning for warning in job["warnings"])


def test_a_paid_job_takes_the_place_of_a_free_one_which_ends_unchanged(
    narrow: Stack, alice: User
) -> None:
    free = narrow.client("frank", "free")
    alone = free.wait(free.submit(PROMPT, seed=5, steps=100, sampler="euler_a")["id"])
    long = free.submit(PROMPT, seed=5, steps=100, sampler="euler_a")
    free.wait_running(long["id"])
    paid = alice.wait(alice.submit(PROMPT, seed=6, steps=4)["id"])
    assert paid["state"] == "succeeded"
    assert free.job(long["id"])["state"] == "running"  # it was set aside, not ended
    ended = free.wait(long["id"])
    assert free.picture(ended) == free.picture(alone)
    assert ended["attempts"] == 1

    def parked() -> bool:
        return any(line.get("event") == "attempt.parked" for line in narrow.log("worker-1"))

    wait_for(parked, "the worker's word that it parked")


def test_a_parked_job_whose_worker_dies_starts_again(narrow: Stack, alice: User) -> None:
    free = narrow.client("fiona", "free")
    alone = free.wait(free.submit(PROMPT, seed=8, steps=100)["id"])
    long = free.submit(PROMPT, seed=8, steps=100)
    free.wait_running(long["id"])
    before = len([one for one in narrow.log("worker-1") if one.get("event") == "attempt.parked"])
    paid = alice.submit(PROMPT, seed=9, steps=100)

    def parked() -> bool:
        lines = [one for one in narrow.log("worker-1") if one.get("event") == "attempt.parked"]
        return len(lines) > before

    wait_for(parked, "the free job set aside")
    narrow.kill("worker-1")
    for user, job in ((alice, paid), (free, long)):
        assert user.wait(job["id"])["state"] == "succeeded"
    assert free.picture(free.job(long["id"])) == free.picture(alone)
