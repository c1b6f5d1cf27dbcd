"""Estimates, purchases and webhooks, over ports in memory."""

from __future__ import annotations

import asyncio

import pytest

from easel_kit.errors import DependencyDown, Forbidden, InvalidInput, InvalidState, Overloaded
from easel_kit.ids import ModelKey
from gateway.domain.batch import job_count
from gateway.domain.job import Outlook
from gateway.domain.money import (
    BadSignature,
    Month,
    Purchase,
    ReturnOrigins,
    Ware,
    origin_of,
)
from gateway.domain.wish import Wish
from gateway.service.catalogue import Catalogue
from gateway.service.estimates import Estimates
from gateway.service.orders import Orders
from gateway.service.payments import Notices, Purchases
from tests.fakes.gateway_money import FakeLedger, FakePayments, FakeQuotes, FakeWebhooks
from tests.fakes.gateway_ports import (
    ALICE,
    FakeLibrary,
    FakeLine,
    FakeModels,
    MovedClock,
    model,
)

HERE = "https://easel.example"
WISH = Wish(prompt="a red circle")


class Office:
    """Estimates and what is behind them."""

    def __init__(self) -> None:
        self.models = FakeModels()
        self.quotes, self.ledger, self.line = FakeQuotes(), FakeLedger(), FakeLine()
        orders = Orders(FakeLibrary(), Catalogue(self.models, MovedClock()))
        self.estimates = Estimates(orders, self.quotes, self.ledger, self.line, self.line)  # type: ignore[arg-type]


async def test_an_estimate_says_price_balance_and_outlook() -> None:
    office = Office()
    found = await office.estimates.estimate(ALICE, WISH)
    assert (found.jobs, found.price_millicredits, found.total_millicredits) == (1, 40, 40)
    assert (found.available_millicredits, found.suffices) == (1000, True)
    assert (found.outlook, found.warnings) == (Outlook(1, 2.5), ())
    assert office.quotes.asked == office.line.foreseen
    assert office.quotes.asked[0].model_key == ModelKey("shapes-64")


@pytest.mark.parametrize(("available", "suffices"), [(120, True), (119, False)])
async def test_a_batch_is_summed_up(available: int, suffices: bool) -> None:  # noqa: FBT001
    office = Office()
    office.ledger.available = available
    found = await office.estimates.estimate(ALICE, WISH, jobs=3)
    assert (found.price_millicredits, found.total_millicredits) == (40, 120)
    assert found.suffices is suffices


@pytest.mark.parametrize(("is_open", "jobs", "fits"), [(2, 1, True), (3, 1, False), (1, 3, False)])
async def test_what_would_be_refused_has_no_outlook(is_open: int, jobs: int, fits: bool) -> None:  # noqa: FBT001
    office = Office()
    office.line.open = is_open
    found = await office.estimates.estimate(ALICE, WISH, jobs=jobs)
    assert (found.outlook is not None) is fits
    if not fits:
        (warning,) = found.warnings
        assert warning.startswith(f"{is_open} of your jobs run or wait, and your plan allows 3")


async def test_an_estimate_refuses_what_a_submit_refuses() -> None:
    office = Office()
    office.quotes.refuse = Forbidden("picture size")
    with pytest.raises(Forbidden):
        await office.estimates.estimate(ALICE, WISH)
    with pytest.raises(InvalidInput, match="steps"):
        await office.estimates.estimate(ALICE, Wish(prompt="x", steps=999))


async def test_a_queue_that_is_away_costs_the_outlook_alone() -> None:
    office = Office()
    office.line.fault = DependencyDown("away")
    found = await office.estimates.estimate(ALICE, WISH)
    assert (found.price_millicredits, found.outlook) == (40, None)
    assert found.warnings == ("the queue does not answer: position and eta are unknown",)


async def test_a_model_that_nobody_has_loaded_is_told() -> None:
    office = Office()
    office.models.models = [model("warm"), model("cold", loaded=False)]
    cold = await office.estimates.estimate(ALICE, Wish(prompt="x", model="cold"))
    assert cold.warnings == ("no worker has cold in memory: its first job waits until one has",)
    warm = await office.estimates.estimate(ALICE, Wish(prompt="x", model="warm"))
    assert warm.warnings == ()


