"""What billing's ledger must do, in plain Python: no database and no clock of its own.

Each method is one operation of `Billing`, of the feed or of `storage.purchases`, and answers with
what a caller would see. Amounts are millicredits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from billing.domain.accounts import Period, PlanSource, period_at
from billing.domain.holds import HoldState, JobStatus

FREE = "free"
HOLD_TTL = timedelta(minutes=15)
LEAST_TIME_BACK = timedelta(days=30)
STEPS_DONE, STEPS = 4, 10
"""Of every job that the scheduler says was cancelled."""

Answer = tuple[object, ...]


@dataclass
class Lot:
    """Credits with an end. `place` counts the lots of all accounts as they are opened."""

    place: int
    source: str
    payment: str
    granted: int
    expires_at: datetime
    free: int
    held: int = 0
    expired: int = 0
    clawed: int = 0
    repaid: int = 0

    def row(self) -> Answer:
        """As the database has it."""
        remaining = self.free + self.held
        lasting = (self.granted, remaining, self.held)
        return (self.source, *lasting, self.expired, self.clawed, self.repaid)


@dataclass
class Clawback:
    """What was taken back, and until when it would have lasted."""

    payment: str
    lapsed: int
    taken: int
    owed: int
    time_left: timedelta
    is_given_back: bool = False


@dataclass
class Account:
    """One user's plan, lots and ledger."""

    opened_at: datetime
    period: Period
    anchor: datetime
    plan: str = FREE
    source: PlanSource = PlanSource.DEFAULT
    version: int = 1
    debt: int = 0
    lots: list[Lot] = field(default_factory=list)
    clawbacks: dict[str, Clawback] = field(default_factory=dict)
    lines: list[tuple[str, str, int, int]] = field(default_factory=list)

    @property
    def available(self) -> int:
        """What can be spent."""
        return sum(lot.free for lot in self.lots)

    def by_expiry(self) -> list[Lot]:
        """In the order of spending."""
        return sorted(self.lots, key=lambda lot: (lot.expires_at, lot.place))

    def of_payment(self, payment: str) -> list[Lot]:
        """Lots that a payment bought, or that came back to it."""
        return [lot for lot in self.lots if lot.payment == payment]


@dataclass
class Hold:
    """A job's hold; without a user it is a tombstone."""

    user: str | None
    amount: int
    parts: list[tuple[Lot, int]]
    expires_at: datetime
    state: HoldState = HoldState.OPEN
    captured: int = 0
    is_barred: bool = False

    def row(self) -> Answer:
        """As callers see it."""
        return (self.state.value, self.amount, self.captured)


