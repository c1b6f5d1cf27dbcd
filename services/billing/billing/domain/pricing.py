"""What work costs: steps x megapixels x pictures x the model's factor, in whole millicredits.

Rounding favours the user where work did not run: a price is rounded up once, the part of it that
is charged for steps that ran is rounded down.
"""

from __future__ import annotations

from dataclasses import dataclass

from easel_kit.ids import ModelKey

_PIXELS_PER_MEGAPIXEL = 1_000_000


@dataclass(frozen=True, slots=True)
class Work:
    """What is priced: one generation, without its prompt. The size is the finished picture's."""

    model_key: ModelKey
    width_px: int
    height_px: int
    steps: int
    image_count: int
    reckoned_pixel_steps: int = 0
    """Pixels x steps over all passes and pictures, as the caller reckons them; 0: the product."""

    @property
    def pixels(self) -> int:
        """Of one picture."""
        return self.width_px * self.height_px

    @property
    def pixel_steps(self) -> int:
        """Pixels x steps over all passes and pictures."""
        return self.reckoned_pixel_steps or self.pixels * self.steps * self.image_count


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Factors in millicredits per megapixel and step."""

    default: int
    models: tuple[tuple[ModelKey, int], ...] = ()

    def factor(self, model_key: ModelKey) -> int:
        """The model's own factor, or the default."""
        return dict(self.models).get(model_key, self.default)


def price(work: Work, table: PriceTable) -> int:
    """Millicredits for the whole work: rounded up, at least 1."""
    exact = work.pixel_steps * table.factor(work.model_key)
    return max(1, -(-exact // _PIXELS_PER_MEGAPIXEL))


def charge(millicredits: int, steps_done: int, steps_total: int) -> int:
    """The part of a price for the steps that ran, rounded down.

    Args:
        millicredits: the price of all steps.
        steps_done: may exceed the total (a worker that counted on); the whole is charged then.
        steps_total: 0 means that nothing was to run: nothing is charged.
    """
    if steps_total <= 0 or steps_done <= 0:
        return 0
    return millicredits * min(steps_done, steps_total) // steps_total
