"""Any other pipeline of diffusers, run from end to end by its own code, a step at a time.

Every picture has its own pipeline object and its own scheduler, over components that all share.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from gpu_worker.domain.drawing import Raster
from gpu_worker.domain.generation import Generation
from gpu_worker.engine.catalogue import Entry
from gpu_worker.engine.families.parts import read_index
from gpu_worker.engine.memory import size_bytes
from gpu_worker.engine.model import CannotDraw, CannotLoad
from gpu_worker.engine.pixels import resized
from gpu_worker.engine.served import OWN_SAMPLER
from gpu_worker.engine.whole import Abandoned, WholeRun

Pipeline = Any  # diffusers is untyped

_GUIDANCE = ("guidance_scale", "true_cfg_scale")
_DENOISERS = ("transformer", "unet")
_CHANNELS = 3

_MEDDLERS = ("PAG", "SAG", "AttendAndExcite", "LEdits", "Pix2PixZero", "TextToVideoZero")
"""In names of classes that put other attention into shared networks while they run."""

_BEGINNERS = ("Img2Img", "Inpaint", "Upscale", "Edit")
"""In names of classes that do nothing without a picture."""


class StockModel:
    """One loaded pipeline. Used by the engine's thread and, in turn, by its runs."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Takes a pipeline on the CPU; use `load`."""
        self._pipeline = pipeline
        self._networks = tuple(_networks(pipeline))
        self._accepted = frozenset(inspect.signature(pipeline.__call__).parameters)
        self.size_bytes = size_bytes(*self._networks)
        # asked of the modules once: they answer by a walk through all of theirs
        self.dtype: torch.dtype = pipeline.dtype
        self.device: torch.device = pipeline.device

    @classmethod
    def load(cls, entry: Entry, dtype: torch.dtype) -> StockModel:
        """Reads a model directory, from safetensors only, without any network or code in it.

        Raises:
            CannotLoad: the files name a class that is not installed, or cannot draw.
            OSError, ValueError, RuntimeError, KeyError: the files are not what they should be.
        """
        _check_index(entry.path)
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            entry.path,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        for network in _networks(pipeline):
            if isinstance(network, diffusers.ModelMixin) and network.dtype != dtype:
                network.to(dtype)  # as `parts.load_network`
            network.eval()
            network.requires_grad_(requires_grad=False)
        return cls(pipeline)

    @property
    def denoiser(self) -> Any:  # noqa: ANN401 (untyped, as above)
        """What switches work on."""
        parts = self._pipeline.components
        found = next((parts[name] for name in _DENOISERS if parts.get(name) is not None), None)
        return self._networks[0] if found is None else found

    @property
    def autoencoder(self) -> Any:  # noqa: ANN401 (untyped, as above)
        """What switches work on."""
        return self._pipeline.components.get("vae")

    def move_to(self, device: torch.device) -> None:
        """See the protocol."""
        self.device = device
        for network in self._networks:
            network.to(device)

    def begin(
        self, asked: Generation, inputs: Mapping[str, Raster], generator: torch.Generator
    ) -> WholeRun:
        """See the protocol."""
        self._check(asked)
        given = self._arguments(asked, inputs)
        given["generator"] = generator
        pipeline = self._fresh_pipeline()

        def draw(stepped: Callable[[], None]) -> Raster | None:
            self._hear(pipeline, given, run, stepped)
            return _picture(_called(pipeline, given, run))

        run = WholeRun(asked.steps, draw)
        return run

    # --- what is asked ----------------------------------------------------------------------

    def _check(self, asked: Generation) -> None:
        if asked.sampler != OWN_SAMPLER:
            raise CannotDraw(f"sampler: must be {OWN_SAMPLER} for this model")
        for field, value in (
            ("loras", asked.loras),
            ("controls", asked.controls),
            ("hires", asked.hires),
        ):
            if value:
                raise CannotDraw(f"{field}: not with this model")
        if asked.clip_skip and "clip_skip" not in self._accepted:
            raise CannotDraw("clip_skip: not with this model")
        if asked.negative_prompt and "negative_prompt" not in self._accepted:
            raise CannotDraw("negative_prompt: this model reads none")

    def _arguments(self, asked: Generation, inputs: Mapping[str, Raster]) -> dict[str, object]:
        wanted: dict[str, object] = {
            "prompt": asked.prompt,
            "width": asked.width_px,
            "height": asked.height_px,
            "num_inference_steps": asked.steps,
            "output_type": "np",
            "use_resolution_binning": False,  # else another size, cut and enlarged to this one
        }
        if asked.negative_prompt:
            wanted["negative_prompt"] = asked.negative_prompt
        if asked.clip_skip:
            wanted["clip_skip"] = asked.clip_skip
        wanted |= dict.fromkeys(_GUIDANCE, asked.guidance)
        if "prompt" not in self._accepted:
            raise CannotDraw("prompt: this model reads none")
        wanted |= self._begin_with(asked, inputs)
        return {name: value for name, value in wanted.items() if name in self._accepted}

    def _begin_with(self, asked: Generation, inputs: Mapping[str, Raster]) -> dict[str, object]:
        init = asked.init_image
        name = type(self._pipeline).__name__
        if init is None:
            if any(beginner in name for beginner in _BEGINNERS):
                raise CannotDraw("init_image: this model needs a picture to begin with")
            return {}
        size = (asked.width_px, asked.height_px)
        wanted: dict[str, object] = {
            "image": resized(inputs[init.object_key], *size),
            "strength": init.strength,
        }
        if init.mask_object_key:
            wanted["mask_image"] = resized(inputs[init.mask_object_key], *size)
        for name in wanted:
            if name not in self._accepted:
                raise CannotDraw(f"init_image: this model's pipeline takes no {name}")
        return wanted

    # --- the run ----------------------------------------------------------------------------

    def _fresh_pipeline(self) -> Pipeline:
        """Of the same components, with schedulers, attributes and flags of its own."""
        kind = type(self._pipeline)
        known = inspect.signature(kind.__init__).parameters
        given = {
            name: value for name, value in self._pipeline.config.items() if name in known
        } | self._pipeline.components
        for name, part in given.items():
            if isinstance(part, SchedulerMixin):
                given[name] = copy.deepcopy(part)
        pipeline = kind(**given)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _hear(
        self,
        pipeline: Pipeline,
        given: dict[str, object],
        run: WholeRun,
        stepped: Callable[[], None],
    ) -> None:
        """Has the pipeline say when a step is over, in whichever way it can."""

        def over() -> None:
            if run.position == 0:
                run.steps_total = _steps_of(pipeline, run.steps_total)
            stepped()

        def on_step_end(
            _pipe: Pipeline, _step: int, _timestep: object, inside: dict[str, object]
        ) -> dict[str, object]:
            over()
            return inside

        if "callback_on_step_end" in self._accepted:
            given["callback_on_step_end"] = on_step_end
        elif "callback" in self._accepted:
            given["callback"] = lambda *_: over()


