"""The named points at which billing is killed: between every two writes that matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.chaos_billing.trap import Spot, When

Operation = Literal[
    "sign-up", "hold", "capture", "release", "expiry", "extension", "feed", "webhook", "outbox"
]

_OPEN = r"^INSERT INTO accounts"
_PLACE = r"^INSERT INTO holds \(job_id, id, account_id"
_BURY = r"^INSERT INTO holds \(job_id, id, state"
_END = r"^UPDATE holds SET state"
_BOOK = r"^WITH balance AS"
_RESERVE = r"INSERT INTO hold_allocations"
_FREE = r"UPDATE hold_allocations"
_EXTEND = r"^UPDATE holds SET expires_at"
_CURSOR = r"^UPDATE feed_cursor SET generation = \$1"
_KEEP = r"INSERT INTO webhook_inbox"
_LEASE = r"UPDATE customer_leases SET lease_owner = \$3"
_APPLY = r"^UPDATE customers SET version"
_SUBSCRIBE = r"^INSERT INTO subscriptions"
_MOVE = r"^UPDATE accounts SET plan_key = \$2"
_LOT = r"^INSERT INTO credit_lots"
_FINISH = r"^UPDATE customer_leases SET lease_owner = NULL"
_MARK = r"^UPDATE webhook_inbox SET state = \$3"
_NOTE = r"^INSERT INTO entitlements_outbox"
_TELL = r"^SetEntitlements$"
_COMMIT = r"^COMMIT$"
_ASK = r"^ResolveJob$"


@dataclass(frozen=True, slots=True)
class Point:
    """A named spot of an operation. `brief` ones are in every run of the tests."""

    operation: Operation
    name: str
    spot: Spot
    is_brief: bool = False

    @property
    def title(self) -> str:
        """Unique."""
        return f"{self.operation}: {self.name}"


def _before(what: str, inside: str = "") -> Spot:
    return _spot("before", what, inside)


def _after(what: str, inside: str = "") -> Spot:
    return _spot("after", what, inside)


def _spot(when: When, what: str, inside: str) -> Spot:
    return Spot(what, when, inside)


POINTS = (
    Point("sign-up", "account written", _after(_OPEN)),
    Point("sign-up", "first grant booked", _after(_BOOK, _OPEN)),
    Point("sign-up", "committed, not answered", _after(_COMMIT, _OPEN)),
    Point("hold", "before anything is written", _before(_PLACE)),
    Point("hold", "hold written", _after(_PLACE)),
    Point("hold", "balance booked", _after(_BOOK, _PLACE), is_brief=True),
    Point("hold", "lots reserved", _after(_RESERVE)),
    Point("hold", "before the commit", _before(_COMMIT, _PLACE)),
    Point("hold", "committed, not answered", _after(_COMMIT, _PLACE), is_brief=True),
    Point("capture", "before the hold ends", _before(_END)),
    Point("capture", "hold ended", _after(_END)),
    Point("capture", "balance booked", _after(_BOOK, _END), is_brief=True),
    Point("capture", "lots spent", _after(_FREE)),
    Point("capture", "before the commit", _before(_COMMIT, _END)),
    Point("capture", "committed, not answered", _after(_COMMIT, _END)),
    Point("release", "looked for a tombstone", _after(_BURY)),
    Point("release", "hold ended", _after(_END, _BURY)),
    Point("release", "before the commit", _before(_COMMIT, _BURY)),
    Point("release", "committed, not answered", _after(_COMMIT, _BURY), is_brief=True),
    Point("expiry", "before the scheduler is asked", _before(_ASK)),
    Point("expiry", "the scheduler has answered", _after(_ASK), is_brief=True),
    Point("expiry", "before the commit", _before(_COMMIT, _END)),
    Point("expiry", "committed", _after(_COMMIT, _END)),
    Point("extension", "the scheduler has answered", _after(_ASK)),
    Point("extension", "before it is extended", _before(_EXTEND)),
    Point("extension", "extended", _after(_EXTEND), is_brief=True),
    Point("feed", "cursor moved", _after(_CURSOR)),
    Point("feed", "hold ended", _after(_END, _CURSOR)),
    Point("feed", "before the commit", _before(_COMMIT, _CURSOR), is_brief=True),
    Point("feed", "committed", _after(_COMMIT, _CURSOR)),
    Point("webhook", "before it is kept", _before(_KEEP)),
    Point("webhook", "kept, not answered", _after(_KEEP), is_brief=True),
    Point("webhook", "before the lease is committed", _before(_COMMIT, _LEASE)),
    Point("webhook", "leased", _after(_COMMIT, _LEASE)),
    Point("webhook", "before Stripe is asked", _before(r"^GET /v1/")),
    Point("webhook", "Stripe has answered in part", _after(r"^GET /v1/")),
    Point("webhook", "customer's version moved", _after(_APPLY)),
    Point("webhook", "subscription written", _after(_SUBSCRIBE, _APPLY)),
    Point("webhook", "plan moved", _after(_MOVE, _APPLY)),
    Point("webhook", "lot written", _after(_LOT, _APPLY), is_brief=True),
    Point("webhook", "credits booked", _after(_BOOK, _APPLY)),
    Point("webhook", "before the look is committed", _before(_COMMIT, _APPLY)),
    Point("webhook", "look committed", _after(_COMMIT, _APPLY), is_brief=True),
    Point("webhook", "lease given up", _after(_FINISH)),
    Point("webhook", "events marked", _after(_MARK)),
    Point("webhook", "before the mark is committed", _before(_COMMIT, _MARK)),
    Point("webhook", "mark committed", _after(_COMMIT, _MARK)),
    Point("outbox", "change of plan noted", _after(_NOTE)),
    Point("outbox", "before the commit", _before(_COMMIT, _NOTE)),
    Point("outbox", "committed, not answered", _after(_COMMIT, _NOTE)),
    Point("outbox", "before the scheduler is told", _before(_TELL)),
    Point("outbox", "the scheduler was told", _after(_TELL), is_brief=True),
    Point("outbox", "forgotten", _after(r"^DELETE FROM entitlements_outbox WHERE account_id")),
)
