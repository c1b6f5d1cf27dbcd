"""How a subscription stands: changes of its status, its end, and the events that tell of them."""

from __future__ import annotations

from easel_local.stripe.objects import Obj, changed
from easel_local.stripe.rendering import render
from easel_local.stripe.world import World

ENDED = frozenset({"canceled", "incomplete_expired"})


def tell_update(world: World, subscription: Obj, before: Obj, now: int) -> Obj:
    """Emit ``customer.subscription.updated`` where it differs from before; how it looks now."""
    after = render(world, subscription)
    if after != before:
        world.version += 1
        world.emit("customer.subscription.updated", after, changed(before, after), created=now)
    return after


def set_status(world: World, subscription: Obj, status: str, now: int) -> None:
    """Change the status, in the open."""
    before = render(world, subscription)
    subscription["status"] = status
    tell_update(world, subscription, before, now)


def end(world: World, subscription: Obj, now: int, *, reason: str | None = None) -> None:
    """End it at once, for good; what was not invoiced yet is dropped.

    Args:
        world: where it is.
        subscription: not ended yet.
        now: the time.
        reason: ``cancellation_requested`` or ``payment_failed``.
    """
    subscription["status"] = "canceled"
    subscription["canceled_at"] = subscription["canceled_at"] or now
    subscription["ended_at"] = now
    subscription["_pending"] = []
    if reason is not None:
        subscription["cancellation_details"]["reason"] = reason
    for kind in ("renew", "incomplete", "cancel"):
        world.forget(kind, subscription)
    for invoice in world.owned("invoice", subscription["customer"]):
        if invoice["_subscription"] == subscription["id"] and invoice["status"] in _UNPAID:
            # As Stripe does: what is unpaid stays, and is not tried again by itself.
            invoice["auto_advance"] = False
            invoice["next_payment_attempt"] = None
            world.forget("retry", invoice)
            world.forget("finalize", invoice)
    world.version += 1
    world.emit("customer.subscription.deleted", render(world, subscription), created=now)


_UNPAID = frozenset({"draft", "open"})
