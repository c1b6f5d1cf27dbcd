"""The hosted pages of the Stripe stand-in, used as a browser uses them."""

from collections.abc import AsyncIterator
from datetime import timedelta
from html.parser import HTMLParser

import httpx
import pytest

from easel_local.stripe.cards import CARDS
from easel_local.stripe.page import grouped
from tests.fakes.stripe_shop import Shop, pack_price
from tests.fakes.stripe_stand_in import DECLINES, FAILS_LATER, PAYS

NASTY = "<script>alert(1)</script>\"'&"


@pytest.fixture
async def browser(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=shop.stand_in.url, trust_env=False) as client:
        yield client


class Page(HTMLParser):
    """What a screen reader finds: forms, labels, links, and whether all is closed."""

    VOID = frozenset({"meta", "input", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.inputs: list[dict[str, str | None]] = []
        self.labels: set[str | None] = set()
        self.ids: set[str | None] = set()
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids.add(given.get("id"))
        if tag == "label":
            self.labels.add(given["for"])
        if tag == "input":
            self.inputs.append(given)
        assert tag != "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(answer: httpx.Response) -> Page:
    """The page, after what holds for all of them."""
    page = Page(answer.text)
    for field in page.inputs:
        if field.get("type") != "hidden":
            assert field["id"] in page.labels
            assert set(str(field["aria-describedby"]).split()) <= page.ids
    assert '<html lang="en">' in answer.text
    assert "no real money" in answer.text
    assert "http-equiv" not in answer.text
    assert NASTY not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    return page


def card_field(answer: httpx.Response) -> dict[str, str | None]:
    return next(field for field in read(answer).inputs if field.get("id") == "card")


async def test_the_front_door_says_what_this_is(browser: httpx.AsyncClient) -> None:
    shown = await browser.get("/")
    assert shown.status_code == 200
    read(shown)
    assert "/v1/billing/checkout" in shown.text
    for card in CARDS:
        assert grouped(card.number) in shown.text


async def test_a_person_pays(shop: Shop, browser: httpx.AsyncClient) -> None:
    cancel = f"http://127.0.0.1:1/back?x={NASTY}"
    session = await shop.checkout(await shop.customer(), shop.pro, cancel_url=cancel)
    assert session.url is not None
    shown = await browser.get(session.url)
    read(shown)
    for text in ("Pro", "$19.00", "every month", "Subscribe", "Cancel"):
        assert text in shown.text
    declined = await browser.post(session.url, data={"card": DECLINES})
    read(declined)
    assert declined.status_code == 402
    assert 'role="alert"' in declined.text
    assert "Your card was declined." in declined.text
    assert card_field(declined)["value"] == "4000 0000 0000 0002", "what was typed stays"
    unknown = await browser.post(session.url, data={"card": "4111111111111111"})
    assert "no test card" in unknown.text
    assert "4111" not in unknown.text
    assert "<details open>" in unknown.text, "it says which are"
    paid = await browser.post(session.url, data={"card": "4242 4242-4242 4242"})
    assert paid.status_code == 303
    assert paid.headers["location"] == f"http://127.0.0.1:1/done?session={session.id}"
    assert (await shop.stripe.v1.subscriptions.list_async()).data[0].status == "active"
    again = await browser.post(session.url, data={"card": PAYS})
    assert "has been paid" in again.text
    assert len((await shop.stripe.v1.subscriptions.list_async()).data) == 1


async def test_names_cannot_break_out_of_the_page(shop: Shop, browser: httpx.AsyncClient) -> None:
    data = pack_price() | {"currency": "eur", "unit_amount": 5, "product_data": {"name": NASTY}}
    session = await shop.stripe.v1.checkout.sessions.create_async(
        {
            "mode": "payment",
            "line_items": [{"price_data": data, "quantity": 3}],
            "success_url": f'http://x/"><b>{NASTY}',
        }
    )
    assert session.url is not None
    shown = await browser.get(session.url)
    read(shown)
    assert "EUR 0.15" in shown.text
    await browser.post(session.url, data={"card": PAYS})
    read(await browser.get(session.url))


async def test_a_session_that_expired_says_so(shop: Shop, browser: httpx.AsyncClient) -> None:
    session = await shop.checkout(await shop.customer(), shop.pro)
    assert session.url is not None
    shop.stand_in.advance(timedelta(days=1))
    for answer in (
        await browser.get(session.url),
        await browser.post(session.url, data={"card": PAYS}),
    ):
        read(answer)
        assert "has expired" in answer.text
    missing = await browser.get("/c/pay/cs_test_none")
    assert missing.status_code == 404
    read(missing)
    assert "leads nowhere" in missing.text
    assert "checkout.session" not in missing.text, "no words of the API's"


async def test_a_person_manages_a_subscription(shop: Shop, browser: httpx.AsyncClient) -> None:
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.pro, FAILS_LATER)
    session = await shop.stripe.v1.billing_portal.sessions.create_async(
        {"customer": customer, "return_url": "http://127.0.0.1:1/account"}
    )
    read(await browser.get(session.url))
    chosen = {"subscription": subscription.id}
    await browser.post(session.url, data={"do": "cancel", **chosen})
    shown = await browser.get(session.url)
    assert "Ends on" in shown.text
    assert (await shop.subscription(subscription.id)).cancel_at_period_end
    await browser.post(session.url, data={"do": "resume", **chosen})
    assert not (await shop.subscription(subscription.id)).cancel_at_period_end
    shop.stand_in.advance(timedelta(days=32))
    late = await browser.get(session.url)
    assert "past due" in late.text
    assert "The last payment failed" in late.text
    declined = await browser.post(session.url, data={"do": "card", "card": DECLINES})
    assert (declined.status_code, "declined" in declined.text) == (402, True)
    assert card_field(declined)["aria-invalid"] == "true"
    assert declined.text.index("<h2>Card") < declined.text.index('role="alert"')
    await browser.post(session.url, data={"do": "card", "card": PAYS})
    shop.stand_in.advance(timedelta(days=4))
    assert (await shop.subscription(subscription.id)).status == "active"
    shown = await browser.get(session.url)
    read(shown)
    assert "ending in 4242" in shown.text
    invoice = (await shop.invoices(customer))[0]
    assert f"/i/{invoice.id}" in shown.text
    read(await browser.get(f"/i/{invoice.id}"))


async def test_nobody_manages_the_subscription_of_another(
    shop: Shop, browser: httpx.AsyncClient
) -> None:
    theirs = await shop.subscribe(await shop.customer(), shop.pro)
    mine = await shop.stripe.v1.billing_portal.sessions.create_async(
        {"customer": await shop.customer(), "return_url": "http://x"}
    )
    answer = await browser.post(mine.url, data={"do": "cancel", "subscription": theirs.id})
    assert "not yours" in answer.text
    assert "aria-invalid" not in card_field(answer), "the card is not at fault"
    assert not (await shop.subscription(theirs.id)).cancel_at_period_end
    for nonsense in ({}, {"do": "x"}, {"do": "cancel"}):
        assert (await browser.post(mine.url, data=nonsense)).status_code < 500
    assert (await browser.post(mine.url, content=b"\xff=%ff")).status_code < 500
