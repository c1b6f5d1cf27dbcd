"""Stock diffusers, used as its documentation shows: load once, set a scheduler, call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from PIL import Image

from bench.engine.trace import SAMPLERS, Request

_SCHEDULERS: dict[str, tuple[Any, dict[str, object]]] = {
    "ddim": (diffusers.DDIMScheduler, {}),
    "euler_a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
}


class Stock:
    """Pipelines of some models, with one scheduler object for each sampler."""

    def __init__(self, models_dir: Path, keys: Iterable[str]) -> None:
        """Loads all of them, in single precision."""
        diffusers.utils.logging.set_verbosity_error()
        diffusers.utils.logging.disable_progress_bar()
        self._pipelines = {key: _load(models_dir / key) for key in keys}
        self._schedulers = {
            (key, sampler): kind.from_config(pipeline.scheduler.config, **options)
            for key, pipeline in self._pipelines.items()
            for sampler, (kind, options) in _SCHEDULERS.items()
        }

    def pipeline(self, key: str) -> Any:  # noqa: ANN401 (diffusers is untyped)
        """The pipeline itself."""
        return self._pipelines[key]

    def scheduler(self, key: str, sampler: str) -> Any:  # noqa: ANN401
        """The scheduler object that pictures of that model and sampler are drawn with."""
        return self._schedulers[key, sampler]

    def draw(self, asked: Sequence[Request]) -> list[Image.Image]:
        """One call of the pipeline; all of `asked` have equal settings."""
        (settings,) = {request.settings for request in asked}
        key, steps, guidance, sampler, size_px = settings
        pipeline = self._pipelines[key]
        pipeline.scheduler = self._schedulers[key, sampler]
        images: list[Image.Image] = pipeline(
            [request.prompt for request in asked],
            width=size_px,
            height=size_px,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator("cpu").manual_seed(request.seed) for request in asked],
        ).images
        return images

    def warm_up(self) -> None:
        """Draws one picture with each pipeline and sampler."""
        for key in self._pipelines:
            for sampler in SAMPLERS:
                self.draw([Request(key, "a red circle", 2, 2.5, sampler, 0)])


def _load(path: Path) -> Any:  # noqa: ANN401 (diffusers is untyped)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        path,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        low_cpu_mem_usage=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
