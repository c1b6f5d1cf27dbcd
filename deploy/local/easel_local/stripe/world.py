"""Everything that the stand-in knows: objects, what falls due when, events, time.

Calls are plain functions on one thread, so each is carried out as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from stripe._api_version import _ApiVersion

from easel_local.stripe.clock import StandInClock
from easel_local.stripe.objects import Obj, new_id
from easel_local.stripe.refusal import no_such

_MAX_EVENTS = 50_000
_KIND_NAMES = {
    "checkout.session": "checkout.session",
    "payment_method": "PaymentMethod",
    "test_helpers.test_clock": "test clock",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What at Stripe is chosen in the dashboard.

    Attributes:
        retry_days: days from one failed try of an invoice to the next.
        after_retries: what becomes of a subscription whose last try failed: ``canceled``,
            ``unpaid`` or ``past_due``.
        draft_s: seconds a renewal's invoice is a draft before it is charged.
    """

    retry_days: tuple[int, ...] = (3, 5, 7)
    after_retries: str = "canceled"
    draft_s: int = 3_600


@dataclass(slots=True)
class Asked:
    """The request that is being carried out; what comes by itself has none."""

    request_id: str | None = None
    idempotency_key: str | None = None


@dataclass(slots=True)
class World:
    """The state. `agenda` maps ``kind:object id`` to the time at which it falls due."""

    clock: StandInClock = field(default_factory=StandInClock)
    rules: Rules = field(default_factory=Rules)
    url: str = ""
    kinds: dict[str, dict[str, Obj]] = field(default_factory=dict)
    agenda: dict[str, int] = field(default_factory=dict)
    planned: list[tuple[int, str]] = field(default_factory=list)
    """What was planned since somebody last looked, see `timekeeping`."""
    asked: Asked = field(default_factory=Asked)
    owned_by: dict[str, dict[str, dict[str, Obj]]] = field(default_factory=dict)
    """Customer, kind, id."""
    version: int = 0
    """Grows with every change."""
    listeners: list[Callable[[Obj], None]] = field(default_factory=list)

    def add(self, obj: Obj) -> Obj:
        """Keep a new object."""
        self.kinds.setdefault(obj["object"], {})[obj["id"]] = obj
        self.adopt(obj)
        self.version += 1
        return obj

    def adopt(self, obj: Obj) -> None:
        """Let the customer that an object names, in the open or privately, be found to own it."""
        owner = obj.get("customer") or obj.get("_owner")
        if owner:
            self.owned_by.setdefault(owner, {}).setdefault(obj["object"], {})[obj["id"]] = obj

    def owned(self, kind: str, customer_id: str) -> Iterator[Obj]:
        """All of one kind that belong to a customer, oldest first."""
        return iter(list(self.owned_by.get(customer_id, {}).get(kind, {}).values()))

    def every(self, kind: str) -> Iterator[Obj]:
        """All of one kind, oldest first."""
        return iter(list(self.kinds.get(kind, {}).values()))

    def find(self, kind: str, object_id: str) -> Obj | None:
        """One object, None when there is no such."""
        return self.kinds.get(kind, {}).get(object_id)

    def get(self, kind: str, object_id: str, *, param: str | None = None) -> Obj:
        """One object.

        Args:
            kind: its `object`.
            object_id: its id.
            param: the parameter that named it; None when the path did.

        Raises:
            Refused: there is no such.
        """
        found = self.find(kind, object_id)
        if found is None:
            name = _KIND_NAMES.get(kind, kind)
            raise no_such(name, object_id, param=param or "id", in_body=param is not None)
        return found

    def anything(self, object_id: str) -> Obj | None:
        """The object of that id, of whatever kind."""
        for kind in self.kinds.values():
            if object_id in kind:
                return kind[object_id]
        return None

    def now(self, customer_id: str | None = None) -> int:
        """The time, of the customer's test clock where it has one."""
        if customer_id is not None:
            bound = self.clock_of(customer_id)
            if bound is not None:
                return int(self.get("test_helpers.test_clock", bound)["frozen_time"])
        return self.clock.now()

    def clock_of(self, customer_id: str) -> str | None:
        """The test clock that a customer lives by."""
        customer = self.find("customer", customer_id)
        bound: str | None = customer["_clock"] if customer is not None else None
        return bound

    def plan(self, kind: str, obj: Obj, when: int) -> None:
        """Let something become due at a time."""
        key = f"{kind}:{obj['id']}"
        self.agenda[key] = when
        self.planned.append((when, key))

    def forget(self, kind: str, obj: Obj) -> None:
        """Let it not become due."""
        self.agenda.pop(f"{kind}:{obj['id']}", None)

    def emit(self, kind: str, body: Obj, previous: Obj | None = None, *, created: int) -> None:
        """Record an event and tell those who listen.

        Args:
            kind: its type, ``invoice.paid``.
            body: the object as it is sent.
            previous: the old values of what an update changed.
            created: its time.
        """
        data = {"object": body} | ({"previous_attributes": previous} if previous else {})
        event = {
            "id": new_id("evt"),
            "object": "event",
            "api_version": _ApiVersion.CURRENT,
            "created": created,
            "data": data,
            "livemode": False,
            "pending_webhooks": len(self.listeners),
            "request": {
                "id": self.asked.request_id,
                "idempotency_key": self.asked.idempotency_key,
            },
            "type": kind,
        }
        self.add(event)
        events = self.kinds["event"]
        while len(events) > _MAX_EVENTS:
            del events[next(iter(events))]
        for listener in self.listeners:
            listener(event)

    def dump(self) -> dict[str, Any]:
        """All that `load` takes."""
        return {"kinds": self.kinds, "agenda": self.agenda, "clock": self.clock.dump()}

    def load(self, kept: dict[str, Any]) -> None:
        """Become what was dumped."""
        self.kinds = kept["kinds"]
        self.agenda = kept["agenda"]
        self.clock.load(kept["clock"])
        self.owned_by = {}
        for kind in self.kinds.values():
            for obj in kind.values():
                self.adopt(obj)
