"""How long and how much to train: the plan of a run, in CPU seconds and scenes."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Budgets in CPU seconds of this process; every trained stage takes at least one step."""

    text_budget_s: float = 75.0
    vae_budget_s: float = 480.0
    unet_budget_s: float = 3300.0
    unet_decay_s: float = 500.0
    """The last part of the UNet's budget, in which the learning rate falls to zero."""
    unet_peak_rate: float = 1.5e-3
    text_rate_share: float = 0.2
    """The text encoder's learning rate beside the UNet's."""
    shards: int = 20
    shard_scenes: int = 3000
    judge_every: int = 1
    """The finished model is judged by every so many-th of the captions."""

    @property
    def budget_s(self) -> float:
        """CPU seconds of the trained stages together; encoding and judging come on top."""
        return self.text_budget_s + self.vae_budget_s + self.unet_budget_s

    def within(self, minutes: float) -> Plan:
        """The same plan with its trained stages shrunk or stretched to `minutes` in all."""
        share = minutes * 60 / self.budget_s
        return replace(
            self,
            text_budget_s=self.text_budget_s * share,
            vae_budget_s=self.vae_budget_s * share,
            unet_budget_s=self.unet_budget_s * share,
            unet_decay_s=self.unet_decay_s * share,
        )


FULL = Plan()
"""From nothing: about 65 minutes of one core. How many steps that makes depends on the core: one
with AVX2 alone takes 0.8 s for a step of the UNet, one with AVX-512 a quarter of it."""

CONTINUED = replace(
    FULL,
    text_budget_s=80.0,
    unet_budget_s=1060.0,
    unet_decay_s=805.0,
    unet_peak_rate=9e-4,
    text_rate_share=0.5,
)
"""From a finished model: the text encoder learns the new wordings, then the UNet follows. The
autoencoder stays."""

QUICK = Plan(
    text_budget_s=5.0,
    vae_budget_s=15.0,
    unet_budget_s=25.0,
    unet_decay_s=5.0,
    shards=2,
    shard_scenes=500,
    judge_every=10,
)
"""About a minute: proves the path from end to end, and its pictures are poor."""
