"""The denoiser: UNet and text encoder trained together on encoded scenes.

The objective is v-prediction over a schedule whose last step is pure noise (Lin et al., 2023,
arXiv:2305.08891): without it the model cannot learn flat backgrounds. The prompt also enters the
time embedding, which teaches colours many times faster than cross attention alone.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import nn
from torch.nn import functional

from training.dataset import EncodedScenes, tokenize
from training.latents import CELL_PX, CHANNELS
from training.progress import Bar, CpuBudget
from training.scenes import KINDS, SIDE_PX
from training.text import WIDTH

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import CLIPTextModel, CLIPTokenizer

    from training.plan import Plan

BATCH = 32
TRAIN_TIMESTEPS = 1000

_FLOOR_SHARE = 0.005
_WARM_UP_STEPS = 100
_RESUME_WARM_UP_STEPS = 20
_EMPTY_PROMPTS = 0.1
"""Share of prompts left out, so that guidance has something to guide away from."""
_KIND_SHARES = {"one": 0.4, "many": 0.2, "pair": 0.4}
"""Share of each kind in a batch; single figures teach the shapes."""
_AVERAGE_DECAY = 0.998
_AVERAGE_EVERY = 4
_CHECKPOINT_EVERY_S = 60.0
_SEED = 1


def build_unet() -> UNet2DConditionModel:
    """An untrained UNet over latents of (4, 16, 16), always the same; 2.87 million parameters."""
    torch.manual_seed(_SEED)
    return UNet2DConditionModel(
        sample_size=SIDE_PX // CELL_PX,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        layers_per_block=1,
        block_out_channels=(32, 64, 96),
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )


def build_scheduler() -> DDIMScheduler:
    """The noise schedule, for training and as the pipeline's own sampler."""
    return DDIMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


class SceneSampler:
    """Draws training batches with fixed shares of the kinds of scene."""

    def __init__(
        self, data: EncodedScenes, empty_prompt: Tensor, generator: torch.Generator
    ) -> None:
        """Takes `empty_prompt`, (24,), int64: the tokens that stand for no prompt."""
        self._data = data
        self._empty_prompt = empty_prompt
        self._generator = generator
        pools = [(data.kinds == kind).nonzero().flatten() for kind in range(len(KINDS))]
        self._pools = [pool for pool in pools if len(pool)]
        self._shares = torch.tensor(
            [_KIND_SHARES[KINDS[kind]] for kind, pool in enumerate(pools) if len(pool)]
        )

    def draw(self, size: int) -> tuple[Tensor, Tensor]:
        """Latents (size, 4, 16, 16), float32, and token ids (size, 24), int64."""
        picks = torch.multinomial(
            self._shares, size, replacement=True, generator=self._generator
        ).tolist()
        places = torch.rand(size, generator=self._generator).tolist()
        rows = torch.stack(
            [
                self._pools[pick][int(place * len(self._pools[pick]))]
                for pick, place in zip(picks, places, strict=True)
            ]
        )
        wordings = self._data.token_ids.shape[1]
        wording = torch.randint(wordings, (size,), generator=self._generator)
        token_ids = self._data.token_ids[rows, wording].long()
        token_ids[torch.rand(size, generator=self._generator) < _EMPTY_PROMPTS] = self._empty_prompt
        return self._data.latents[rows].float(), token_ids