class LedgerModel:
    """All accounts and holds."""

    def __init__(self, monthly: Mapping[str, int]) -> None:
        """`monthly` are the credits of each plan."""
        self.monthly = monthly
        self.accounts: dict[str, Account] = {}
        self.holds: dict[str, Hold] = {}
        self.purchases: set[str] = set()
        self.grants: set[str] = set()
        self.cursor = 0
        self.opened_lots = 0

    # --- operations

    def touch(self, user: str, now: datetime) -> Answer:
        """Opens the account, or renews it when due."""
        account = self.accounts.get(user)
        if account is None:
            account = Account(now, period_at(now, now), now)
            self.accounts[user] = account
            self._grant_month(user)
            return ()
        is_over = account.source is not PlanSource.SUBSCRIPTION and now >= account.period.end
        self._expire(account, now)
        if is_over:
            account.period = period_at(account.anchor, now)
            self._grant_month(user)
        return ()

    def place(self, user: str, job: str, amount: int, now: datetime) -> Answer:
        """Reserves an amount for a job."""
        self.touch(user, now)
        account, known = self.accounts[user], self.holds.get(job)
        if known is not None:
            if known.is_barred and known.user in {None, user}:
                return ("InvalidState",)
            same = known.user == user and known.amount == amount
            return known.row() if same else ("Conflict",)
        if amount > account.available:
            return ("InsufficientCredits", amount, account.available)
        parts = []
        for lot, part in _take(account.by_expiry(), amount):
            lot.held += part
            parts.append((lot, part))
        self._line(account, "hold", job, -amount)
        self.holds[job] = Hold(user, amount, parts, now + HOLD_TTL)
        return self.holds[job].row()

    def capture(self, job: str, done: int, total: int, now: datetime) -> Answer:
        """Charges a part of a hold, rounded down, and frees the rest."""
        del now
        if job not in self.holds:
            return ("NotFound",)
        self._settle(job, self.holds[job].amount * done // total, is_barring=False)
        return self.holds[job].row()

    def release(self, job: str, now: datetime) -> Answer:
        """Frees a hold, or bars it before it is placed."""
        if job not in self.holds:
            self.holds[job] = Hold(None, 0, [], now, HoldState.RELEASED, is_barred=True)
        self._settle(job, 0, is_barring=True)
        return self.holds[job].row()

    def event(self, cursor: int, user: str, job: str, status: JobStatus, now: datetime) -> Answer:
        """The scheduler tells of a job."""
        if cursor <= self.cursor:
            return ("event.repeated",)
        self.cursor = cursor
        hold = self.holds.get(job)
        if hold is None or hold.user != user:
            return ("finding.recorded",)
        if status is JobStatus.QUEUED:
            was_before = hold.state is HoldState.OPEN and hold.expires_at < now + HOLD_TTL
            self._extend(hold, now)
            return ("hold.extended" if was_before else "hold.unchanged",)
        charged = _charge(hold.amount, status)
        if hold.state is not HoldState.OPEN:
            return ("hold.unchanged" if hold.captured == charged else "finding.recorded",)
        self._settle(job, charged, is_barring=False)
        return (f"hold.{hold.state.value}",)

    def sweep(self, status: JobStatus, now: datetime) -> Answer:
        """Asks about all jobs whose holds' time is over; each answers with this status."""
        over = [
            (hold.expires_at, job, hold)
            for job, hold in self.holds.items()
            if hold.state is HoldState.OPEN and hold.expires_at <= now
        ]
        for _, job, hold in sorted(over, key=lambda one: one[:2]):
            if status is JobStatus.RUNNING:
                self._extend(hold, now)
            else:
                charged = _charge(hold.amount, status)
                self._settle(job, charged, is_barring=status is JobStatus.UNKNOWN)
        return (len(over),)

    def buy(  # noqa: PLR0917 (all that makes up a purchase)
        self, user: str, reference: str, payment: str, amount: int, until: datetime, now: datetime
    ) -> Answer:
        """Grants bought credits once per reference over all accounts."""
        del now
        if reference in self.purchases:
            return (False,)
        self.purchases.add(reference)
        line = ("purchase", f"checkout/{reference}")
        self._grant(self.accounts[user], "checkout", payment, amount, until, line)
        return (True,)

    def claw(  # noqa: PLR0917 (all that makes up a clawback)
        self,
        user: str,
        reference: str,
        payment: str,
        amount: int,
        may_owe: bool,  # noqa: FBT001 (as in its record)
        now: datetime,
    ) -> Answer:
        """Takes credits of a payment back once per reference."""
        account = self.accounts[user]
        if reference in account.clawbacks:
            return (False,)
        self._expire(account, now)
        own = account.of_payment(payment)
        bought = sum(lot.granted for lot in own if lot.source == "checkout")
        if bought == 0:
            return (False,)
        standing = [
            one
            for one in account.clawbacks.values()
            if one.payment == payment and not one.is_given_back
        ]
        due = min(amount, bought - sum(one.lapsed + one.taken + one.owed for one in standing))
        free = min(due, sum(lot.free for lot in own))
        lapsed = others = owed = 0
        if may_owe:
            unclaimed = sum(lot.expired for lot in own) - sum(one.lapsed for one in standing)
            lapsed = min(due - free, unclaimed)
            others = min(due - free - lapsed, account.available - free)
            owed = due - free - lapsed - others
        lots = account.by_expiry()
        own_first = [lot for lot in lots if lot in own] + [lot for lot in lots if lot not in own]
        for lot, part in _take(own_first, free + others):
            lot.clawed += part
        account.debt += owed
        if free + others + owed:
            self._line(account, "clawback", reference, -free - others)
        account.clawbacks[reference] = Clawback(
            payment, lapsed, free + others, owed, max(lot.expires_at for lot in own) - now
        )
        return (True,)

    def give(self, user: str, reference: str, now: datetime) -> Answer:
        """Undoes a clawback once."""
        account = self.accounts[user]
        clawback = account.clawbacks.get(reference)
        if clawback is None or clawback.is_given_back:
            return (False,)
        clawback.is_given_back = True
        amount = clawback.taken + clawback.owed
        if amount:
            until = now + max(clawback.time_left, LEAST_TIME_BACK)
            line = ("give_back", reference)
            self._grant(account, "give_back", clawback.payment, amount, until, line)
        return (True,)

    def change_plan(self, user: str, plan: str, now: datetime) -> Answer:
        """An operator's change."""
        self.touch(user, now)
        account = self.accounts[user]
        if account.plan == plan:
            return (plan,)
        if account.source is PlanSource.SUBSCRIPTION:
            return ("InvalidState",)
        account.plan, account.source = plan, PlanSource.GRANTED
        account.version += 1
        self._grant_month(user)
        return (plan,)

    def move(
        self, user: str, plan: str, period: Period, source: PlanSource, now: datetime
    ) -> Answer:
        """A subscription's change, or its end."""
        del now
        account = self.accounts[user]
        has_changed = account.plan != plan
        if account.period != period:
            account.anchor = period.start
        account.plan, account.period, account.source = plan, period, source
        account.version += has_changed
        if source is not PlanSource.SUBSCRIPTION:
            self._grant_month(user)
        return (has_changed,)

    # --- what they are made of

    def _grant_month(self, user: str) -> None:
        account = self.accounts[user]
        reference = f"{account.period.name}/{account.plan}"
        if f"{user}/{reference}" in self.grants:
            return
        self.grants.add(f"{user}/{reference}")
        amount = self.monthly[account.plan]
        line = ("grant", reference)
        self._grant(account, "monthly", "", amount, account.period.end, line)

    def _grant(  # noqa: PLR0917 (all that makes up a lot)
        self,
        account: Account,
        source: str,
        payment: str,
        amount: int,
        until: datetime,
        line: tuple[str, str],
    ) -> None:
        self.opened_lots += 1
        account.lots.append(Lot(self.opened_lots, source, payment, amount, until, free=amount))
        self._line(account, *line, amount)
        self._repay(account, "/".join(line))

    @staticmethod
    def _line(account: Account, kind: str, reference: str, change: int) -> None:
        before = account.lines[-1][3] if account.lines else 0
        account.lines.append((kind, reference, change, before + change))

    def _repay(self, account: Account, cause: str) -> None:
        amount = min(account.debt, account.available)
        if amount == 0:
            return
        for lot, part in _take(account.by_expiry(), amount):
            lot.repaid += part
        account.debt -= amount
        self._line(account, "repay", cause, -amount)

    def _settle(self, job: str, captured: int, *, is_barring: bool) -> None:
        hold = self.holds[job]
        if hold.state is not HoldState.OPEN or hold.user is None:
            return
        hold.state = HoldState.CAPTURED if captured else HoldState.RELEASED
        hold.captured, hold.is_barred = captured, is_barring
        account = self.accounts[hold.user]
        missing = captured
        for lot, part in hold.parts:
            spent = min(part, missing)
            missing -= spent
            lot.held -= part
            lot.free += part - spent
        kind = "capture" if captured else "release"
        self._line(account, kind, job, hold.amount - captured)
        self._repay(account, f"{kind}/{job}")

    @staticmethod
    def _extend(hold: Hold, now: datetime) -> None:
        if hold.state is HoldState.OPEN:
            hold.expires_at = max(hold.expires_at, now + HOLD_TTL)

    def _expire(self, account: Account, now: datetime) -> None:
        for lot in account.by_expiry():
            if lot.free and lot.expires_at <= now:
                self._line(account, "expire", "", -lot.free)
                lot.expired += lot.free
                lot.free = 0


def _take(lots: Iterable[Lot], amount: int) -> list[tuple[Lot, int]]:
    """Takes an amount out of what is free in lots, the first ones first."""
    taken = []
    for lot in lots:
        part = min(lot.free, amount)
        if part:
            lot.free -= part
            amount -= part
            taken.append((lot, part))
    assert amount == 0
    return taken


def _charge(amount: int, status: JobStatus) -> int:
    match status:
        case JobStatus.SUCCEEDED:
            return amount
        case JobStatus.CANCELLED:
            return amount * STEPS_DONE // STEPS
        case _:
            return 0
