"""Many jobs of one wish: prompts x seeds x runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from easel_kit.errors import InvalidInput
from gateway.domain.generation import Generation

MAX_JOBS = 500
"""Jobs in one batch, as many as the scheduler takes at once."""


def job_count(prompts: Sequence[str], seeds: Sequence[int], runs: int) -> int:
    """How many jobs such a batch has.

    Raises:
        InvalidInput: more than a batch may have; nothing is cut off.
    """
    count = len(prompts) * max(1, len(seeds)) * runs
    if count > MAX_JOBS:
        raise InvalidInput("prompts", f"x seeds x runs is {count} jobs; at most {MAX_JOBS}")
    return count


def expanded(
    base: Generation,
    prompts: Sequence[str],
    seeds: Sequence[int],
    runs: int,
    *,
    fresh_seed: Callable[[], int],
) -> list[Generation]:
    """Each prompt with each seed, all of it `runs` times; without seeds each job draws its own.

    Raises:
        InvalidInput: more jobs than a batch may have; nothing is cut off.
    """
    job_count(prompts, seeds, runs)
    return [
        replace(base, prompt=prompt, seed=fresh_seed() if seed is None else seed)
        for _ in range(runs)
        for prompt in prompts
        for seed in (seeds or (None,))
    ]