class Denoiser(nn.Module):
    """Text encoder and UNet as one module."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet

    def forward(self, noisy: Tensor, timesteps: Tensor, token_ids: Tensor) -> Tensor:
        """The velocity, (batch, 4, 16, 16), of noisy latents at timesteps (batch,), 0 to 999."""
        hidden = self.text_encoder(token_ids).last_hidden_state
        velocity: Tensor = self.unet(noisy, timesteps, hidden).sample
        return velocity


class UNetTraining:
    """The training run of the denoiser; its state survives in a checkpoint file.

    The learning rate is constant, then falls linearly to zero at the end of the budget. What is
    exported is the moving average of the weights.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        tokenizer: CLIPTokenizer,
        data: EncodedScenes,
        plan: Plan,
    ) -> None:
        self._plan = plan
        self._generator = torch.Generator().manual_seed(_SEED)
        self._model = denoiser.train()
        self._average = copy.deepcopy(self._model).requires_grad_(requires_grad=False)
        self._optimizer = torch.optim.AdamW(
            [
                {"params": list(self._model.unet.parameters()), "share": 1.0},
                {
                    "params": list(self._model.text_encoder.parameters()),
                    "share": plan.text_rate_share,
                },
            ],
            lr=plan.unet_peak_rate,
            betas=(0.9, 0.99),
            weight_decay=0.01,
            fused=True,
        )
        self._schedule = build_scheduler()
        self._sampler = SceneSampler(data, tokenize(tokenizer, [""])[0], self._generator)
        self._step = 0
        self._spent_s = 0.0
        self._warm_up_steps = _WARM_UP_STEPS
        self._steps_here = 0
        self._loss = 0.0

    @property
    def step(self) -> int:
        """Optimizer steps taken so far, earlier runs included."""
        return self._step

    def resume(self, checkpoint: Path) -> None:
        """Takes up the state of a checkpoint that `run` wrote."""
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        self._model.load_state_dict(state["model"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        self._step, self._spent_s = state["step"], state["spent_s"]
        self._warm_up_steps = _RESUME_WARM_UP_STEPS

    def run(self, checkpoint: Path, bar: Bar) -> Denoiser:
        """Trains until the plan's budget is spent, earlier runs counted; returns the average.

        Every minute of CPU time, and at the end, the state goes to `checkpoint`.
        """
        budget = CpuBudget(self._plan.unet_budget_s, self._spent_s)
        saved_s = budget.spent_s
        while self._step == 0 or budget.left_s > 0:
            self._set_rate(budget.left_s / self._plan.unet_decay_s)
            self._train_step()
            bar.show(budget.share, f"step {self._step}, loss {self._loss:.4f}")
            if budget.spent_s - saved_s > _CHECKPOINT_EVERY_S:
                saved_s = budget.spent_s
                self._save(checkpoint, saved_s)
        self._save(checkpoint, budget.spent_s)
        return self._average.eval()

    def _set_rate(self, decay_share: float) -> None:
        rise = (self._steps_here + 1) / self._warm_up_steps
        factor = max(min(1.0, rise, decay_share), _FLOOR_SHARE)
        for group in self._optimizer.param_groups:
            group["lr"] = group["share"] * self._plan.unet_peak_rate * factor

    def _train_step(self) -> None:
        latents, token_ids = self._sampler.draw(BATCH)
        timesteps = self._stratified_timesteps()
        noise = torch.randn(latents.shape, generator=self._generator)
        noisy = self._schedule.add_noise(latents, noise, timesteps)
        velocity = self._schedule.get_velocity(latents, noise, timesteps)
        loss = functional.mse_loss(self._model(noisy, timesteps, token_ids), velocity)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._step += 1
        self._steps_here += 1
        if self._step % _AVERAGE_EVERY == 0:
            self._update_average()
        value = loss.item()
        self._loss = 0.98 * self._loss + 0.02 * value if self._loss else value

    def _stratified_timesteps(self) -> Tensor:
        """One timestep from each of as many equal ranges as the batch has rows: (32,), int64."""
        places = torch.arange(BATCH) + torch.rand(BATCH, generator=self._generator)
        return (places / BATCH * TRAIN_TIMESTEPS).long().clamp(max=TRAIN_TIMESTEPS - 1)

    def _update_average(self) -> None:
        decay = min(_AVERAGE_DECAY, (1 + self._step) / (10 + self._step))
        averaged: list[Tensor] = list(self._average.parameters())
        current: list[Tensor] = list(self._model.parameters())
        with torch.no_grad():
            torch._foreach_lerp_(averaged, current, 1 - decay**_AVERAGE_EVERY)

    def _save(self, checkpoint: Path, spent_s: float) -> None:
        state = {
            "model": self._model.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "step": self._step,
            "spent_s": spent_s,
        }
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(checkpoint)


def train_unet(checkpoint: Path, training: UNetTraining, bar: Bar) -> Denoiser:
    """Runs the training, from its checkpoint where there is one."""
    if checkpoint.exists():
        training.resume(checkpoint)
    return training.run(checkpoint, bar)
