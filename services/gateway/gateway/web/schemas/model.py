"""The model catalogue as JSON."""

from __future__ import annotations

from pydantic import Field

from gateway.domain.catalogue import Model
from gateway.web.schemas.base import Out


class SizeOut(Out):
    """Pixels."""

    width: int = Field(examples=[64])
    height: int = Field(examples=[64])


class ModelDefaultsOut(Out):
    """What a request that names none of these gets."""

    width: int = Field(examples=[64])
    height: int = Field(examples=[64])
    steps: int = Field(examples=[10])
    guidance: float = Field(examples=[2.5])
    sampler: str = Field(examples=["ddim"])


class ModelOut(Out):
    """A model of the catalogue."""

    key: str = Field(examples=["shapes-64"])
    name: str
    base: str = Field(description="Architecture family.")
    type: str = Field(examples=["main"])
    description: str
    licence: str
    defaults: ModelDefaultsOut
    sizes: tuple[SizeOut, ...] = Field(description="Empty: any multiple of 8 within the plan.")
    max_steps: int
    max_prompt_tokens: int
    samplers: tuple[str, ...]
    loaded: bool = Field(description="In a worker's memory now: no loading time.")
    unavailable_reason: str | None
    features: tuple[str, ...] = Field(
        description="What requests may ask of it beyond a prompt.", examples=[["image_to_image"]]
    )
    size_bytes: int | None = Field(description="Of its files; null where unknown.")

    @classmethod
    def of(cls, model: Model) -> ModelOut:
        """From the domain."""
        defaults = model.defaults
        return cls(
            key=model.key,
            name=model.name,
            base=model.base,
            type=model.type,
            description=model.description,
            licence=model.licence,
            defaults=ModelDefaultsOut(
                width=defaults.size.width_px,
                height=defaults.size.height_px,
                steps=defaults.steps,
                guidance=defaults.guidance,
                sampler=defaults.sampler,
            ),
            sizes=tuple(
                SizeOut(width=size.width_px, height=size.height_px) for size in model.sizes
            ),
            max_steps=model.max_steps,
            max_prompt_tokens=model.max_prompt_tokens,
            samplers=model.samplers,
            loaded=model.loaded,
            unavailable_reason=model.unavailable_reason or None,
            features=model.features,
            size_bytes=model.size_bytes or None,
        )


class ModelsOut(Out):
    """The catalogue."""

    items: tuple[ModelOut, ...]