def test_jobs_of_a_batch_are_counted_and_bounded() -> None:
    assert job_count(["a", "b"], [], 3) == 6
    assert job_count(["a", "b"], [1, 2], 3) == 12
    with pytest.raises(InvalidInput, match="501"):
        job_count(["a"], [], 501)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://app.example/thanks?session={CHECKOUT_SESSION_ID}", "https://app.example"),
        ("HTTPS://App.Example:443", "https://app.example"),
        ("http://app.example:80/", "http://app.example"),
        ("http://127.0.0.1:8080/x#y", "http://127.0.0.1:8080"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ],
)
def test_the_origin_of_a_url(url: str, origin: str) -> None:
    assert origin_of(url, "u") == origin


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/thanks",
        "//app.example/x",
        "app.example",
        "javascript:alert(1)",
        "ftp://app.example/",
        "https://",
        "https://app.example@evil.example/",
        "https://app.example:99999/",
        "https://app.example:x/",
        "https://[::1/",
        "https:\\\\app.example",
        "https://app.example\\@evil.example/",
        "https://app.example/a b",
        "https://app.example/\n",
        "https://äpp.example/",
        "https://app.example/" + "x" * 2000,
    ],
)
def test_what_could_be_read_in_two_ways_is_no_url(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"^success_url: must be an absolute"):
        origin_of(url, "success_url")


async def test_pages_lead_back_to_known_origins_alone() -> None:
    payments = FakePayments()
    purchases = Purchases(payments, ReturnOrigins.of("", f"{HERE}/", "http://localhost:3000"))
    pro = Purchase(Ware.PLAN, "pro")
    for success, cancel, field in (
        ("https://evil.example/", f"{HERE}/x", "success_url"),
        (f"{HERE}/x", "https://easel.example.evil.example/", "cancel_url"),
        (f"{HERE}:8443/x", f"{HERE}/x", "success_url"),
        ("http://easel.example/", f"{HERE}/x", "success_url"),
    ):
        with pytest.raises(InvalidInput, match=f"^{field}: must be of an origin .*localhost:3000"):
            await purchases.checkout(ALICE, pro, success_url=success, cancel_url=cancel, key="k")
    with pytest.raises(InvalidInput, match="return_url"):
        await purchases.portal(ALICE, return_url="https://evil.example/")
    assert payments.asked == []
    page = await purchases.checkout(
        ALICE, pro, success_url=f"{HERE}/a", cancel_url="http://localhost:3000/b", key="k"
    )
    assert page.url == "https://pay.example/k"
    assert await purchases.portal(ALICE, return_url=f"{HERE}/a") == "https://pay.example/portal"


async def test_without_origins_nothing_can_be_led_back_to() -> None:
    purchases = Purchases(FakePayments(), ReturnOrigins.of(""))
    with pytest.raises(InvalidInput, match="none are set up"):
        await purchases.portal(ALICE, return_url=f"{HERE}/a")


async def test_a_checkout_without_a_key_is_an_attempt_of_its_own() -> None:
    purchases = Purchases(FakePayments(), ReturnOrigins.of(HERE))
    small = Purchase(Ware.PACK, "small")
    urls = {
        (await purchases.checkout(ALICE, small, success_url=HERE, cancel_url=HERE, key="")).url
        for _ in range(2)
    }
    assert len(urls) == 2


async def test_a_subscription_is_changed_cancelled_and_resumed() -> None:
    payments = FakePayments()
    purchases = Purchases(payments, ReturnOrigins.of(HERE))
    with pytest.raises(InvalidState):
        await purchases.change(ALICE, "pro")
    payments.account = await FakeLedger().get_account(ALICE)
    for answer in (
        await purchases.change(ALICE, "pro"),
        await purchases.cancel(ALICE),
        await purchases.resume(ALICE),
    ):
        assert answer is payments.account
    assert payments.asked[1:] == [("change", ALICE, "pro"), ("cancel", ALICE), ("resume", ALICE)]


async def test_webhooks_are_bounded_by_how_many_are_looked_at_together() -> None:
    webhooks = FakeWebhooks()
    notices = Notices(webhooks, at_once=2)
    both = [asyncio.ensure_future(notices.accept(b"%d" % n, "s")) for n in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await notices.accept(b"x", "s")
    webhooks.go_on.set()
    await asyncio.gather(*both)
    await notices.accept(b"2", "s")
    assert webhooks.kept == [b"0", b"1", b"2"]
    with pytest.raises(BadSignature):
        await notices.accept(b"x", "")


def test_a_month_is_written_as_in_its_path() -> None:
    assert str(Month(2026, 3)) == "2026-03"
