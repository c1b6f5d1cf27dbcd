"""What a request may ask for beyond a prompt: checked, priced, passed on and shown back."""

from __future__ import annotations

from typing import Any

from easel.common.v1 import generation_pb2 as pb
from easel.common.v1 import model_pb2
from easel.scheduler.v1 import jobs_pb2
from easel_kit import ids
from tests.fakes.gateway import Gateway


async def drawn(gateway: Gateway, user: str = "alice") -> str:
    """The id of a picture in the user's library."""
    job = (await gateway.submit(user))["id"]
    image = await gateway.scheduler.succeed(job)
    await gateway.http.get(f"/v1/generations/{job}", headers=gateway.auth(user))
    return image.id


def object_key(gateway: Gateway, image_id: str) -> str:
    (found,) = [
        image.object_key
        for job in gateway.scheduler.jobs.values()
        for image in job.images
        if image.id == image_id
    ]
    return found


async def test_all_of_it_reaches_the_scheduler_and_is_shown_back(gateway: Gateway) -> None:
    cat, mask, edges = [await drawn(gateway) for _ in range(3)]
    asked: dict[str, Any] = {
        "loras": [{"model": "fine", "weight": 0.5}],
        "init_image": {"image": cat, "strength": 0.6, "mask": mask},
        "controls": [
            {"model": "edges", "image": edges, "weight": 0.9, "begin": 0.1, "end": 0.8},
            {"model": "edges", "image": cat},
        ],
        "hires": {"scale": 1.5, "steps": 8, "strength": 0.5},
        "output": {"format": "webp", "quality": 80, "settings": False},
        "clip_skip": 2,
    }
    shown = await gateway.submit(**asked)
    asked["controls"][1] |= {"weight": 1.0, "begin": 0.0, "end": 1.0}
    assert {name: shown[name] for name in asked} == asked
    assert shown["progress"] == {"step": 0, "steps": 10, "percent": 0}
    sent = gateway.scheduler.submissions[-1].jobs[0]
    assert sent.generation.total_steps == 6 + 4
    assert sent.generation.init_image == pb.InitImage(
        object_key=object_key(gateway, cat),
        image_id=cat,
        strength=0.6,
        mask_object_key=object_key(gateway, mask),
        mask_image_id=mask,
    )
    assert sent.generation.controls[0].object_key == object_key(gateway, edges)
    assert sent.generation.loras[0] == pb.Lora(model_key="fine", weight=0.5)
    assert sent.generation.hires == pb.Hires(scale=1.5, steps=8, strength=0.5)
    assert sent.generation.output == pb.Output(
        format=pb.IMAGE_FORMAT_WEBP, quality=80, without_settings=True
    )
    pixel_steps = 64 * 64 * 6 + 96 * 96 * 4
    assert sent.cost_ms == round(pixel_steps * 2 * 100 / 1e6)
    assert shown["price_millicredits"] == pixel_steps // 1000


async def test_a_plain_request_is_sent_as_it_always_was(gateway: Gateway) -> None:
    shown = await gateway.submit()
    sent = gateway.scheduler.submissions[-1].jobs[0].generation
    named = {descriptor.name for descriptor, _ in sent.ListFields()}
    assert named <= {
        "model_key", "prompt", "width_px", "height_px", "steps", "guidance", "seed", "sampler",
        "image_count",
    }  # fmt: skip
    assert (shown["loras"], shown["init_image"], shown["controls"]) == ([], None, [])
    assert (shown["hires"], shown["clip_skip"]) == (None, 0)
    assert shown["output"] == {"format": "png", "quality": None, "settings": True}


NOBODYS = ids.new_image_id()
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"loras": [{"model": "fine"}] * 9}, "loras"),
    ({"loras": [{"model": "fine", "weight": 4.1}]}, "loras.0.weight"),
    ({"loras": [{"model": "none"}]}, "loras.0.model"),
    ({"loras": [{"model": "fine"}, {"model": "fine"}]}, "loras.1.model"),
    ({"loras": [{"model": "edges"}]}, "loras.0.model"),
    ({"init_image": {"image": NOBODYS, "strength": 0.5}}, "init_image.image"),
    ({"init_image": {"image": "users/alice/a.png", "strength": 0.5}}, "init_image.image"),
    ({"init_image": {"image": NOBODYS, "strength": 0}}, "init_image.strength"),
    ({"init_image": {"image": NOBODYS}}, "init_image.strength"),
    ({"init_image": {"image": NOBODYS, "strength": 1, "key": "x"}}, "init_image.key"),
    ({"controls": [{"model": "edges", "image": NOBODYS}] * 5}, "controls"),
    ({"controls": [{"model": "edges", "image": NOBODYS}]}, "controls.0.image"),
    ({"controls": [{"model": "fine", "image": NOBODYS}]}, "controls.0.model"),
    ({"controls": [{"model": "edges", "image": NOBODYS, "end": 0}]}, "controls.0.end"),
    ({"controls": [{"model": "edges", "image": NOBODYS, "weight": 3}]}, "controls.0.weight"),
    ({"hires": {"scale": 1}}, "hires.scale"),
    ({"hires": {"scale": 2, "steps": 51}}, "hires.steps"),
    ({"hires": {"scale": 2, "strength": 1.5}}, "hires.strength"),
    ({"output": {"format": "gif"}}, "output.format"),
    ({"output": {"quality": 90}}, "output.quality"),
    ({"output": {"format": "webp", "quality": 0}}, "output.quality"),
    ({"clip_skip": 13}, "clip_skip"),
]


