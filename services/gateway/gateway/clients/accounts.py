"""Accounts, plans, holds and ledger lines on the wire and in the domain."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from easel.billing.v1 import billing_pb2 as pb
from easel_kit.ids import JobId, ModelKey, UserId
from gateway.domain.account import (
    Account,
    Balance,
    Entitlements,
    Hold,
    HoldState,
    LedgerLine,
    Plan,
    Subscription,
)
from gateway.domain.generation import Generation, is_plain, passes, pixel_steps
from gateway.domain.money import Offers, Pack, UsageLine

_HOLD_STATES = {
    pb.HOLD_STATE_OPEN: HoldState.OPEN,
    pb.HOLD_STATE_CAPTURED: HoldState.CAPTURED,
    pb.HOLD_STATE_RELEASED: HoldState.RELEASED,
}


def work_to_wire(generation: Generation) -> pb.Work:
    """What is priced of an order: the one way, for quotes and for holds."""
    last = passes(generation)[-1]
    return pb.Work(
        model_key=generation.model_key,
        width_px=last.width_px,
        height_px=last.height_px,
        steps=generation.steps,
        image_count=generation.image_count,
        pixel_steps=0 if is_plain(generation) else pixel_steps(generation),
    )


def time_of(stamp: Timestamp) -> datetime:
    """A moment."""
    return stamp.ToDatetime(tzinfo=UTC)


def plan(wire: pb.Plan) -> Plan:
    """A plan."""
    return Plan(
        key=wire.key,
        version=wire.version,
        name=wire.name,
        price_cents=wire.price_cents,
        currency=wire.currency,
        monthly_millicredits=wire.monthly_millicredits,
        priority=wire.priority,
        weight=wire.weight,
        max_running=wire.max_running,
        max_waiting=wire.max_waiting,
        queue_time_s=wire.queue_time_s,
        max_pixels=wire.max_pixels,
        max_images=wire.max_images,
        requests_per_minute=wire.requests_per_minute,
        storage_bytes=wire.storage_bytes,
        model_keys=tuple(ModelKey(key) for key in wire.model_keys),
    )


def pack(wire: pb.Pack) -> Pack:
    """A pack of credits."""
    return Pack(
        key=wire.key,
        name=wire.name,
        price_cents=wire.price_cents,
        currency=wire.currency,
        millicredits=wire.millicredits,
        valid_days=wire.valid_days,
    )


def offers(wire: pb.ListPlansResponse) -> Offers:
    """Everything on offer."""
    return Offers(
        tuple(plan(one) for one in wire.plans),
        tuple(pack(one) for one in wire.packs),
    )


def entitlements(wire: pb.Entitlements) -> Entitlements:
    """What a plan allows a user."""
    return Entitlements(wire.version, plan(wire.plan))


def account(wire: pb.Account) -> Account:
    """An account."""
    balance = wire.balance
    return Account(
        user_id=UserId(wire.user_id),
        entitlements=entitlements(wire.entitlements),
        balance=Balance(
            balance.available_millicredits,
            balance.held_millicredits,
            balance.debt_millicredits,
        ),
        opened_at=time_of(wire.opened_at) if wire.HasField("opened_at") else None,
        renews_at=time_of(wire.renews_at) if wire.HasField("renews_at") else None,
        subscription=_subscription(wire.subscription) if wire.HasField("subscription") else None,
    )


def _subscription(wire: pb.Subscription) -> Subscription:
    return Subscription(
        status=wire.status,
        plan_key=wire.plan_key,
        period_end=time_of(wire.period_end) if wire.HasField("period_end") else None,
        cancel_at_period_end=wire.cancel_at_period_end,
    )


def hold(wire: pb.Hold) -> Hold:
    """A hold."""
    return Hold(
        job_id=JobId(wire.job_id),
        state=_HOLD_STATES[wire.state],
        amount_millicredits=wire.amount_millicredits,
        captured_millicredits=wire.captured_millicredits,
    )


def ledger_line(wire: pb.LedgerLine) -> LedgerLine:
    """A line of the ledger."""
    return LedgerLine(
        id=wire.id,
        booked_at=time_of(wire.booked_at),
        kind=wire.kind,
        reference=wire.reference,
        millicredits=wire.millicredits,
        available_after_millicredits=wire.available_after_millicredits,
        description=wire.description,
    )


def usage_line(wire: pb.UsageLine) -> UsageLine:
    """What one job has cost."""
    return UsageLine(
        job_id=JobId(wire.job_id),
        ended_at=time_of(wire.ended_at),
        model_key=ModelKey(wire.work.model_key),
        width_px=wire.work.width_px,
        height_px=wire.work.height_px,
        steps=wire.work.steps,
        image_count=wire.work.image_count,
        held_millicredits=wire.held_millicredits,
        charged_millicredits=wire.charged_millicredits,
        reason=wire.reason,
    )
