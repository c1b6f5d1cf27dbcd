"""Plans that tokens claim, request limits, and the catalogue, over ports in memory."""

from dataclasses import replace

import pytest

from easel_kit.errors import DependencyDown, Forbidden, InvalidInput, NotFound, Overloaded
from gateway.domain.identity import Identity
from gateway.domain.library import Picture, pictures_of_job
from gateway.domain.wish import Wish
from gateway.service.accounts import Accounts
from gateway.service.catalogue import Catalogue
from gateway.service.memory import Recent
from gateway.service.pictures import Pictures
from tests.fakes.gateway_money import FakeLedger, plan
from tests.fakes.gateway_ports import (
    ALICE,
    MALLORY,
    NOON,
    FakeLibrary,
    FakeModels,
    FakeObjects,
    MovedClock,
    finished,
    model,
)

AWAY = DependencyDown("away")


def accounts(ledger: FakeLedger, clock: MovedClock, *, trust: bool = True) -> Accounts:
    return Accounts(ledger, clock, trust_plan_claim=trust, default_requests_per_minute=7)


async def test_a_claimed_plan_is_taken_once() -> None:
    ledger = FakeLedger()
    service = accounts(ledger, MovedClock())
    for _ in range(2):
        await service.admit(Identity(ALICE, "pro"))
    assert ledger.calls == ["get_account", "change_plan"]
    assert await service.requests_per_minute(ALICE) == 600
    await service.admit(Identity(ALICE, "free"))
    assert ledger.plan.key == "free"


async def test_a_plan_that_is_had_already_is_left() -> None:
    ledger = FakeLedger()
    await accounts(ledger, MovedClock()).admit(Identity(ALICE, "free"))
    assert ledger.calls == ["get_account"]


async def test_claims_without_trust_or_content_ask_nobody() -> None:
    ledger = FakeLedger()
    await accounts(ledger, MovedClock(), trust=False).admit(Identity(ALICE, "pro"))
    await accounts(ledger, MovedClock()).admit(Identity(ALICE))
    assert ledger.calls == []


async def test_an_unknown_plan_is_refused_and_an_outage_is_not() -> None:
    ledger = FakeLedger()
    service = accounts(ledger, MovedClock())
    with pytest.raises(Forbidden):
        await service.admit(Identity(ALICE, "gold"))
    ledger.fault = AWAY
    await service.admit(Identity(ALICE, "pro"))
    ledger.fault = None
    await service.admit(Identity(ALICE, "pro"))
    assert ledger.plan.key == "pro"


async def test_a_plan_that_a_subscription_pays_for_counts_for_more_than_a_claim() -> None:
    ledger = FakeLedger(plan=plan("pro", requests_per_minute=600), subscribed=True)
    service = accounts(ledger, MovedClock())
    for _ in range(2):
        await service.admit(Identity(ALICE, "free"))
    assert ledger.calls == ["get_account", "change_plan"]
    assert ledger.plan.key == "pro"
    assert await service.requests_per_minute(ALICE) == 600


async def test_limits_are_asked_for_once_a_minute() -> None:
    ledger, clock = FakeLedger(), MovedClock()
    service = accounts(ledger, clock)
    assert await service.requests_per_minute(ALICE) == 60
    ledger.plan = plan("pro", requests_per_minute=600)
    assert await service.requests_per_minute(ALICE) == 60
    clock.elapsed_s = 61
    ledger.fault = AWAY
    assert await service.requests_per_minute(ALICE) == 60
    ledger.fault = None
    assert await service.requests_per_minute(ALICE) == 600


async def test_a_stranger_gets_the_default_limit_while_billing_is_away() -> None:
    ledger = FakeLedger(fault=AWAY)
    assert await accounts(ledger, MovedClock()).requests_per_minute(ALICE) == 7


async def test_account_plans_and_ledger_are_billings() -> None:
    service = accounts(FakeLedger(), MovedClock())
    assert (await service.account(ALICE)).user_id == ALICE
    assert [found.key for found in (await service.offers()).plans] == ["free"]
    page = await service.ledger(ALICE, page_size=20, page_token="", job_id=None)
    assert page.lines == ()


def test_memory_is_bounded_and_forgets_by_age() -> None:
    clock = MovedClock()
    memory: Recent[str, int] = Recent(clock, size=2)
    for number, key in enumerate("abc"):
        memory.put(key, number)
    assert (memory.get("a"), memory.get("b"), memory.get("c")) == (None, 1, 2)
    memory.put("b", 5)
    memory.put("d", 6)
    assert (memory.get("b"), memory.get("c")) == (5, None)
    clock.elapsed_s = 10
    assert memory.get("b", max_age_s=9) is None
    assert memory.get("b", max_age_s=10) == 5


