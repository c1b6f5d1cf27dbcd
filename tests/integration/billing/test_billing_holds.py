"""Holds over gRPC: placed once, ended once, never more than there is."""

import asyncio

import pytest

from easel.billing.v1 import billing_pb2 as pb
from easel_kit.errors import (
    Conflict,
    DomainError,
    Forbidden,
    InsufficientCredits,
    InvalidInput,
    InvalidState,
    NotFound,
)
from easel_kit.ids import new_job_id
from tests.fakes.billing_stack import ALICE, BOB, FREE_GRANT, PRICE, BillingStack, work


async def test_a_hold_reserves_the_price_and_brings_the_plan(stack: BillingStack) -> None:
    job_id = new_job_id()
    answer = await stack.place(job_id=job_id)
    assert (answer.hold.job_id, answer.hold.state) == (job_id, pb.HOLD_STATE_OPEN)
    assert answer.hold.amount_millicredits == PRICE
    expires_in = answer.hold.expires_at.ToSeconds() - stack.clock.now().timestamp()
    assert expires_in == 900
    assert answer.balance.available_millicredits == FREE_GRANT - PRICE
    assert answer.balance.held_millicredits == PRICE
    plan = answer.entitlements.plan
    assert (plan.key, plan.priority, plan.weight) == ("free", 0, 1)
    assert (plan.max_running, plan.max_waiting) == (1, 2)
    assert await stack.balance() == (FREE_GRANT - PRICE, PRICE)
    assert await stack.breaches() == []


async def test_the_quote_is_the_price(stack: BillingStack) -> None:
    asked = pb.QuoteRequest(user_id=ALICE, work=work(steps=25, image_count=2))
    quoted = (await stack.rpc.Quote(asked)).millicredits
    placed = await stack.place(of=work(steps=25, image_count=2))
    assert quoted == placed.hold.amount_millicredits == 2048


async def test_the_same_hold_again_is_the_same_hold(stack: BillingStack) -> None:
    first = await stack.place()
    second = await stack.place(job_id=first.hold.job_id)
    assert second.hold == first.hold
    assert second.balance == first.balance
    assert second.entitlements == first.entitlements
    assert await stack.balance() == (FREE_GRANT - PRICE, PRICE)


async def test_a_job_id_means_one_work_of_one_user(stack: BillingStack) -> None:
    job_id = (await stack.place()).hold.job_id
    for user, other in (
        (BOB, work()),
        (ALICE, work(steps=11)),
        (ALICE, work(image_count=2)),
        (ALICE, work(model_key="x")),
    ):
        with pytest.raises(Conflict):
            await stack.place(user, job_id, other)
    assert await stack.balance() == (FREE_GRANT - PRICE, PRICE)
    assert await stack.balance(BOB) == (FREE_GRANT, 0)


async def test_work_beyond_the_plan_is_refused_by_name(stack: BillingStack) -> None:
    beyond = {"picture size": work(width_px=2048, height_px=1024), "images": work(image_count=5)}
    for named, large in beyond.items():
        with pytest.raises(Forbidden, match=named):
            await stack.place(of=large)
        with pytest.raises(Forbidden, match=named):
            await stack.rpc.Quote(pb.QuoteRequest(user_id=ALICE, work=large))
    await stack.change_plan("enterprise")
    for large in beyond.values():
        await stack.place(of=large)


async def test_work_in_passes_is_priced_by_them_and_bounded_by_the_picture(
    stack: BillingStack,
) -> None:
    passes = work(width_px=128, height_px=128, pixel_steps=64 * 64 * 10 + 128 * 128 * 4)
    quote = await stack.rpc.Quote(pb.QuoteRequest(user_id=ALICE, work=passes))
    job_id = new_job_id()
    answer = await stack.place(job_id=job_id, of=passes)
    assert quote.millicredits == answer.hold.amount_millicredits == 1065
    assert (await stack.place(job_id=job_id, of=passes)).hold == answer.hold
    with pytest.raises(Conflict):
        await stack.place(job_id=job_id, of=work(width_px=128, height_px=128))
    with pytest.raises(Forbidden, match="picture size"):
        await stack.place(of=work(width_px=2048, height_px=1024, pixel_steps=1))
    with pytest.raises(InvalidInput) as refused:
        await stack.place(of=work(pixel_steps=-1))
    assert refused.value.field == "work.pixel_steps"
    assert await stack.breaches() == []


