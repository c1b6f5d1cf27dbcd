"""Control networks beside a UNet: what they add to it, row by row (Zhang et al., 2023).

Rows of one forward may ask for other weights, or for none at this step: each row's share of the
residuals is scaled by its own number, which leaves it what it is alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel

from gpu_worker.engine.catalogue import Entry
from gpu_worker.engine.memory import size_bytes
from gpu_worker.engine.model import CannotDraw, ControlRows, Rows

_PICTURE_CHANNELS = 3


class ControlNet:
    """A loaded ControlNet. Used by the engine's thread only."""

    def __init__(self, net: Any) -> None:  # noqa: ANN401 (diffusers is untyped)
        """Takes diffusers' own module, on the CPU; use `load`."""
        self.net = net
        self.size_bytes = size_bytes(net)

    @classmethod
    def load(cls, entry: Entry, dtype: torch.dtype) -> ControlNet:
        """Reads a directory that `ControlNetModel.save_pretrained` wrote, without any network.

        Raises:
            OSError, ValueError, RuntimeError, KeyError: the files are not what they should be.
        """
        net = ControlNetModel.from_pretrained(
            entry.path,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
        )
        net.eval()
        net.requires_grad_(requires_grad=False)
        return cls(net)

    def move_to(self, device: torch.device) -> None:
        """Brings all weights to the device."""
        self.net.to(device)


def residuals(rows: Rows, conditioning: Mapping[str, object]) -> dict[str, Any]:
    """What all control networks of a forward add, as arguments of a UNet; empty where none acts.

    Several networks are summed in their order, as diffusers' `MultiControlNetModel` sums them.

    Args:
        rows: of the forward; channels beyond the latents are not shown to the networks.
        conditioning: what the networks read beside samples, timesteps and pictures:
            `encoder_hidden_states`, and for SDXL `added_cond_kwargs`.

    Raises:
        CannotDraw: a network is none, or belongs to another kind of model.
    """
    down: list[torch.Tensor] = []
    middle = torch.empty(0)
    for control in rows.controls:
        more, middle_more = _one(control, rows, conditioning)
        middle = middle + middle_more if down else middle_more
        down = [one + other for one, other in zip(down, more, strict=True)] if down else more
    if not down:
        return {}
    return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


def _one(
    control: ControlRows, rows: Rows, conditioning: Mapping[str, object]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    if not isinstance(control.network, ControlNet):
        raise CannotDraw("a control network of the request is none")
    net = control.network.net
    _check_fits(net, conditioning)
    down, middle = net(
        rows.samples[:, : net.config.in_channels],
        rows.timesteps,
        controlnet_cond=control.images,
        conditioning_scale=1.0,
        return_dict=False,
        **conditioning,
    )
    # beside half-precision weights the scale stays in single precision, as a plain number would
    exact = torch.promote_types(middle.dtype, torch.float32)
    scales = control.scales.to(exact)[:, None, None, None]
    return [(one * scales).to(one.dtype) for one in down], (middle * scales).to(middle.dtype)


def _check_fits(net: Any, conditioning: Mapping[str, object]) -> None:  # noqa: ANN401
    text = conditioning["encoder_hidden_states"]
    fits = isinstance(text, torch.Tensor) and text.shape[-1] == net.config.cross_attention_dim
    if not fits or (net.config.addition_embed_type == "text_time") != (
        "added_cond_kwargs" in conditioning
    ):
        raise CannotDraw("a control network of the request belongs to another kind of model")
    if net.config.conditioning_channels != _PICTURE_CHANNELS:
        raise CannotDraw("a control network of the request reads no colour pictures")
    if net.config.global_pool_conditions:
        raise CannotDraw("control networks that pool their picture are not served")
