"""Lives of subscriptions at the Stripe stand-in, through the real SDK."""

from datetime import UTC, datetime, timedelta

import pytest
import stripe
from stripe import Subscription

from easel_local.stripe.refusal import Refused
from tests.fakes.stripe_shop import ENTERPRISE_CENTS, PRO_CENTS, Shop, open_shop
from tests.fakes.stripe_stand_in import DECLINES, FAILS_LATER, stripe_stand_in

MONTH = timedelta(days=31)
AN_HOUR = timedelta(hours=1, minutes=1)


def period(subscription: Subscription) -> tuple[datetime, datetime]:
    item = subscription["items"].data[0]
    return (
        datetime.fromtimestamp(item.current_period_start, UTC),
        datetime.fromtimestamp(item.current_period_end, UTC),
    )


async def test_a_checkout_starts_a_subscription_that_renews(shop: Shop) -> None:
    customer = await shop.customer(metadata={"account": "acc_1"})
    data = {"metadata": {"plan": "pro"}}
    subscription = await shop.subscribe(customer, shop.pro, subscription_data=data)
    assert subscription.status == "active"
    assert subscription.metadata.to_dict() == {"plan": "pro"}
    start, end = period(subscription)
    assert start == shop.stand_in.now()
    assert (end.month - start.month) % 12 == 1
    first = (await shop.invoices(customer))[0]
    assert (first.billing_reason, first.status, first.total) == (
        *("subscription_create", "paid"),
        PRO_CENTS,
    )
    shop.stand_in.advance_to(end)
    renewed = await shop.subscription(subscription.id)
    assert period(renewed)[0] == end
    draft = (await shop.invoices(customer))[0]
    assert (draft.billing_reason, draft.status) == ("subscription_cycle", "draft")
    shop.stand_in.advance(AN_HOUR)
    paid = (await shop.invoices(customer))[0]
    assert (paid.id, paid.status, paid.amount_paid) == (draft.id, "paid", PRO_CENTS)
    line = paid.lines.data[0]
    assert line.period.start == int(end.timestamp())
    assert line.pricing is not None
    assert line.pricing.price_details is not None
    assert line.pricing.price_details.price == shop.pro


async def test_a_year_passes_in_one_move(shop: Shop) -> None:
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.pro)
    shop.stand_in.advance(timedelta(days=366))
    invoices = await shop.invoices(customer)
    assert [invoice.status for invoice in invoices] == ["paid"] * 13
    ends = [invoice.lines.data[0].period.end for invoice in invoices]
    starts = [invoice.lines.data[0].period.start for invoice in invoices]
    assert starts[:-1] == ends[1:]
    assert {invoice.created for invoice in invoices} == set(starts)
    assert (await shop.subscription(subscription.id)).status == "active"


async def test_an_upgrade_pays_the_difference_to_the_cent(shop: Shop) -> None:
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.pro)
    start, end = period(subscription)
    now = shop.stand_in.advance(timedelta(days=11, hours=7, seconds=13))
    changed = await shop.change(
        subscription,
        shop.enterprise,
        proration_behavior="always_invoice",
        payment_behavior="error_if_incomplete",
    )
    assert changed["items"].data[0].price.id == shop.enterprise
    assert period(changed) == (start, end)
    invoice = (await shop.invoices(customer))[0]
    credit, debit = invoice.lines.data
    left = (end - now) / (end - start)
    assert credit.amount == -round(PRO_CENTS * left)
    assert debit.amount == round(ENTERPRISE_CENTS * left)
    assert invoice.total == invoice.amount_paid == credit.amount + debit.amount
    assert invoice.billing_reason == "subscription_update"
    for line in (credit, debit):
        assert line.parent is not None
        assert line.parent.subscription_item_details is not None
        assert line.parent.subscription_item_details.proration
        assert line.period.start == int(now.timestamp())
        assert line.period.end == int(end.timestamp())
    credited = credit.parent.subscription_item_details.proration_details.credited_items  # type: ignore[union-attr]
    first = (await shop.invoices(customer))[1]
    assert credited is not None
    assert credited.invoice == first.id
    assert credited.invoice_line_items == [first.lines.data[0].id]