async def test_a_hold_outlives_the_plan_that_allowed_it(stack: BillingStack) -> None:
    await stack.change_plan("pro")
    job_id = new_job_id()
    first = await stack.place(job_id=job_id, of=work(image_count=8))
    await stack.change_plan("free")
    again = await stack.place(job_id=job_id, of=work(image_count=8))
    assert again.hold == first.hold


async def test_too_few_credits_leave_nothing_behind(stack: BillingStack) -> None:
    job_id = new_job_id()
    price = 409_600
    with pytest.raises(InsufficientCredits) as refused:
        await stack.place(job_id=job_id, of=work(steps=2500, image_count=4))
    assert refused.value.needed_millicredits == price
    assert refused.value.available_millicredits == FREE_GRANT
    assert await stack.balance() == (FREE_GRANT, 0)
    assert await stack.sql("SELECT count(*) FROM holds") == 0
    assert [line.kind for line in await stack.lines()] == ["grant"]
    # the same job id is free for a try that fits
    await stack.place(job_id=job_id)


async def test_a_capture_takes_the_whole_once(stack: BillingStack) -> None:
    job_id = (await stack.place()).hold.job_id
    for _ in range(2):
        hold = await stack.capture(job_id)
        assert (hold.state, hold.captured_millicredits) == (pb.HOLD_STATE_CAPTURED, PRICE)
    assert await stack.balance() == (FREE_GRANT - PRICE, 0)
    released = await stack.release(job_id)
    assert released.state == pb.HOLD_STATE_CAPTURED
    assert [line.kind for line in await stack.lines()] == ["capture", "hold", "grant"]
    assert await stack.breaches() == []


