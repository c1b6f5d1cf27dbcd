"""Ways to trade exactness, memory and speed on an accelerator; all off unless an operator says so.

Each is applied once, to a model's networks, when it has been loaded. With any of them on, pictures
may differ from stock diffusers' by what other kernels and formats round.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers.models.attention_dispatch import AttentionBackendName

from easel_kit.errors import InvalidInput
from easel_kit.log import get_logger
from gpu_worker.engine.memory import size_bytes

Network = Any  # diffusers is untyped

_FP8 = torch.float8_e4m3fn
_QUANTISER = "torchao"
_NATIVE = "native"

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Switches:
    """What is on.

    Attributes:
        channels_last: convolutions keep channels innermost, which tensor cores like.
        compile_blocks: repeated blocks are compiled, at the first step of each new shape.
        attention_backend: a name of diffusers' attention backends; empty: torch's own.
        fp8_storage: the denoiser's weights lie in 8 bits and are widened as they are used.
        int8_weights: the denoiser's weights are quantised to 8 bits, by torchao.
        group_offload: the denoiser's weights lie in main memory and come block by block.
    """

    channels_last: bool = False
    compile_blocks: bool = False
    attention_backend: str = ""
    fp8_storage: bool = False
    int8_weights: bool = False
    group_offload: bool = False


@runtime_checkable
class Switchable(Protocol):
    """A loaded part whose networks switches work on."""

    size_bytes: int

    @property
    def denoiser(self) -> Network:
        """What runs at every step."""
        ...

    @property
    def autoencoder(self) -> Network:
        """Between pictures and latents; None where there is none."""
        ...


def check_switches(switches: Switches, device: torch.device) -> None:
    """Refuses at start what cannot work here, instead of at the first picture.

    Raises:
        InvalidInput: names the setting.
    """
    if device.type == "cpu":
        for name in ("compile_blocks", "group_offload"):
            if getattr(switches, name):
                raise InvalidInput(name, "needs an accelerator, and the device is a CPU")
    if switches.attention_backend:
        _check_backend(switches.attention_backend, device)
    if switches.int8_weights and importlib.util.find_spec(_QUANTISER) is None:
        raise InvalidInput("int8_weights", f"needs the package {_QUANTISER}: it is not installed")
    for name in ("int8_weights", "group_offload"):
        if switches.fp8_storage and getattr(switches, name):
            raise InvalidInput("fp8_storage", f"does not go together with {name}")


def _check_backend(backend: str, device: torch.device) -> None:
    known = sorted(one.value for one in AttentionBackendName)
    if backend not in known:
        raise InvalidInput("attention_backend", f"must be one of {', '.join(known)}")
    if backend.endswith("_hub"):
        raise InvalidInput("attention_backend", "may not download code; install a package")
    if device.type == "cpu" and backend != _NATIVE:
        raise InvalidInput(
            "attention_backend", f"must be {_NATIVE} or empty where the device is a CPU"
        )


def apply_switches(
    part: object, switches: Switches, device: torch.device, dtype: torch.dtype
) -> None:
    """Applies what is on to a part that was just loaded, still on the CPU.

    Args:
        part: parts without a denoiser stay as they are.
        switches: checked before.
        device: where the part will go.
        dtype: that it computes in.

    Raises:
        Exception: whatever diffusers says of a switch that this network cannot have.
    """
    if switches == Switches() or not isinstance(part, Switchable):
        return
    denoiser, autoencoder = part.denoiser, part.autoencoder
    before = size_bytes(denoiser)
    if switches.channels_last:
        for network in (denoiser, autoencoder):
            if network is not None:
                network.to(memory_format=torch.channels_last)
    if switches.attention_backend:
        denoiser.set_attention_backend(switches.attention_backend)
    if switches.fp8_storage:
        denoiser.enable_layerwise_casting(storage_dtype=_FP8, compute_dtype=dtype)
    if switches.int8_weights:
        _quantise(denoiser)
    if switches.compile_blocks:
        _compile(denoiser)
    if switches.group_offload:
        denoiser.enable_group_offload(
            onload_device=device,
            offload_device=torch.device("cpu"),
            offload_type="leaf_level",
            use_stream=device.type == "cuda",
        )
    part.size_bytes += size_bytes(denoiser) - before


def _compile(denoiser: Network) -> None:
    if not getattr(denoiser, "_repeated_blocks", None):
        _log.warning("switch.unsupported", switch="compile_blocks", network=type(denoiser).__name__)
        return
    # rows of a forward change from step to step
    denoiser.compile_repeated_blocks(dynamic=True)


def _quantise(denoiser: Network) -> None:
    quantisation = importlib.import_module(f"{_QUANTISER}.quantization")
    quantisation.quantize_(denoiser, quantisation.Int8WeightOnlyConfig())