async def test_the_catalogue_is_asked_for_now_and_then() -> None:
    models, clock = FakeModels(), MovedClock()
    catalogue = Catalogue(models, clock)
    for _ in range(3):
        assert [found.key for found in await catalogue.all()] == ["shapes-64"]
    assert models.asked == 1
    clock.elapsed_s = 5.1
    await catalogue.all()
    assert models.asked == 2


async def test_a_wish_for_a_new_model_asks_again_but_not_always() -> None:
    models, clock = FakeModels(), MovedClock()
    catalogue = Catalogue(models, clock)
    wish = Wish(prompt="x", model="new")
    for _ in range(3):
        with pytest.raises(InvalidInput):
            await catalogue.settle(wish, fresh_seed=0, object_keys={})
    assert models.asked == 1
    models.models.append(model("new"))
    clock.elapsed_s = 0.6
    assert (await catalogue.settle(wish, fresh_seed=0, object_keys={})).model_key == "new"


async def test_the_last_catalogue_outlasts_outage_and_empty_lists() -> None:
    models, clock = FakeModels(), MovedClock()
    catalogue = Catalogue(models, clock)
    await catalogue.all()
    clock.elapsed_s, models.fault = 10, AWAY
    assert [found.key for found in await catalogue.all()] == ["shapes-64"]
    clock.elapsed_s, models.fault = 20, None
    models.models.clear()
    assert [found.key for found in await catalogue.all()] == ["shapes-64"]


async def test_without_any_catalogue_the_outage_is_told() -> None:
    models = FakeModels(fault=AWAY)
    with pytest.raises(DependencyDown):
        await Catalogue(models, MovedClock()).all()
    models.fault = None
    models.models.clear()
    with pytest.raises(Overloaded):
        await Catalogue(models, MovedClock()).settle(Wish(prompt="x"), fresh_seed=0, object_keys={})


async def test_a_picture_is_found_and_linked() -> None:
    done, library = finished(), FakeLibrary()
    picture = Picture(image=done.images[0], user_id=ALICE, job_id=done.id, created_at=NOON)
    await library.record([picture])
    pictures = Pictures(library, FakeObjects())
    assert await pictures.find(ALICE, picture.image.id) == picture
    url = await pictures.content_url(ALICE, picture.image.id)
    assert url == f"/objects/{picture.image.object_key}?expires=300"
    url = await pictures.thumbnail_url(ALICE, picture.image.id)
    assert url == f"/objects/{picture.image.thumbnail_object_key}?expires=300"


async def test_a_picture_without_a_small_copy_has_no_link_to_one() -> None:
    done, library = finished(), FakeLibrary()
    image = replace(done.images[0], thumbnail_object_key="")
    await library.record([Picture(image=image, user_id=ALICE, job_id=done.id, created_at=NOON)])
    objects = FakeObjects({image.object_key: b"x"})
    pictures = Pictures(library, objects)
    with pytest.raises(NotFound, match=image.id):
        await pictures.thumbnail_url(ALICE, image.id)
    await pictures.delete(ALICE, image.id)
    assert objects.kept == {}


async def test_a_removed_picture_is_gone_with_its_bytes_and_does_not_come_back() -> None:
    done, library = finished(), FakeLibrary()
    kept = pictures_of_job(done)
    await library.record(kept)
    gone = done.images[0]
    objects = FakeObjects(
        {
            key: b"x"
            for image in done.images
            for key in (image.object_key, image.thumbnail_object_key)
        }
    )
    pictures = Pictures(library, objects)
    with pytest.raises(NotFound):
        await pictures.delete(MALLORY, gone.id)
    objects.fault = AWAY
    with pytest.raises(DependencyDown):
        await pictures.delete(ALICE, gone.id)
    objects.fault = None
    assert await pictures.find(ALICE, gone.id) == kept[0]  # the try can be made again
    await pictures.delete(ALICE, gone.id)
    await library.record(kept)
    for attempt in (pictures.find, pictures.content_url, pictures.delete):
        with pytest.raises(NotFound):
            await attempt(ALICE, gone.id)
    assert set(objects.kept) == {done.images[1].object_key, done.images[1].thumbnail_object_key}
    page = await pictures.page(ALICE, kind=None, before=None, limit=20)
    assert page.pictures == (kept[1],)