def _called(pipeline: Pipeline, given: Mapping[str, object], run: WholeRun) -> object:
    try:
        return pipeline(**given)
    except Abandoned:
        raise
    except (ValueError, TypeError) as error:
        if run.position:
            raise
        # before its first step a pipeline checks what it was given
        raise CannotDraw(f"the model's pipeline refuses this: {error}") from error


def _steps_of(pipeline: Pipeline, asked: int) -> int:
    """What the pipeline really takes: schedulers may count otherwise, strength cuts."""
    counted = getattr(pipeline, "num_timesteps", None)
    if isinstance(counted, int) and counted > 0:
        return counted
    timesteps = getattr(getattr(pipeline, "scheduler", None), "timesteps", None)
    return asked if timesteps is None else len(timesteps)


def _picture(output: object) -> Raster | None:
    """The one picture; None where some pixel is no number.

    Raises:
        CannotDraw: the pipeline makes something else than pictures.
    """
    images = getattr(output, "images", None)
    if images is None:
        raise CannotDraw("the model's pipeline makes no pictures")
    pixels = np.asarray(images[0])
    if pixels.ndim != _CHANNELS or pixels.shape[-1] != _CHANNELS:
        raise CannotDraw("the model's pipeline makes no pictures of red, green and blue")
    if pixels.dtype != np.uint8:
        if not np.isfinite(pixels).all():
            return None
        pixels = (pixels * 255).round().clip(0, 255).astype(np.uint8)
    height_px, width_px, _ = pixels.shape
    return Raster(width_px, height_px, np.ascontiguousarray(pixels).tobytes())


def _networks(pipeline: Pipeline) -> Iterator[Any]:
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            yield part


def _check_index(path: Path) -> None:
    """That only installed classes are named: a saved pipeline may also name code beside it."""
    index = read_index(path)
    if any(meddler in index["_class_name"] for meddler in _MEDDLERS):
        raise CannotLoad("its pipeline changes the attention that other pictures run through")
    _check_class(diffusers, index["_class_name"])
    for part, named in index.items():
        if part.startswith("_") or not isinstance(named, list) or named[0] is None:
            continue
        library, kind = named
        homes = {"diffusers": diffusers, "transformers": transformers}
        home = homes.get(library) or getattr(diffusers.pipelines, str(library), None)
        if home is None:
            raise CannotLoad(f"{part} is of library {library}, which is not served")
        _check_class(home, kind)
        if not (path / part).is_dir():
            raise CannotLoad(f"{part} is missing")


def _check_class(home: Any, kind: object) -> None:  # noqa: ANN401 (a module)
    if not isinstance(kind, str) or not hasattr(home, kind):
        raise CannotLoad(f"class {kind} is not in the installed libraries")