async def test_a_wrong_field_is_named(gateway: Gateway) -> None:
    for body, field in WRONG:
        for path, more in (
            ("/v1/generations", {"prompt": "x"}),
            ("/v1/batches", {"prompts": ["x"]}),
        ):
            answer = await gateway.http.post(path, json=more | body, headers=gateway.auth())
            assert answer.status_code == 422, body
            assert [error["field"] for error in answer.json()["errors"]] == [field], body
    assert gateway.billing.holds == {}


async def test_what_the_model_does_not_offer_is_named(gateway: Gateway) -> None:
    gateway.scheduler.models.append(
        model_pb2.Model(key="bare", base="shapes", type="main", max_steps=50)
    )
    picture = await drawn(gateway)
    for body, field in (
        ({"init_image": {"image": picture, "strength": 0.5}}, "init_image"),
        ({"hires": {"scale": 2}}, "hires"),
        ({"clip_skip": 1}, "clip_skip"),
    ):
        answer = await gateway.http.post(
            "/v1/generations", json={"prompt": "x", "model": "bare"} | body, headers=gateway.auth()
        )
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert error["field"] == field
        assert "is not offered by bare" in error["reason"]


async def test_someone_elses_picture_is_as_good_as_none(gateway: Gateway) -> None:
    theirs = await drawn(gateway, "mallory")
    reasons = set()
    for image in (theirs, NOBODYS):
        answer = await gateway.http.post(
            "/v1/generations",
            json={"prompt": "x", "init_image": {"image": image, "strength": 0.5}},
            headers=gateway.auth(),
        )
        assert answer.status_code == 422
        reasons.add(answer.json()["errors"][0]["reason"])
    assert reasons == {"is no picture of your library"}


async def test_a_batch_and_a_repeat_take_it_along(gateway: Gateway) -> None:
    picture = await drawn(gateway)
    begun = {"image": picture, "strength": 0.5, "mask": None}
    answer = await gateway.http.post(
        "/v1/batches",
        json={"prompts": ["a", "b"], "init_image": begun, "hires": {"scale": 2}},
        headers=gateway.auth(),
    )
    assert answer.status_code == 202, answer.text
    first, second = answer.json()["items"]
    assert first["init_image"] == second["init_image"] == begun
    assert first["hires"] == {"scale": 2.0, "steps": 10, "strength": 0.5}
    await gateway.scheduler.end(first["id"], jobs_pb2.JOB_STATE_FAILED)
    retry = f"/v1/generations/{first['id']}/retry"
    again = (await gateway.http.post(retry, headers=gateway.auth())).json()
    assert (again["init_image"], again["hires"]) == (begun, first["hires"])
    await gateway.http.delete(f"/v1/images/{picture}", headers=gateway.auth())
    refused = await gateway.http.post(retry, headers=gateway.auth())
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/invalid-state")
    assert "init_image.image" in refused.json()["detail"]


async def test_pictures_are_listed_and_removed(gateway: Gateway) -> None:
    first, second, third = [await drawn(gateway) for _ in range(3)]
    path, headers = "/v1/images", gateway.auth()
    page = (await gateway.http.get(path, params={"limit": 2}, headers=headers)).json()
    assert [item["id"] for item in page["items"]] == [third, second]
    assert {item["kind"] for item in page["items"]} == {"generated"}
    params = {"limit": 2, "cursor": page["next_cursor"]}
    rest = (await gateway.http.get(path, params=params, headers=headers)).json()
    assert ([item["id"] for item in rest["items"]], rest["next_cursor"]) == ([first], None)
    wrong = await gateway.http.get(path, params={"cursor": "x"}, headers=headers)
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "cursor")
    none = (await gateway.http.get(path, params={"kind": "uploaded"}, headers=headers)).json()
    assert none == {"items": [], "next_cursor": None}

    file = gateway.objects / object_key(gateway, first)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    mallory = gateway.auth("mallory")
    assert (await gateway.http.delete(f"{path}/{first}", headers=mallory)).status_code == 404
    gone = await gateway.http.delete(f"{path}/{first}", headers=headers)
    assert (gone.status_code, gone.content) == (204, b"")
    assert not file.exists()
    for left in (f"{path}/{first}", f"{path}/{first}/content"):
        assert (await gateway.http.get(left, headers=headers)).status_code == 404
    assert (await gateway.http.delete(f"{path}/{first}", headers=headers)).status_code == 404


async def test_a_small_copy_is_linked_where_there_is_one(gateway: Gateway) -> None:
    image = await drawn(gateway)
    about = (await gateway.http.get(f"/v1/images/{image}", headers=gateway.auth())).json()
    assert about["thumbnail_url"] == f"/v1/images/{image}/thumbnail"
    link = await gateway.http.get(about["thumbnail_url"], headers=gateway.auth())
    assert link.status_code == 307
    file = gateway.objects / object_key(gateway, image).replace("0.png", "0.t.webp")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"small")
    fetched = await gateway.http.get(link.headers["location"])
    assert (fetched.content, fetched.headers["content-type"]) == (b"small", "image/webp")

    job = (await gateway.submit())["id"]
    await gateway.scheduler.succeed(job)
    gateway.scheduler.jobs[job].images[0].thumbnail_object_key = ""
    gateway.scheduler.jobs[job].images[0].id = bare = ids.new_image_id()
    shown = (await gateway.http.get(f"/v1/generations/{job}", headers=gateway.auth())).json()
    assert shown["images"][0]["thumbnail_url"] is None
    missing = await gateway.http.get(f"/v1/images/{bare}/thumbnail", headers=gateway.auth())
    assert missing.status_code == 404