async def test_a_downgrade_is_credited_by_the_next_invoice(shop: Shop) -> None:
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.enterprise)
    shop.stand_in.advance(timedelta(days=10))
    await shop.change(subscription, shop.pro, proration_behavior="create_prorations")
    assert len(await shop.invoices(customer)) == 1
    preview = await shop.stripe.v1.invoices.create_preview_async({"subscription": subscription.id})
    shop.stand_in.advance(MONTH)
    invoice = (await shop.invoices(customer))[0]
    amounts = [line.amount for line in invoice.lines.data]
    assert len(amounts) == 3
    assert sum(amounts) == invoice.total == preview.total < 0
    assert amounts[-1] == PRO_CENTS
    assert (invoice.status, invoice.amount_due) == ("paid", 0)
    balance = (await shop.stripe.v1.customers.retrieve_async(customer)).balance
    assert balance == invoice.total
    shop.stand_in.advance(MONTH)
    following = (await shop.invoices(customer))[0]
    assert following.amount_due == max(0, PRO_CENTS + (balance or 0))


async def test_a_declined_upgrade_changes_nothing(shop: Shop) -> None:
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.pro, FAILS_LATER)
    events = len((await shop.stripe.v1.events.list_async({"limit": 100})).data)
    with pytest.raises(stripe.CardError) as refused:
        await shop.change(
            subscription,
            shop.enterprise,
            proration_behavior="always_invoice",
            payment_behavior="error_if_incomplete",
        )
    assert refused.value.code == "card_declined"
    assert (await shop.subscription(subscription.id)).to_dict() == subscription.to_dict()
    assert len((await shop.stripe.v1.events.list_async({"limit": 100})).data) == events


async def test_a_declined_renewal_is_tried_again_and_recovers(shop: Shop) -> None:
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.pro, FAILS_LATER)
    shop.stand_in.advance_to(period(subscription)[1] + AN_HOUR)
    assert (await shop.subscription(subscription.id)).status == "past_due"
    failed = (await shop.invoices(customer))[0]
    assert (failed.status, failed.attempt_count, failed.attempted) == ("open", 1, True)
    assert failed.next_payment_attempt is not None
    shop.stand_in.replace_card(customer)
    shop.stand_in.advance_to(datetime.fromtimestamp(failed.next_payment_attempt, UTC))
    assert (await shop.subscription(subscription.id)).status == "active"
    paid = (await shop.invoices(customer))[0]
    assert (paid.id, paid.status, paid.attempt_count) == (failed.id, "paid", 2)


async def test_an_open_invoice_can_be_paid_by_call(shop: Shop) -> None:
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.pro, FAILS_LATER)
    shop.stand_in.advance_to(period(subscription)[1] + AN_HOUR)
    invoice = (await shop.invoices(customer))[0]
    with pytest.raises(stripe.CardError):
        await shop.stripe.v1.invoices.pay_async(invoice.id)
    card = await shop.stripe.v1.payment_methods.attach_async("pm_card_visa", {"customer": customer})
    paid = await shop.stripe.v1.invoices.pay_async(invoice.id, {"payment_method": card.id})
    assert paid.status == "paid"
    assert (await shop.subscription(subscription.id)).status == "active"
    with pytest.raises(stripe.InvalidRequestError, match="already paid"):
        await shop.stripe.v1.invoices.pay_async(invoice.id)


@pytest.mark.parametrize("after", ["canceled", "unpaid", "past_due"])
async def test_when_every_try_was_declined_the_rules_decide(after: str) -> None:
    async with stripe_stand_in(after_retries=after) as stand_in:
        shop = await open_shop(stand_in)
        customer = await shop.customer()
        subscription = await shop.subscribe(customer, shop.pro, FAILS_LATER)
        shop.stand_in.advance_to(period(subscription)[1] + timedelta(days=16))
        ended = await shop.subscription(subscription.id)
        assert ended.status == after
        invoice = (await shop.invoices(customer))[0]
        assert (invoice.attempt_count, invoice.status) == (4, "open")
        assert invoice.next_payment_attempt is None


async def test_cancel_at_period_end_and_think_again(shop: Shop) -> None:
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.pro)
    end = period(subscription)[1]
    update = shop.stripe.v1.subscriptions.update_async
    leaving = await update(subscription.id, {"cancel_at_period_end": True})
    assert (leaving.status, leaving.cancel_at) == ("active", int(end.timestamp()))
    staying = await update(subscription.id, {"cancel_at_period_end": False})
    assert (staying.cancel_at, staying.canceled_at) == (None, None)
    await update(subscription.id, {"cancel_at_period_end": True})
    shop.stand_in.advance_to(end)
    gone = await shop.subscription(subscription.id)
    assert (gone.status, gone.ended_at) == ("canceled", int(end.timestamp()))
    assert len(await shop.invoices(customer)) == 1
    listed = shop.stripe.v1.subscriptions.list_async
    assert not (await listed({"customer": customer})).data
    assert (await listed({"customer": customer, "status": "all"})).data[0].id == subscription.id
    with pytest.raises(stripe.InvalidRequestError):
        await update(subscription.id, {"cancel_at_period_end": False})


