"""What a caller asks for, and how it becomes an order that a model can draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from easel_kit.errors import InvalidInput
from easel_kit.ids import ImageId
from gateway.domain.catalogue import Feature, Model, ModelType, Size, companion, main_model
from gateway.domain.generation import (
    GRAIN_PX,
    USUAL_OUTPUT,
    Control,
    Generation,
    Hires,
    ImageFormat,
    InitImage,
    Lora,
    Output,
    Source,
    enlarged,
)

MAX_SIDE_PX = 4096
"""Of a finished picture, whatever the plan."""
# A second pass changes half of the picture unless told otherwise.
_HIRES_STRENGTH = 0.5


@dataclass(frozen=True, slots=True)
class LoraWish:
    """An adapter by its key."""

    model: str
    weight: float


@dataclass(frozen=True, slots=True)
class InitWish:
    """Pictures of the caller's library to begin with."""

    image: ImageId
    strength: float
    mask: ImageId | None = None


@dataclass(frozen=True, slots=True)
class ControlWish:
    """A control network by its key, and a picture of the caller's library."""

    model: str
    image: ImageId
    weight: float
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class HiresWish:
    """A second pass; None where a default will do."""

    scale: float
    steps: int | None = None
    strength: float | None = None


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
    loras: tuple[LoraWish, ...] = ()
    init_image: InitWish | None = None
    controls: tuple[ControlWish, ...] = ()
    hires: HiresWish | None = None
    output: Output = USUAL_OUTPUT
    clip_skip: int = 0

    @property
    def image_ids(self) -> frozenset[ImageId]:
        """Pictures of the library that it names."""
        found = {control.image for control in self.controls}
        if self.init_image is not None:
            found.add(self.init_image.image)
            if self.init_image.mask is not None:
                found.add(self.init_image.mask)
        return frozenset(found)


def settle(
    wish: Wish,
    models: Sequence[Model],
    *,
    fresh_seed: int,
    object_keys: Mapping[ImageId, str] | None = None,
) -> Generation:
    """The complete order for a wish.

    Args:
        wish: within the absolute bounds already.
        models: the catalogue; the first usable main model is the default one.
        fresh_seed: taken where the wish names none.
        object_keys: of those of the named pictures that are in the caller's library.

    Raises:
        InvalidInput: names the field and what is allowed.
        Overloaded: no model can be used at this moment.
    """
    model = main_model(wish.model, models)
    size = _size(wish, model)
    steps = _steps(wish.steps, model)
    library = object_keys or {}
    return Generation(
        model_key=model.key,
        prompt=wish.prompt,
        negative_prompt=wish.negative_prompt,
        width_px=size.width_px,
        height_px=size.height_px,
        steps=steps,
        guidance=model.defaults.guidance if wish.guidance is None else wish.guidance,
        seed=fresh_seed if wish.seed is None else wish.seed,
        sampler=_sampler(wish.sampler, model),
        image_count=wish.image_count,
        loras=_loras(wish.loras, model, models),
        init_image=_init_image(wish.init_image, model, library),
        controls=_controls(wish.controls, model, models, library),
        hires=_hires(wish.hires, model, size, steps),
        output=_output(wish.output),
        clip_skip=_clip_skip(wish.clip_skip, model),
    )


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
        if pixels % GRAIN_PX:
            raise InvalidInput(field_name, f"must be a multiple of {GRAIN_PX}")
    return size


def _steps(steps: int | None, model: Model, field_name: str = "steps") -> int:
    if steps is None:
        return model.defaults.steps
    if steps > model.max_steps:
        raise InvalidInput(field_name, f"{model.key} takes at most {model.max_steps}")
    return steps


def _sampler(sampler: str | None, model: Model) -> str:
    if sampler is None or sampler == model.defaults.sampler:
        return model.defaults.sampler
    if sampler not in model.samplers:
        allowed = ", ".join(model.samplers or (model.defaults.sampler,))
        raise InvalidInput("sampler", f"is unknown to {model.key}; allowed: {allowed}")
    return sampler


def _loras(wished: Sequence[LoraWish], model: Model, models: Sequence[Model]) -> tuple[Lora, ...]:
    if wished:
        model.must_offer(Feature.LORAS, "loras")
    found: dict[str, Lora] = {}
    for n, one in enumerate(wished):
        named = f"loras.{n}.model"
        if one.model in found:
            raise InvalidInput(named, "is named twice")
        key = companion(one.model, ModelType.LORA, model, models, named)
        found[key] = Lora(key, one.weight)
    return tuple(found.values())


def _init_image(
    wished: InitWish | None, model: Model, library: Mapping[ImageId, str]
) -> InitImage | None:
    if wished is None:
        return None
    if wished.mask is None:
        model.must_offer(Feature.IMAGE_TO_IMAGE, "init_image")
    else:
        model.must_offer(Feature.INPAINT, "init_image.mask")
    picture = _source(wished.image, library, "init_image.image")
    mask = None if wished.mask is None else _source(wished.mask, library, "init_image.mask")
    return InitImage(picture, wished.strength, mask)


def _controls(
    wished: Sequence[ControlWish],
    model: Model,
    models: Sequence[Model],
    library: Mapping[ImageId, str],
) -> tuple[Control, ...]:
    if wished:
        model.must_offer(Feature.CONTROLS, "controls")
    known: set[tuple[str, ImageId]] = set()
    for n, one in enumerate(wished):
        if one.begin >= one.end:
            raise InvalidInput(f"controls.{n}.end", "must be after begin")
        if (one.model, one.image) in known:
            raise InvalidInput(f"controls.{n}.image", f"is read by {one.model} twice")
        known.add((one.model, one.image))
    return tuple(
        Control(
            companion(one.model, ModelType.CONTROLNET, model, models, f"controls.{n}.model"),
            _source(one.image, library, f"controls.{n}.image"),
            one.weight,
            one.begin,
            one.end,
        )
        for n, one in enumerate(wished)
    )


def _source(image_id: ImageId, library: Mapping[ImageId, str], field_name: str) -> Source:
    if image_id not in library:
        raise InvalidInput(field_name, "is no picture of your library")
    return Source(image_id, library[image_id])


def _hires(wished: HiresWish | None, model: Model, size: Size, steps: int) -> Hires | None:
    if wished is None:
        return None
    model.must_offer(Feature.HIRES, "hires")
    longest = max(size.width_px, size.height_px)
    if enlarged(longest, wished.scale) > MAX_SIDE_PX:
        raise InvalidInput(
            "hires.scale", f"makes a side longer than {MAX_SIDE_PX} pixels out of {longest}"
        )
    return Hires(
        wished.scale,
        steps if wished.steps is None else _steps(wished.steps, model, "hires.steps"),
        _HIRES_STRENGTH if wished.strength is None else wished.strength,
    )


def _output(wished: Output) -> Output:
    if wished.quality is not None and wished.format is ImageFormat.PNG:
        raise InvalidInput("output.quality", "is nothing to png; it is for webp and jpeg")
    return wished


def _clip_skip(wished: int, model: Model) -> int:
    if wished:
        model.must_offer(Feature.CLIP_SKIP, "clip_skip")
    return wished
