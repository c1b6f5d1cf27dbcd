"""One job inside the engine: everything that makes its pictures its own.

Nothing here is shared between jobs, and nothing between pictures of a job: a picture has its own
scheduler object (they keep state), generator, latents and position. The model is shared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from easel_kit.ids import AttemptId
from gpu_worker.domain.drawing import DrawnPicture, Outcome, Raster, StepProgress
from gpu_worker.domain.generation import Generation
from gpu_worker.engine.samplers import Scheduler, build_scheduler, step_options


@dataclass(frozen=True, slots=True)
class Conditioning:
    """Encoded prompts of one job: `text` and `empty` are (1, tokens, width), on the device.

    `empty` is the negative prompt, or None where guidance is off.
    """

    text: torch.Tensor
    empty: torch.Tensor | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rows:
    """Input of one forward, all on the device.

    Attributes:
        samples: (rows, channels, h, w), scaled as each row's scheduler wants it.
        timesteps: (rows,).
        conditioning: (rows, tokens, width).
    """

    samples: torch.Tensor
    timesteps: torch.Tensor
    conditioning: torch.Tensor


class Model(Protocol):
    """A loaded model of a family whose denoiser takes a timestep per row."""

    @property
    def scheduler_config(self) -> Mapping[str, object]:
        """What `scheduler_config.json` says."""
        ...

    @property
    def size_bytes(self) -> int:
        """Parameters and buffers; storage that several share is counted once."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Number format of weights and latents."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    def move_to(self, device: torch.device) -> None:
        """Brings all weights to the device."""
        ...

    def latent_shape(self, width_px: int, height_px: int) -> tuple[int, int, int, int]:
        """Shape of one picture's latents."""
        ...

    def encode(self, prompt: str, negative_prompt: str, *, guided: bool) -> Conditioning:
        """Encodes the prompts of one job."""
        ...

    def denoise(self, rows: Rows) -> torch.Tensor:
        """One forward: a prediction for every row, shaped as `rows.samples`."""
        ...

    def decode(self, latents: torch.Tensor, generator: torch.Generator) -> Raster:
        """The picture of finished latents.

        Raises:
            FloatingPointError: some pixel is no number.
        """
        ...

    def look(self, estimate: torch.Tensor) -> Raster:
        """A quick small look at an estimate of finished latents."""
        ...


class Listener(Protocol):
    """Who asked for a job. Called on the engine's thread; must return at once."""

    def progressed(self, progress: StepProgress) -> None:
        """After each step."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """Once, and nothing after it."""
        ...


@dataclass(slots=True)
class Trajectory:
    """One picture on its way from noise: latents (1, channels, h, w) and where they stand."""

    seed: int
    generator: torch.Generator
    scheduler: Scheduler
    timesteps: torch.Tensor
    options: Mapping[str, object]
    latents: torch.Tensor
    position: int = 0
    raster: Raster | None = None

    @classmethod
    def begin(cls, asked: Generation, index: int, model: Model) -> Trajectory:
        """Noise for picture `index`, drawn on the CPU so that a seed means the same everywhere.

        Raises:
            ValueError: the sampler cannot do that number of steps.
        """
        seed = asked.seed_of(index)
        scheduler = build_scheduler(asked.sampler, model.scheduler_config)
        scheduler.set_timesteps(asked.steps)
        generator = torch.Generator("cpu").manual_seed(seed)
        shape = model.latent_shape(asked.width_px, asked.height_px)
        noise = torch.randn(shape, generator=generator, dtype=model.dtype).to(model.device)
        return cls(
            seed=seed,
            generator=generator,
            scheduler=scheduler,
            timesteps=scheduler.timesteps,
            options=step_options(scheduler, generator),
            latents=noise * scheduler.init_noise_sigma,
        )

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self.position >= len(self.timesteps)

    @property
    def timestep(self) -> torch.Tensor:
        """Of the next step, 0-dimensional, on the CPU."""
        return self.timesteps[self.position]

    def scaled_sample(self) -> torch.Tensor:
        """The latents as the model wants to see them at the next step."""
        scaled: torch.Tensor = self.scheduler.scale_model_input(self.latents, self.timestep)
        return scaled

    def advance(self, prediction: torch.Tensor) -> None:
        """Takes the next step with the (guided) prediction (1, channels, h, w)."""
        self.latents = self.scheduler.step(
            prediction, self.timestep, self.latents, **self.options, return_dict=False
        )[0]
        self.position += 1

    def estimate(self, prediction: torch.Tensor) -> torch.Tensor:
        """What the latents would finish as, judged before the next step; for previews only.

        The scaled sample is variance preserving for every sampler of the table, so the model's own
        noise schedule turns it and the prediction into x0 (Salimans and Ho, 2022, section 4).
        """
        sample = self.scaled_sample()
        schedule: torch.Tensor = self.scheduler.alphas_cumprod
        kept = schedule[min(round(float(self.timestep)), len(schedule) - 1)].to(sample)
        signal, noise = kept.sqrt(), (1 - kept).sqrt()
        if self.scheduler.config.prediction_type == "v_prediction":
            return signal * sample - noise * prediction
        if self.scheduler.config.prediction_type == "sample":
            return prediction
        return (sample - noise * prediction) / signal.clamp(min=1e-4)


@dataclass(slots=True)
class JobState:
    """A job that the engine runs, until its listener has heard the outcome."""

    attempt_id: AttemptId
    asked: Generation
    listener: Listener
    model: Model
    conditioning: Conditioning
    pictures: list[Trajectory]
    steps_done: int = 0
    last_turn: int = 0
    last_preview_s: float = float("-inf")

    @classmethod
    def begin(
        cls, attempt_id: AttemptId, asked: Generation, listener: Listener, model: Model
    ) -> JobState:
        """Encodes the prompts and draws the noise.

        Raises:
            ValueError: the sampler cannot do that number of steps.
        """
        pictures = [Trajectory.begin(asked, index, model) for index in range(asked.image_count)]
        conditioning = model.encode(asked.prompt, asked.negative_prompt, guided=asked.guidance > 1)
        return cls(attempt_id, asked, listener, model, conditioning, pictures)

    @property
    def steps_total(self) -> int:
        """Steps of all pictures; what the sampler really takes, not what was asked."""
        return sum(len(picture.timesteps) for picture in self.pictures)

    @property
    def current(self) -> Trajectory:
        """The picture that steps next; one after the other."""
        return next(picture for picture in self.pictures if not picture.finished)

    @property
    def denoised(self) -> bool:
        """Whether all its pictures wait for, or are past, decoding."""
        return all(picture.finished for picture in self.pictures)

    def drawn(self) -> tuple[DrawnPicture, ...]:
        """The pictures that are decoded, in the order of their seeds."""
        return tuple(
            DrawnPicture(picture.seed, picture.raster)
            for picture in self.pictures
            if picture.raster is not None
        )

    @property
    def row_count(self) -> int:
        """Rows that its current picture brings into a forward."""
        return 1 if self.conditioning.empty is None else 2
