"""What happens as time passes: everything that is due is done, in the order of its time.

Two kinds of clocks: the stand-in's own, by which most customers live, and test clocks, each
moving its own customers (https://docs.stripe.com/billing/testing/test-clocks).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from stripe.params.test_helpers import (
    TestClockAdvanceParams,
    TestClockCreateParams,
    TestClockDeleteParams,
    TestClockListParams,
    TestClockRetrieveParams,
)

from easel_local.stripe import checkout, customers, subscriptions
from easel_local.stripe.calls import Call, Endpoint
from easel_local.stripe.objects import Obj, new_id
from easel_local.stripe.refusal import invalid, not_served
from easel_local.stripe.rendering import render
from easel_local.stripe.world import World

_KIND = "test_helpers.test_clock"
_LIFE_S = 30 * 86_400
_MAX_STEPS = 100_000  # of one move; more would keep everybody waiting

_WORK: dict[str, tuple[str, Callable[[World, Obj, int], None]]] = {
    "cancel": ("subscription", subscriptions.end_as_planned),
    "expire": ("checkout.session", checkout.expire),
    "finalize": ("invoice", subscriptions.complete),
    "incomplete": ("subscription", subscriptions.expire_incomplete),
    "renew": ("subscription", subscriptions.renew),
    "retry": ("invoice", subscriptions.retry),
}


def _owner_clock(world: World, key: str) -> str | None:
    """The test clock by which what is planned falls due."""
    kind, _, object_id = key.partition(":")
    obj = world.find(_WORK[kind][0], object_id)
    owner = None if obj is None else obj["customer"]
    return None if owner is None else world.clock_of(owner)


def _run(world: World, clock_id: str | None, until: int, step: Callable[[int, str], None]) -> None:
    """Do what a clock makes due up to a moment, in time order, what follows from it included."""
    due = [
        (when, key)
        for key, when in world.agenda.items()
        if when <= until and _owner_clock(world, key) == clock_id
    ]
    heapq.heapify(due)
    world.planned.clear()
    count = 0
    while due and count < _MAX_STEPS:
        when, key = heapq.heappop(due)
        if world.agenda.get(key) == when:
            step(when, key)
            count += 1
        for planned in world.planned:
            if planned[0] <= until and _owner_clock(world, planned[1]) == clock_id:
                heapq.heappush(due, planned)
        world.planned.clear()


def _do(world: World, key: str, when: int) -> None:
    del world.agenda[key]
    kind, _, object_id = key.partition(":")
    object_kind, work = _WORK[kind]
    obj = world.find(object_kind, object_id)
    world.version += 1
    if obj is not None:
        work(world, obj, when)


def catch_up(world: World) -> None:
    """Do what is due by the stand-in's own clock."""
    until = world.clock.now()
    if min(world.agenda.values(), default=until + 1) > until:
        world.planned.clear()
        return

    def step(when: int, key: str) -> None:
        with world.clock.acting_at(when):
            _do(world, key, when)

    _run(world, None, until, step)


def _advance(call: Call) -> Obj:
    world = call.world
    clock, target = world.get(_KIND, call.id), call.params["frozen_time"]
    if target <= clock["frozen_time"]:
        raise invalid("frozen_time", "must be later than the clock's own time")
    furthest = _furthest(world, clock)
    if target > furthest:
        raise invalid("frozen_time", "at most two periods ahead of the shortest subscription")

    def step(when: int, key: str) -> None:
        clock["frozen_time"] = max(when, clock["frozen_time"])
        _do(world, key, when)

    _run(world, clock["id"], target, step)
    clock["frozen_time"] = target
    world.version += 1
    _tell(world, clock, "test_helpers.test_clock.advancing")
    _tell(world, clock, "test_helpers.test_clock.ready")
    return render(world, clock) | {
        # Stripe answers while it is at work, and so do we, who are done.
        "status": "advancing",
        "status_details": {"advancing": {"target_frozen_time": target}},
    }


def _furthest(world: World, clock: Obj) -> int:
    """Stripe lets a clock jump two periods of its shortest subscription at most."""
    ends = [
        item["current_period_end"] + (item["current_period_end"] - item["current_period_start"])
        for subscription in world.every("subscription")
        if subscription["test_clock"] == clock["id"]
        and subscription["status"] not in subscriptions.ENDED
        for item in subscription["items"]["data"]
    ]
    furthest: int = min(ends, default=clock["frozen_time"] + 2 * 366 * 86_400)
    return furthest


def _tell(world: World, clock: Obj, kind: str) -> None:
    world.emit(kind, render(world, clock), created=world.clock.now())


def _create(call: Call) -> Obj:
    world = call.world
    if "customer" in call.params:
        raise not_served("customer")
    now = world.clock.now()
    clock = world.add(
        {
            "id": new_id("clock"),
            "object": _KIND,
            "created": now,
            "deletes_after": now + _LIFE_S,
            "frozen_time": call.params["frozen_time"],
            "livemode": False,
            "name": call.params.get("name"),
            "status": "ready",
            "status_details": {},
        }
    )
    _tell(world, clock, "test_helpers.test_clock.created")
    return render(world, clock)


def _delete(call: Call) -> Obj:
    world = call.world
    clock = world.get(_KIND, call.id)
    for customer in list(world.every("customer")):
        if customer["_clock"] == clock["id"] and not customer.get("deleted"):
            customers.delete_customer(world, customer)
    del world.kinds[_KIND][clock["id"]]
    for customer in world.every("customer"):
        if customer["_clock"] == clock["id"]:
            customer["_clock"] = None
    world.version += 1
    world.emit("test_helpers.test_clock.deleted", render(world, clock), created=world.clock.now())
    return {"id": clock["id"], "object": _KIND, "deleted": True}


ENDPOINTS = (
    Endpoint("POST", "/v1/test_helpers/test_clocks", TestClockCreateParams, _create),
    Endpoint(
        "GET",
        "/v1/test_helpers/test_clocks",
        TestClockListParams,
        lambda call: call.page(call.world.every(_KIND)),
    ),
    Endpoint(
        "GET",
        "/v1/test_helpers/test_clocks/{id}",
        TestClockRetrieveParams,
        lambda call: render(call.world, call.world.get(_KIND, call.id)),
    ),
    Endpoint("POST", "/v1/test_helpers/test_clocks/{id}/advance", TestClockAdvanceParams, _advance),
    Endpoint("DELETE", "/v1/test_helpers/test_clocks/{id}", TestClockDeleteParams, _delete),
)