async def test_a_capture_of_some_steps_frees_the_rest(stack: BillingStack) -> None:
    job_id = (await stack.place()).hold.job_id
    hold = await stack.capture(job_id, done=1, total=3)
    assert hold.captured_millicredits == PRICE // 3
    assert await stack.balance() == (FREE_GRANT - PRICE // 3, 0)
    # the first end stands
    assert await stack.capture(job_id, done=3, total=3) == hold
    assert await stack.breaches() == []


async def test_a_capture_of_no_step_is_a_release(stack: BillingStack) -> None:
    job_id = (await stack.place()).hold.job_id
    hold = await stack.capture(job_id, done=0, total=3)
    assert (hold.state, hold.captured_millicredits) == (pb.HOLD_STATE_RELEASED, 0)
    assert await stack.balance() == (FREE_GRANT, 0)
    assert await stack.breaches() == []


async def test_a_capture_needs_a_hold(stack: BillingStack) -> None:
    with pytest.raises(NotFound):
        await stack.capture(new_job_id())


async def test_steps_of_a_capture_are_checked(stack: BillingStack) -> None:
    for done, total in ((1, 0), (-1, 3), (4, 3), (0, -1)):
        with pytest.raises(InvalidInput):
            await stack.capture(new_job_id(), done=done, total=total)


async def test_a_release_frees_once_and_bars_the_job(stack: BillingStack) -> None:
    job_id = (await stack.place()).hold.job_id
    for _ in range(2):
        hold = await stack.release(job_id)
        assert (hold.state, hold.captured_millicredits) == (pb.HOLD_STATE_RELEASED, 0)
    assert await stack.balance() == (FREE_GRANT, 0)
    captured = await stack.capture(job_id)
    assert captured.state == pb.HOLD_STATE_RELEASED
    with pytest.raises(InvalidState):
        await stack.place(job_id=job_id)
    assert await stack.balance() == (FREE_GRANT, 0)
    assert await stack.breaches() == []


async def test_a_release_before_its_hold_bars_it(stack: BillingStack) -> None:
    job_id = new_job_id()
    for _ in range(2):
        assert (await stack.release(job_id)).state == pb.HOLD_STATE_RELEASED
    with pytest.raises(InvalidState):
        await stack.place(job_id=job_id)
    assert (await stack.capture(job_id)).state == pb.HOLD_STATE_RELEASED
    assert await stack.balance() == (FREE_GRANT, 0)
    assert await stack.breaches() == []


async def test_holds_are_read_by_their_user_in_the_order_asked(stack: BillingStack) -> None:
    mine = [(await stack.place()).hold for _ in range(2)]
    other = (await stack.place(BOB)).hold
    asked = [mine[1].job_id, other.job_id, new_job_id(), mine[0].job_id, mine[1].job_id]
    answer = await stack.rpc.GetHolds(pb.GetHoldsRequest(user_id=ALICE, job_ids=asked))
    assert list(answer.holds) == [mine[1], mine[0]]
    for wrong in ([], ["job_1"], [new_job_id()] * 101):
        with pytest.raises(InvalidInput, match="job_ids"):
            await stack.rpc.GetHolds(pb.GetHoldsRequest(user_id=ALICE, job_ids=wrong))


async def test_work_is_checked_by_name(stack: BillingStack) -> None:
    for wrong, field in (
        (work(steps=0), "steps"),
        (work(width_px=-64), "width_px"),
        (work(height_px=65_537), "height_px"),
        (work(image_count=0), "image_count"),
        (work(model_key=""), "model_key"),
        (work(model_key="a b"), "model_key"),
    ):
        with pytest.raises(InvalidInput) as refused:
            await stack.place(of=wrong)
        assert refused.value.field == f"work.{field}"


async def test_ids_and_reasons_are_checked(stack: BillingStack) -> None:
    for call in (
        stack.place("", new_job_id()),
        stack.place(job_id="job_1"),
        stack.release("hold_1"),
        stack.release(new_job_id(), "Because I said so!"),
        stack.change_plan("Free Beer"),
    ):
        with pytest.raises(InvalidInput):
            await call


# --- races


async def test_concurrent_holds_never_overdraw_and_grant_all_there_is(stack: BillingStack) -> None:
    await stack.account()
    each = 4096  # 50 steps of 2 pictures: 12 of them fit into the grant
    answers = await asyncio.gather(
        *(stack.place(of=work(steps=50, image_count=2)) for _ in range(50)), return_exceptions=True
    )
    placed = [answer for answer in answers if isinstance(answer, pb.PlaceHoldResponse)]
    refused = [answer for answer in answers if isinstance(answer, InsufficientCredits)]
    assert len(placed) == FREE_GRANT // each == 12
    assert len(placed) + len(refused) == 50
    assert await stack.balance() == (FREE_GRANT - 12 * each, 12 * each)
    assert await stack.sql("SELECT sum(millicredits) FROM holds") == 12 * each
    assert await stack.breaches() == []


async def test_concurrent_first_calls_open_one_account_with_one_grant(stack: BillingStack) -> None:
    accounts = await asyncio.gather(*(stack.account() for _ in range(10)))
    assert {account.balance.available_millicredits for account in accounts} == {FREE_GRANT}
    assert await stack.sql("SELECT count(*) FROM accounts") == 1
    assert [line.kind for line in await stack.lines()] == ["grant"]


async def test_concurrent_calls_for_one_job_hold_capture_or_release_once(
    stack: BillingStack,
) -> None:
    jobs = [new_job_id() for _ in range(6)]
    await asyncio.gather(*(stack.place(job_id=job_id) for job_id in jobs for _ in range(4)))
    assert await stack.balance() == (FREE_GRANT - 6 * PRICE, 6 * PRICE)
    ends = [
        end(job_id)
        for job_id in jobs
        for end in (stack.capture, stack.release, stack.capture, stack.release)
    ]
    holds = await asyncio.gather(*ends)
    for job_id in jobs:
        assert len({hold.state for hold in holds if hold.job_id == job_id}) == 1
    captured = sum(hold.state == pb.HOLD_STATE_CAPTURED for hold in holds) // 4
    assert await stack.balance() == (FREE_GRANT - captured * PRICE, 0)
    assert await stack.sql("SELECT count(*) FROM transfers WHERE kind = 'capture'") == captured
    assert await stack.breaches() == []


async def test_a_hold_and_its_release_at_once_end_released(stack: BillingStack) -> None:
    jobs = [new_job_id() for _ in range(10)]

    async def place(job_id: str) -> None:
        try:
            await stack.place(job_id=job_id)
        except DomainError as error:
            assert isinstance(error, InvalidState)  # noqa: PT017 (one of two good ends)

    await asyncio.gather(*(call(job_id) for job_id in jobs for call in (place, stack.release)))
    assert await stack.balance() == (FREE_GRANT, 0)
    assert await stack.sql("SELECT count(*) FROM holds WHERE state = 'released'") == 10
    assert await stack.breaches() == []


async def test_a_batch_is_reserved_whole_or_not_at_all(stack: BillingStack) -> None:
    jobs = [pb.JobWork(job_id=new_job_id(), work=work()) for _ in range(5)]
    answer = await stack.rpc.PlaceHolds(pb.PlaceHoldsRequest(user_id=ALICE, jobs=jobs))
    assert [hold.job_id for hold in answer.holds] == [job.job_id for job in jobs]
    assert {hold.amount_millicredits for hold in answer.holds} == {PRICE}
    assert answer.balance.held_millicredits == 5 * PRICE
    assert answer.entitlements.plan.key == "free"
    # one of these fits, three do not
    large = [pb.JobWork(job_id=new_job_id(), work=work(steps=250, image_count=4)) for _ in range(3)]
    with pytest.raises(InsufficientCredits) as refused:
        await stack.rpc.PlaceHolds(pb.PlaceHoldsRequest(user_id=ALICE, jobs=large))
    assert refused.value.needed_millicredits == 3 * 40_960
    assert refused.value.available_millicredits == FREE_GRANT - 5 * PRICE
    assert await stack.sql("SELECT count(*) FROM holds") == 5
    assert await stack.balance() == (FREE_GRANT - 5 * PRICE, 5 * PRICE)
    assert await stack.breaches() == []


async def test_a_batch_again_is_the_same_and_may_have_grown(stack: BillingStack) -> None:
    first = await stack.place()
    other = pb.JobWork(job_id=new_job_id(), work=work(steps=20))
    jobs = [other, pb.JobWork(job_id=first.hold.job_id, work=work())]
    asked = pb.PlaceHoldsRequest(user_id=ALICE, jobs=jobs)
    answer = await stack.rpc.PlaceHolds(asked)
    assert answer.holds[1] == first.hold
    assert (await stack.rpc.PlaceHolds(asked)).holds == answer.holds
    assert await stack.sql("SELECT count(*) FROM holds") == 2
    jobs[1].work.steps = 11
    wrong = [pb.JobWork(job_id=new_job_id(), work=work()), *jobs]
    with pytest.raises(Conflict):
        await stack.rpc.PlaceHolds(pb.PlaceHoldsRequest(user_id=ALICE, jobs=wrong))
    assert await stack.sql("SELECT count(*) FROM holds") == 2
    released = await stack.rpc.ReleaseHolds(
        pb.ReleaseHoldsRequest(job_ids=[job.job_id for job in jobs], reason="refused")
    )
    assert [hold.state for hold in released.holds] == [pb.HOLD_STATE_RELEASED] * 2
    assert await stack.balance() == (FREE_GRANT, 0)
    assert await stack.breaches() == []


async def test_batches_that_share_jobs_in_any_order_meet_without_a_deadlock(
    stack: BillingStack,
) -> None:
    jobs = [pb.JobWork(job_id=new_job_id(), work=work()) for _ in range(8)]
    asked = [pb.PlaceHoldsRequest(user_id=ALICE, jobs=some) for some in (jobs, jobs[::-1]) * 4]
    answers = await asyncio.gather(*(stack.rpc.PlaceHolds(one) for one in asked))
    assert {hold.id for answer in answers for hold in answer.holds} == {
        hold.id for hold in answers[0].holds
    }
    assert await stack.balance() == (FREE_GRANT - 8 * PRICE, 8 * PRICE)


async def test_a_batch_is_checked_by_field(stack: BillingStack) -> None:
    job = pb.JobWork(job_id=new_job_id(), work=work())
    bad = pb.JobWork(job_id=new_job_id(), work=work(steps=0))
    for jobs, field in (
        ([], "jobs"),
        ([job, job], "jobs"),
        ([job, bad], "jobs.1.work.steps"),
        ([job] * 501, "jobs"),
        ([pb.JobWork(job_id="x", work=work())], "jobs.0.job_id"),
    ):
        with pytest.raises(InvalidInput) as refused:
            await stack.rpc.PlaceHolds(pb.PlaceHoldsRequest(user_id=ALICE, jobs=jobs))
        assert refused.value.field == field
    with pytest.raises(InvalidInput, match="job_ids"):
        await stack.rpc.ReleaseHolds(pb.ReleaseHoldsRequest())
