"""Protobuf to domain and back; what a request may say is checked here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from billing.domain.accounts import Account
from billing.domain.holds import Hold, HoldState
from billing.domain.ledger import Line
from billing.domain.payments import SubscriptionSnapshot
from billing.domain.plans import PackVersion, PlanVersion
from billing.domain.pricing import Work
from easel.billing.v1 import billing_pb2 as pb
from easel_kit.errors import InvalidInput
from easel_kit.ids import JobId, ModelKey, job_id

_MODEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")
_PLAN_KEY = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_REASON = re.compile(r"[a-z][a-z0-9 _-]{0,63}")
# Bounds that keep every price inside 64 bits; what a plan or a model allows is far below.
_MAX_SIDE_PX = 65_536
_MAX_STEPS = 100_000
_MAX_IMAGES = 1_000
_MAX_PIXEL_STEPS = _MAX_SIDE_PX**2 * _MAX_STEPS * _MAX_IMAGES
_MAX_HOLDS = 100
_MAX_BATCH = 500
_MAX_PAGE = 100
_DEFAULT_PAGE = 20

_HOLD_STATES = {
    HoldState.OPEN: pb.HOLD_STATE_OPEN,
    HoldState.CAPTURED: pb.HOLD_STATE_CAPTURED,
    HoldState.RELEASED: pb.HOLD_STATE_RELEASED,
}


def work_from(work: pb.Work, field: str = "work") -> Work:
    """Checks and types work.

    Raises:
        InvalidInput: names the field.
    """
    if not _MODEL_KEY.fullmatch(work.model_key):
        raise InvalidInput(f"{field}.model_key", "must be a model key")
    return Work(
        model_key=ModelKey(work.model_key),
        width_px=within(f"{field}.width_px", work.width_px, _MAX_SIDE_PX),
        height_px=within(f"{field}.height_px", work.height_px, _MAX_SIDE_PX),
        steps=within(f"{field}.steps", work.steps, _MAX_STEPS),
        image_count=within(f"{field}.image_count", work.image_count, _MAX_IMAGES),
        reckoned_pixel_steps=within(
            f"{field}.pixel_steps", work.pixel_steps, _MAX_PIXEL_STEPS, least=0
        ),
    )


def works_from(jobs: Sequence[pb.JobWork]) -> dict[JobId, Work]:
    """Checks the work of a batch.

    Raises:
        InvalidInput: too few or many, a job twice, or a wrong field, named with its place.
    """
    if not 1 <= len(jobs) <= _MAX_BATCH:
        raise InvalidInput("jobs", f"must be 1 to {_MAX_BATCH}")
    works = {
        job_id(job.job_id, f"jobs.{n}.job_id"): work_from(job.work, f"jobs.{n}.work")
        for n, job in enumerate(jobs)
    }
    if len(works) < len(jobs):
        raise InvalidInput("jobs", "must have an id of their own each")
    return works


def batch_from(texts: Sequence[str]) -> list[JobId]:
    """Checks 1 to 500 job ids.

    Raises:
        InvalidInput: too few or many, or one is no job id.
    """
    if not 1 <= len(texts) <= _MAX_BATCH:
        raise InvalidInput("job_ids", f"must be 1 to {_MAX_BATCH}")
    return [job_id(text, "job_ids") for text in texts]


def steps_from(request: pb.CaptureHoldRequest) -> tuple[int, int]:
    """Steps done and to do; both 0 stand for all.

    Raises:
        InvalidInput: negative, or more done than there were to do.
    """
    done, total = request.steps_done, request.steps_total
    if done == total == 0:
        return 1, 1
    if total <= 0:
        raise InvalidInput("steps_total", "must be at least 1, or 0 beside 0 steps done")
    if not 0 <= done <= total:
        raise InvalidInput("steps_done", f"must be 0 to {total}")
    return done, total


def reason_from(reason: str) -> str:
    """Why a hold is released, as the ledger will show it.

    Raises:
        InvalidInput: not short and plain.
    """
    if not reason:
        return "released"
    if not _REASON.fullmatch(reason):
        raise InvalidInput("reason", "must be up to 64 lower-case letters, digits, spaces, _ or -")
    return reason


def plan_key_from(key: str) -> str:
    """Checks the shape of a plan key.

    Raises:
        InvalidInput: it cannot be one.
    """
    if not _PLAN_KEY.fullmatch(key):
        raise InvalidInput("plan_key", "must be a plan's key")
    return key


def job_ids_from(texts: Sequence[str]) -> list[JobId]:
    """Checks 1 to 100 job ids.

    Raises:
        InvalidInput: too few or many, or one is no job id.
    """
    if not 1 <= len(texts) <= _MAX_HOLDS:
        raise InvalidInput("job_ids", f"must be 1 to {_MAX_HOLDS}")
    return [job_id(text, "job_ids") for text in texts]


def page_from(request: pb.ListLedgerRequest) -> tuple[int, int | None]:
    """Page size and the sequence that the page begins below.

    Raises:
        InvalidInput: the size is out of range or the token is not ours.
    """
    size = page_size_from(request.page_size)
    if not request.page_token:
        return size, None
    if not re.fullmatch(r"[1-9][0-9]{0,17}", request.page_token):
        raise InvalidInput("page_token", "is not from an answer of this call")
    return size, int(request.page_token)


def page_size_from(size: int) -> int:
    """Checks a page's size; 0 stands for the usual one.

    Raises:
        InvalidInput: it is out of range.
    """
    return within("page_size", size or _DEFAULT_PAGE, _MAX_PAGE)


def plan_to(plan: PlanVersion) -> pb.Plan:
    """A plan for the wire."""
    terms = plan.terms
    return pb.Plan(
        key=terms.key,
        version=plan.version,
        name=terms.name,
        price_cents=terms.price_cents,
        currency=terms.currency,
        monthly_millicredits=terms.monthly_millicredits,
        priority=terms.priority,
        weight=terms.weight,
        max_running=terms.max_running,
        max_waiting=terms.max_waiting,
        queue_time_s=terms.queue_time_s,
        max_pixels=terms.max_pixels,
        max_images=terms.max_images,
        requests_per_minute=terms.requests_per_minute,
        storage_bytes=terms.storage_bytes,
        model_keys=terms.model_keys,
    )


def pack_to(pack: PackVersion) -> pb.Pack:
    """A pack for the wire."""
    terms = pack.terms
    return pb.Pack(
        key=terms.key,
        name=terms.name,
        price_cents=terms.price_cents,
        currency=terms.currency,
        millicredits=terms.millicredits,
        valid_days=terms.valid_days,
    )


def entitlements_to(account: Account) -> pb.Entitlements:
    """What the account's plan allows."""
    return pb.Entitlements(version=account.entitlements_version, plan=plan_to(account.plan))


