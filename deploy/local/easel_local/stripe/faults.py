"""Faults on request, of calls and of webhooks: thrown by a seed, so they can be repeated."""

from __future__ import annotations

import random
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
_MAX_DELAY_S = 60.0


class ApiFault(BaseModel):
    """Something that goes wrong with calls.

    `before` nothing was done; `after` all was done and only the answer is another. With keep, an
    answer of `after` is what the idempotency key gives from then on, as Stripe's own 500s are;
    without, a retry with the key gets the true answer, as after a connection that broke.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["fail", "reset", "delay"] = "fail"
    when: Literal["before", "after"] = "before"
    method: Literal["GET", "POST", "DELETE"] | None = None
    path: str = Field("/v1/", description="How the path begins.", max_length=200)
    status: Literal[429, 500, 503] = 503
    delay_s: float = Field(0, ge=0, le=_MAX_DELAY_S)
    probability: Probability = 1.0
    times: int | None = Field(None, ge=1, description="How often; None: until it is taken back.")
    keep: bool = False


class DeliveryFaults(BaseModel):
    """What goes wrong with deliveries; the probabilities are of each one.

    Attributes:
        duplicate: delivered twice.
        reorder: held back for up to `reorder_s`, so that later ones overtake.
        drop: never delivered.
        fail: an attempt does not arrive, and is repeated later.
        lose_answer: an attempt arrives, its answer does not, so it is repeated.
        delay_s: all are held back.
    """

    model_config = ConfigDict(extra="forbid")

    duplicate: Probability = 0.0
    reorder: Probability = 0.0
    reorder_s: float = Field(1.0, ge=0, le=_MAX_DELAY_S)
    delay_s: float = Field(0.0, ge=0, le=_MAX_DELAY_S)
    drop: Probability = 0.0
    fail: Probability = 0.0
    lose_answer: Probability = 0.0


class Plan(BaseModel):
    """All faults that are asked for."""

    model_config = ConfigDict(extra="forbid")

    seed: int = 0
    api: list[ApiFault] = Field(default_factory=list, max_length=100)
    deliveries: DeliveryFaults = Field(default_factory=DeliveryFaults)


class Faults:
    """The plan that is in force, and the dice."""

    def __init__(self) -> None:
        """Nothing goes wrong."""
        self.set(Plan())

    def set(self, plan: Plan) -> None:
        """Let these faults happen from now on, instead of others."""
        self.plan = plan
        self._left = [fault.times for fault in plan.api]
        self._dice = random.Random(plan.seed)  # noqa: S311 - faults shall be repeatable

    def happens(self, probability: float) -> bool:
        """Throw the dice."""
        return probability > 0 and self._dice.random() < probability

    def up_to(self, most_s: float) -> float:
        """Some delay."""
        return self._dice.uniform(0, most_s)

    def of_call(self, method: str, path: str) -> ApiFault | None:
        """What goes wrong with this call; it counts as having happened."""
        for index, fault in enumerate(self.plan.api):
            if (
                self._left[index] != 0
                and fault.method in {None, method}
                and path.startswith(fault.path)
                and self.happens(fault.probability)
            ):
                left = self._left[index]
                self._left[index] = None if left is None else left - 1
                return fault
        return None
