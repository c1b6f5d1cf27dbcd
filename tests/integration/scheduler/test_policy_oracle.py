"""The Lua in Redis and the plain-Python reference do the same, whatever happens.

A state machine drives both through random operations; after each one every answer and all that
the queue knows are compared: tags, sets, charges, pace. `--oracle-steps` says how many at least.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from redis.asyncio import Redis

from scheduler.storage.scripts import Scripts
from tests.fakes.scheduler import open_lane
from tests.fakes.scheduler_oracle import Both

_T = TypeVar("_T")
_STORM = 60
_STEPS_AN_EXAMPLE = 20
STEPS = (
    "submit", "claim", "show", "requeue", "release", "finish", "cancel", "prepend", "entitle",
    "forget", "adopt", "restore", "repeat",
)  # fmt: skip
# A storm keeps a line of some length: more comes and goes than is moved about.
_OFTEN = (*STEPS, *["submit"] * 3, *["claim"] * 8, *["show"] * 3, *["finish"] * 3)


class Oracle(RuleBasedStateMachine):
    """Both queues from empty on."""

    url: ClassVar[str]
    done: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis = Redis.from_url(self.url)
        self.both = self.do(self.begin())

    async def begin(self) -> Both:
        await self.redis.flushall()
        scripts = Scripts(self.redis, "default")
        await open_lane(self.redis, scripts)
        both = Both(self.redis, scripts)
        await both.join()
        return both

    def do(self, call: Coroutine[Any, Any, _T]) -> _T:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.do(self.redis.aclose())
        self.runner.close()

    @rule(name=st.sampled_from(STEPS), random=st.randoms(use_true_random=False))
    def step(self, name: str, random: Random) -> None:
        """One operation, whose arguments shrink when it fails."""
        Oracle.done += 1
        self.do(self.both.step(name, random))

    @rule(seed=st.integers(0, 2**32))
    def storm(self, seed: int) -> None:
        """Many in a row."""
        Oracle.done += _STORM
        random = Random(seed)

        async def rage() -> None:
            for _ in range(_STORM):
                await self.both.step(random.choice(_OFTEN), random)

        self.do(rage())


@pytest.mark.timeout(0)
def test_the_scripts_do_as_the_reference(redis_url: str, pytestconfig: pytest.Config) -> None:
    wanted = int(pytestconfig.getoption("--oracle-steps"))
    Oracle.url, Oracle.done = redis_url, 0
    while Oracle.done < wanted:
        run_state_machine_as_test(
            Oracle,
            settings=settings(
                max_examples=max(1, wanted // (_STORM * _STEPS_AN_EXAMPLE // 2)),
                stateful_step_count=_STEPS_AN_EXAMPLE,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    print(Oracle.done, "operations")  # noqa: T201 (seen with -s)
