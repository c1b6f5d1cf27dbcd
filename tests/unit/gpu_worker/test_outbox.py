"""What is said, in which order, and what is said again."""

import asyncio

import pytest

from easel_kit.ids import AttemptId
from gpu_worker.domain.drawing import StepProgress
from gpu_worker.domain.work import AttemptStopped, Capacity, HandBack, ModelsChanged
from gpu_worker.service.outbox import Outbox
from tests.fakes.gpu_worker import CARD, raster

ONE, TWO = AttemptId("one"), AttemptId("two")


async def said(outbox: Outbox) -> list[object]:
    """Everything that waits."""
    outbox.close()
    items: list[object] = []
    while (item := await outbox.take()) is not None:
        items.append(item)
    return items


async def test_reports_and_news_come_in_order_and_before_progress() -> None:
    outbox = Outbox()
    outbox.progress(TWO, StepProgress(1, 10))
    outbox.report(AttemptStopped(ONE, 3))
    outbox.say(Capacity(1, draining=False))
    assert await said(outbox) == [
        AttemptStopped(ONE, 3),
        Capacity(1, draining=False),
        (TWO, StepProgress(1, 10)),
    ]


async def test_only_the_newest_progress_is_said_with_the_last_look() -> None:
    outbox = Outbox()
    outbox.progress(ONE, StepProgress(1, 10, raster(1)))
    outbox.progress(ONE, StepProgress(2, 10, raster(2)))
    outbox.progress(ONE, StepProgress(3, 10))
    assert await said(outbox) == [(ONE, StepProgress(3, 10, raster(2)))]


async def test_only_the_newest_capacity_is_said() -> None:
    outbox = Outbox()
    outbox.say(Capacity(2, draining=False))
    outbox.say(ModelsChanged((CARD,)))
    outbox.say(Capacity(0, draining=True))
    assert await said(outbox) == [ModelsChanged((CARD,)), Capacity(0, draining=True)]


async def test_progress_of_an_attempt_ends_with_its_report_or_hand_back() -> None:
    outbox = Outbox()
    outbox.progress(ONE, StepProgress(9, 10))
    outbox.progress(TWO, StepProgress(9, 10))
    outbox.report(AttemptStopped(ONE, 9))
    outbox.hand_back(TWO)
    assert await said(outbox) == [AttemptStopped(ONE, 9), HandBack(TWO)]


async def test_reports_are_said_again_on_a_new_stream_until_they_are_forgotten() -> None:
    outbox = Outbox()
    outbox.report(AttemptStopped(ONE, 1))
    outbox.report(AttemptStopped(TWO, 2))
    assert await outbox.take() == AttemptStopped(ONE, 1)
    outbox.restart(kept={ONE, TWO})
    assert await outbox.take() == AttemptStopped(ONE, 1)
    outbox.forget(ONE)
    outbox.restart(kept={ONE, TWO})
    assert await said(outbox) == [AttemptStopped(TWO, 2)]


async def test_a_new_stream_forgets_what_was_not_kept_and_what_was_meant_for_the_old_one() -> None:
    outbox = Outbox()
    outbox.report(AttemptStopped(ONE, 1))
    outbox.hand_back(TWO)
    outbox.say(Capacity(1, draining=False))
    outbox.progress(TWO, StepProgress(1, 2))
    outbox.restart(kept=frozenset())
    assert outbox.unacknowledged == frozenset()
    assert await said(outbox) == []


async def test_a_report_is_not_said_once_it_is_forgotten() -> None:
    outbox = Outbox()
    outbox.report(AttemptStopped(ONE, 1))
    outbox.progress(TWO, StepProgress(1, 2))
    outbox.forget(ONE)
    outbox.forget(TWO)
    assert await said(outbox) == []


async def test_it_is_settled_only_when_all_is_said_and_confirmed() -> None:
    outbox = Outbox()
    await asyncio.wait_for(outbox.wait_settled(), 1)
    outbox.report(AttemptStopped(ONE, 1))
    await outbox.take()
    waiting = asyncio.ensure_future(outbox.wait_settled())
    await asyncio.sleep(0)
    assert not waiting.done()
    outbox.forget(ONE)
    await asyncio.wait_for(waiting, 1)


async def test_capacity_that_nobody_hears_does_not_keep_a_worker_from_leaving() -> None:
    outbox = Outbox()
    outbox.say(Capacity(0, draining=True))
    await asyncio.wait_for(outbox.wait_settled(), 1)
    outbox.hand_back(ONE)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(outbox.wait_settled(), 0.01)


async def test_taking_waits_for_something_and_loses_nothing_when_cancelled() -> None:
    outbox = Outbox()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(outbox.take(), 0.001)
    taking = asyncio.ensure_future(outbox.take())
    await asyncio.sleep(0)
    outbox.hand_back(ONE)
    assert await asyncio.wait_for(taking, 1) == HandBack(ONE)