def balance_to(account: Account) -> pb.Balance:
    """The account's balance."""
    return pb.Balance(
        available_millicredits=account.balance.available,
        held_millicredits=account.balance.held,
        debt_millicredits=account.balance.debt,
    )


def account_to(account: Account) -> pb.Account:
    """An account for the wire."""
    return pb.Account(
        user_id=account.user_id,
        entitlements=entitlements_to(account),
        balance=balance_to(account),
        opened_at=timestamp_to(account.opened_at),
        renews_at=timestamp_to(account.period.end),
        subscription=_subscription_to(account.subscription),
    )


def _subscription_to(subscription: SubscriptionSnapshot | None) -> pb.Subscription | None:
    if subscription is None:
        return None
    return pb.Subscription(
        status=subscription.status.value,
        plan_key=subscription.plan_key,
        period_end=timestamp_to(subscription.period_end),
        cancel_at_period_end=subscription.cancel_at_period_end,
    )


def hold_to(hold: Hold) -> pb.Hold:
    """A hold for the wire."""
    return pb.Hold(
        id=hold.id,
        job_id=hold.job_id,
        state=_HOLD_STATES[hold.state],
        amount_millicredits=hold.millicredits,
        captured_millicredits=hold.captured,
        expires_at=timestamp_to(hold.expires_at),
    )


def lines_to(lines: Sequence[Line], size: int) -> pb.ListLedgerResponse:
    """A page of at most `size` lines; one line more says that there is another page."""
    page = lines[:size]
    return pb.ListLedgerResponse(
        lines=[_line_to(line) for line in page],
        next_page_token=str(page[-1].sequence) if len(lines) > size else "",
    )


def _line_to(line: Line) -> pb.LedgerLine:
    return pb.LedgerLine(
        id=line.id,
        booked_at=timestamp_to(line.booked_at),
        kind=line.kind,
        reference=line.reference,
        millicredits=line.available_change,
        available_after_millicredits=line.available_after,
        description=line.description,
    )


def timestamp_to(at: datetime) -> Timestamp:
    """A point in time for the wire."""
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


def within(field: str, value: int, most: int, *, least: int = 1) -> int:
    """Checks a number.

    Raises:
        InvalidInput: it is out of range; names the field.
    """
    if not least <= value <= most:
        raise InvalidInput(field, f"must be {least} to {most}")
    return value
