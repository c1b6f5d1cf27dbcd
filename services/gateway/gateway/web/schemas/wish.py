"""Generations as JSON: what is asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from gateway.domain.wish import Wish
from gateway.web.schemas.asked import ControlIn, HiresIn, In, InitImageIn, LoraIn, OutputIn
from gateway.web.schemas.base import IMAGE_EXAMPLE, PROMPT_EXAMPLE

# PostgreSQL's text cannot hold U+0000.
_NO_NUL = r"^[^\x00]*$"

Prompt = Annotated[str, Field(min_length=1, max_length=2000, pattern=_NO_NUL)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
BatchId = Annotated[
    str,
    Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"),
]


class SettingsIn(In):
    """How to draw. What is left out comes from the model's defaults."""

    negative_prompt: str = Field("", max_length=2000, pattern=_NO_NUL)
    model: str | None = Field(
        None, min_length=1, max_length=100, description="Key of a model; default: the first one."
    )
    width: int | None = Field(None, ge=8, le=4096, description="Pixels.")
    height: int | None = Field(None, ge=8, le=4096, description="Pixels.")
    steps: int | None = Field(None, ge=1, le=1000, description="Denoising steps per picture.")
    guidance: float | None = Field(
        None, ge=1, le=50, allow_inf_nan=False, description="1 switches guidance off."
    )
    sampler: str | None = Field(None, min_length=1, max_length=100)
    n: int = Field(1, ge=1, le=16, description="Pictures; the plan may allow fewer.")
    loras: tuple[LoraIn, ...] = Field((), max_length=8, strict=False)
    init_image: InitImageIn | None = None
    controls: tuple[ControlIn, ...] = Field((), max_length=4, strict=False)
    hires: HiresIn | None = None
    output: OutputIn = OutputIn()
    clip_skip: int = Field(
        0, ge=0, le=12, description="Last layers of the text encoder that are passed over."
    )

    def wish_for(self, prompt: str, seed: int | None) -> Wish:
        """As the service takes it."""
        return Wish(
            prompt=prompt,
            negative_prompt=self.negative_prompt,
            model=self.model,
            width_px=self.width,
            height_px=self.height,
            steps=self.steps,
            guidance=self.guidance,
            seed=seed,
            sampler=self.sampler,
            image_count=self.n,
            loras=tuple(lora.wish() for lora in self.loras),
            init_image=self.init_image.wish() if self.init_image else None,
            controls=tuple(control.wish() for control in self.controls),
            hires=self.hires.wish() if self.hires else None,
            output=self.output.wish(),
            clip_skip=self.clip_skip,
        )


class GenerationIn(SettingsIn):
    """What to draw. What is left out comes from the model's defaults."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": PROMPT_EXAMPLE},
                {
                    "prompt": PROMPT_EXAMPLE,
                    "model": "shapes-64",
                    "width": 64,
                    "height": 64,
                    "steps": 10,
                    "guidance": 2.5,
                    "seed": 7,
                    "n": 1,
                },
                {
                    "prompt": PROMPT_EXAMPLE,
                    "init_image": {"image": IMAGE_EXAMPLE, "strength": 0.6},
                    "hires": {"scale": 1.5},
                    "output": {"format": "webp", "quality": 90},
                },
            ]
        },
    )

    prompt: Prompt
    seed: Seed | None = Field(None, description="Same seed, same picture; default: a random one.")

    def wish(self) -> Wish:
        """As the service takes it."""
        return self.wish_for(self.prompt, self.seed)
