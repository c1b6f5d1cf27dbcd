"""Group commit: what many callers want done is done together, by one run for all of them.

A durable write costs one flush of the log however many rows it carries, so callers that come while
one flush runs share the next (DeWitt et al., "Implementation Techniques for Main Memory Database
Systems", SIGMOD 1984, section 5.2). Unlike Postgres's `commit_delay` nobody waits for company: an
idle group starts at once with whoever has come, and the load itself makes groups grow.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from easel_kit.errors import DependencyDown, Overloaded

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class _Wanted(Generic[Item, Answer]):
    item: Item
    answer: asyncio.Future[Answer]
    weight: int


class Group(Generic[Item, Answer]):
    """Runs `work` on all items that came while it ran last; one run at a time, in order."""

    def __init__(
        self,
        work: Callable[[list[Item]], Awaitable[Sequence[Answer | Exception]]],
        *,
        name: str,
        max_weight: int,
        max_waiting: int,
        weigh: Callable[[Item], int] = lambda _: 1,
    ) -> None:
        """Nothing runs yet, and nothing does while nobody asks.

        Args:
            work: answers each item in order; an exception in its answer is for that item's caller
                alone. When it raises, nothing must have happened, or it may be repeated: the items
                are then tried one by one, unless what stands behind it is down. It has to end by
                itself, so whatever it awaits needs a deadline.
            name: of the task, for debuggers.
            max_weight: of the items of one run; an item that is heavier runs alone.
            max_waiting: weight of all items in front of a run; beyond it callers are refused.
            weigh: how heavy an item is; by default each is 1.
        """
        self._work = work
        self._name = name
        self._max_weight = max_weight
        self._max_waiting = max_waiting
        self._weigh = weigh
        self._line: deque[_Wanted[Item, Answer]] = deque()
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """Has an item worked on; what it comes to is in the future, an error too.

        Cancelling the future (as awaiting it and being cancelled does) takes the item back while
        its run has not begun; later it changes nothing, for this item or its neighbours.

        Raises:
            Overloaded: too much waits already.
        """
        weight = self._weigh(item)
        if self._line and self._waiting + weight > self._max_waiting:
            raise Overloaded("too much at once, try again")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._line.append(_Wanted(item, answer, weight))
        self._waiting += weight
        if self._task is None:
            # it begins after whoever else is ready now, and in nobody's context: neither the
            # deadline nor the trace of the first caller is the group's
            self._task = asyncio.create_task(
                self._run(), name=self._name, context=contextvars.Context()
            )
        return answer

    async def _run(self) -> None:
        try:
            while group := self._next():
                await self._do(group)
        finally:
            self._task = None
            for wanted in self._line:
                wanted.answer.cancel()
            self._line.clear()
            self._waiting = 0

    def _next(self) -> list[_Wanted[Item, Answer]]:
        group: list[_Wanted[Item, Answer]] = []
        weight = 0
        while self._line:
            first = self._line[0]
            if group and weight + first.weight > self._max_weight:
                break
            self._line.popleft()
            self._waiting -= first.weight
            if not first.answer.cancelled():
                group.append(first)
                weight += first.weight
        return group

    async def _do(self, group: list[_Wanted[Item, Answer]]) -> None:
        try:
            answers = await self._work([wanted.item for wanted in group])
        except Exception as error:  # noqa: BLE001 (callers raise it)
            if len(group) == 1 or isinstance(error, DependencyDown):
                for wanted in group:
                    _tell(wanted.answer, error)
                return
            for wanted in group:
                await self._do([wanted])
        else:
            for wanted, answer in zip(group, answers, strict=True):
                _tell(wanted.answer, answer)
        finally:
            for wanted in group:  # the process ends: nobody waits for ever
                wanted.answer.cancel()


def _tell(future: asyncio.Future[Answer], answer: Answer | Exception) -> None:
    if future.done():  # its caller has gone
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
