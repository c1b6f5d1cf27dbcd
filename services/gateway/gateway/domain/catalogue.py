"""Models on offer, and how a wish becomes an order that one of them can draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from easel_kit.errors import InvalidInput, Overloaded
from easel_kit.ids import ModelKey
from gateway.domain.job import Generation

# A model that lists no sizes draws any multiple of this many pixels (its latents' grain).
_GRAIN_PX = 8
_MAIN = "main"


@dataclass(frozen=True, slots=True)
class Size:
    """A width and height in pixels."""

    width_px: int
    height_px: int

    def __str__(self) -> str:
        """As in `64x64`."""
        return f"{self.width_px}x{self.height_px}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDefaults:
    """What a wish gets that names none of these."""

    steps: int
    guidance: float
    size: Size
    sampler: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of the catalogue; no `sizes` means any multiple of 8 within the plan."""

    key: ModelKey
    name: str
    base: str
    type: str
    description: str
    licence: str
    defaults: ModelDefaults
    sizes: tuple[Size, ...]
    max_steps: int
    max_prompt_tokens: int
    samplers: tuple[str, ...]
    loaded: bool
    unavailable_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a caller asked for; None where the model's default will do."""

    prompt: str = field(repr=False)
    negative_prompt: str = field(default="", repr=False)
    model: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None
    sampler: str | None = None
    image_count: int = 1


def settle(wish: Wish, models: Sequence[Model], *, fresh_seed: int) -> Generation:
    """The complete order for a wish.

    Args:
        wish: within the absolute bounds already.
        models: the catalogue; the first usable main model is the default one.
        fresh_seed: taken where the wish names none.

    Raises:
        InvalidInput: names the field and what is allowed.
        Overloaded: no model can be used at this moment.
    """
    model = _choose(wish.model, models)
    size = _size(wish, model)
    return Generation(
        model_key=model.key,
        prompt=wish.prompt,
        negative_prompt=wish.negative_prompt,
        width_px=size.width_px,
        height_px=size.height_px,
        steps=_steps(wish.steps, model),
        guidance=model.defaults.guidance if wish.guidance is None else wish.guidance,
        seed=fresh_seed if wish.seed is None else wish.seed,
        sampler=_sampler(wish.sampler, model),
        image_count=wish.image_count,
    )


def _choose(key: str | None, models: Sequence[Model]) -> Model:
    mains = [model for model in models if model.type == _MAIN]
    usable = [model for model in mains if not model.unavailable_reason]
    if key is None:
        if not usable:
            raise Overloaded("no model is ready at this moment")
        return usable[0]
    for model in mains:
        if model.key == key:
            if model.unavailable_reason:
                raise InvalidInput("model", f"cannot be used: {model.unavailable_reason}")
            return model
    offered = ", ".join(model.key for model in usable) or "nothing at this moment"
    raise InvalidInput("model", f"is unknown; on offer: {offered}")


def _size(wish: Wish, model: Model) -> Size:
    default = model.defaults.size
    size = Size(
        default.width_px if wish.width_px is None else wish.width_px,
        default.height_px if wish.height_px is None else wish.height_px,
    )
    if model.sizes:
        if size in model.sizes:
            return size
        field_name = "height"
        if size.width_px not in {offered.width_px for offered in model.sizes}:
            field_name = "width"
        allowed = ", ".join(str(offered) for offered in model.sizes)
        raise InvalidInput(field_name, f"{size} is not offered by {model.key}; allowed: {allowed}")
    for field_name, pixels in (("width", size.width_px), ("height", size.height_px)):
        if pixels % _GRAIN_PX:
            raise InvalidInput(field_name, f"must be a multiple of {_GRAIN_PX}")
    return size


def _steps(steps: int | None, model: Model) -> int:
    if steps is None:
        return model.defaults.steps
    if steps > model.max_steps:
        raise InvalidInput("steps", f"{model.key} takes at most {model.max_steps}")
    return steps


def _sampler(sampler: str | None, model: Model) -> str:
    if sampler is None or sampler == model.defaults.sampler:
        return model.defaults.sampler
    if sampler not in model.samplers:
        allowed = ", ".join(model.samplers or (model.defaults.sampler,))
        raise InvalidInput("sampler", f"is unknown to {model.key}; allowed: {allowed}")
    return sampler