async def test_cancel_now_ends_it_once(shop: Shop) -> None:
    subscription = await shop.subscribe(await shop.customer(), shop.pro)
    cancel = shop.stripe.v1.subscriptions.cancel_async
    assert (await cancel(subscription.id)).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await cancel(subscription.id)
    assert refused.value.code == "resource_missing"


async def test_a_customer_that_is_deleted_has_no_subscription_any_more(shop: Shop) -> None:
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.pro)
    deleted = await shop.stripe.v1.customers.delete_async(customer)
    assert deleted.deleted
    assert (await shop.subscription(subscription.id)).status == "canceled"
    assert (await shop.stripe.v1.customers.retrieve_async(customer)).deleted
    with pytest.raises(stripe.InvalidRequestError):
        await shop.stripe.v1.customers.update_async(customer, {"name": "x"})
    shop.stand_in.advance(2 * MONTH)
    assert len(await shop.invoices(customer)) == 1


async def test_a_first_payment_that_never_comes(shop: Shop) -> None:
    customer = await shop.customer()
    card = await shop.stripe.v1.payment_methods.attach_async(
        "pm_card_chargeCustomerFail", {"customer": customer}
    )
    params = {
        "customer": customer,
        "items": [{"price": shop.pro}],
        "default_payment_method": card.id,
    }
    create = shop.stripe.v1.subscriptions.create_async
    with pytest.raises(stripe.CardError):
        await create({**params, "payment_behavior": "error_if_incomplete"})  # type: ignore[arg-type]
    subscription = await create(params)  # type: ignore[arg-type]
    assert subscription.status == "incomplete"
    shop.stand_in.advance(timedelta(hours=23))
    assert (await shop.subscription(subscription.id)).status == "incomplete_expired"
    assert (await shop.invoices(customer))[0].status == "void"


async def test_another_interval_starts_a_new_period_now(shop: Shop) -> None:
    yearly = await shop.stripe.v1.prices.create_async(
        {
            "currency": "usd",
            "unit_amount": 19_000,
            "recurring": {"interval": "year"},
            "product_data": {"name": "Pro, a year"},
        }
    )
    customer = await shop.customer()
    subscription = await shop.subscribe(customer, shop.pro)
    now = shop.stand_in.advance(timedelta(days=3))
    changed = await shop.change(subscription, yearly.id)
    assert period(changed)[0] == now
    assert period(changed)[1].year == now.year + 1
    invoice = (await shop.invoices(customer))[0]
    assert [line.amount < 0 for line in invoice.lines.data] == [True, False]
    assert invoice.lines.data[1].amount == 19_000
    assert invoice.status == "paid"


async def test_a_declined_card_leaves_the_session_open(shop: Shop) -> None:
    customer = await shop.customer()
    session = await shop.checkout(customer, shop.pro)
    with pytest.raises(Refused, match="declined"):
        shop.stand_in.pay(session.id, DECLINES)
    again = await shop.stripe.v1.checkout.sessions.retrieve_async(session.id)
    assert (again.status, again.payment_status) == ("open", "unpaid")
    assert not (await shop.stripe.v1.subscriptions.list_async({"status": "all"})).data
    assert shop.stand_in.pay(session.id)["status"] == "complete"
    with pytest.raises(Refused, match="complete"):
        shop.stand_in.pay(session.id)


async def test_customers_of_a_test_clock_live_by_it(shop: Shop) -> None:
    clocks = shop.stripe.v1.test_helpers.test_clocks
    frozen = int(shop.stand_in.now().timestamp()) - 86_400
    clock = await clocks.create_async({"frozen_time": frozen, "name": "slow"})
    customer = await shop.customer(test_clock=clock.id)
    other = await shop.customer()
    subscription = await shop.subscribe(customer, shop.pro)
    await shop.subscribe(other, shop.pro)
    assert subscription.created == frozen
    advancing = await clocks.advance_async(clock.id, {"frozen_time": frozen + 32 * 86_400})
    assert advancing.status == "advancing"
    assert (await clocks.retrieve_async(clock.id)).status == "ready"
    assert len(await shop.invoices(customer)) == 2
    assert len(await shop.invoices(other)) == 1
    shop.stand_in.advance(3 * MONTH)
    assert len(await shop.invoices(customer)) == 2
    with pytest.raises(stripe.InvalidRequestError):
        await clocks.advance_async(clock.id, {"frozen_time": frozen})
    await clocks.delete_async(clock.id)
    assert (await shop.stripe.v1.customers.retrieve_async(customer)).deleted
