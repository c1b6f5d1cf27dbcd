"""Low-rank adapters on a loaded model: exactly those that a forward asks for.

A family has one `Adapters` over its parts, which drives diffusers' own loader. Adapters that were
used lately stay in the parts, switched off, so that jobs with different ones can take turns step by
step; others are taken out again.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

from easel_kit.log import get_logger
from gpu_worker.engine.catalogue import Entry
from gpu_worker.engine.model import Adaptation, CannotDraw

_log = get_logger(__name__)

_KEPT = 8
"""Adapters that stay in a model while others are in use; each costs its size on the device."""


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """A LoRA file in memory, in whatever key format it has (kohya, diffusers, peft).

    It stays in the machine's memory: what goes to the device are the copies inside of models.
    """

    tensors: dict[str, torch.Tensor]
    size_bytes: int

    @classmethod
    def load(cls, entry: Entry) -> Adapter:
        """Reads the one safetensors file of an entry, which is it or lies in it.

        Raises:
            OSError, ValueError: there is none, or several, or it is damaged.
        """
        tensors: dict[str, torch.Tensor] = load_file(_only_file(entry.path))
        if not any("lora" in name or "lokr" in name for name in tensors):
            raise ValueError("no adapter weights inside")
        return cls(tensors, sum(tensor.nbytes for tensor in tensors.values()))

    def move_to(self, device: torch.device) -> None:
        """Nothing: see the class."""


class Adapters:
    """The adapters inside of one model's parts. Used by the engine's thread only."""

    def __init__(self, mixin: Any, **parts: Any) -> None:  # noqa: ANN401 (diffusers is untyped)
        """Changes nothing yet.

        Args:
            mixin: diffusers' loader of the family, e.g. `StableDiffusionLoraLoaderMixin`.
            parts: the modules under the names that the loader knows, e.g. `unet`, `text_encoder`.
        """
        diffusers_logging.set_verbosity_error()  # their warnings would stand between our log lines
        transformers_logging.set_verbosity_error()
        # a class of its own, since the loaders find the modules as attributes of a pipeline
        self._loader = type("_Loader", (mixin,), {})()
        self._parts = parts
        for name, part in parts.items():
            setattr(self._loader, name, part)
        self._loader.components = parts
        self._loader.hf_device_map = None
        self._inside: OrderedDict[Adapter, str] = OrderedDict()
        self._made = 0
        self._current: tuple[tuple[Adapter, float], ...] = ()

    @property
    def inside(self) -> int:
        """Adapters in the parts, switched on or off."""
        return len(self._inside)

    def adapt(self, adaptations: Sequence[Adaptation]) -> None:
        """Has the parts run with exactly these adapters; cheap when nothing changes.

        Raises:
            CannotDraw: an adapter does not fit, or is named twice; names it.
        """
        wanted = tuple((_own(one), one.weight) for one in adaptations)
        if wanted == self._current:
            return
        self._check_distinct(adaptations)
        self._current = ()
        self._switch(on=False)
        for one in adaptations:
            self._bring_in(one)
        if wanted:
            self._switch(on=True)
            self._loader.set_adapters(
                [self._inside[adapter] for adapter, _ in wanted], [weight for _, weight in wanted]
            )
        self._take_out({adapter for adapter, _ in wanted})
        self._current = wanted

    def _check_distinct(self, adaptations: Sequence[Adaptation]) -> None:
        keys = [one.key for one in adaptations]
        for key in keys:
            if keys.count(key) > 1:
                raise CannotDraw(f"adapter {key} is named twice")

    def _switch(self, *, on: bool) -> None:
        if self._inside:
            (self._loader.enable_lora if on else self._loader.disable_lora)()

    def _bring_in(self, one: Adaptation) -> None:
        adapter = _own(one)
        if adapter in self._inside:
            self._inside.move_to_end(adapter)
            return
        self._made += 1
        name = f"adapter{self._made}"
        try:
            # low memory use would patch torch's modules under the feet of the thread that loads
            with _quietly():
                self._loader.load_lora_weights(
                    adapter.tensors, adapter_name=name, low_cpu_mem_usage=False
                )
            fits = any(name in names for names in self._loader.get_list_adapters().values())
        except (ValueError, RuntimeError, KeyError, IndexError, AttributeError) as error:
            if isinstance(error, (torch.OutOfMemoryError, torch.AcceleratorError)):
                raise
            _log.warning("adapter.refused", adapter=one.key, exc_info=error)
            fits = False
        finally:
            for part in self._parts.values():
                part.eval()  # what is brought in comes ready to be trained
                part.requires_grad_(requires_grad=False)
        if not fits:
            self._remove(name)
            raise CannotDraw(f"adapter {one.key} does not fit this model")
        self._inside[adapter] = name

    def _take_out(self, wanted: set[Adapter]) -> None:
        """The least recently used that nobody asks for now, beyond what is kept."""
        idle = [adapter for adapter in self._inside if adapter not in wanted]
        for adapter in idle[: max(0, len(self._inside) - _KEPT)]:
            self._remove(self._inside.pop(adapter))

    def _remove(self, name: str) -> None:
        with _quietly():
            self._loader.delete_adapters(name)
        if not any(self._loader.get_list_adapters().values()):
            self._loader.unload_lora_weights()  # the layers are what they were


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what peft says of several adapters at a time and of deleting one: both are meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _own(one: Adaptation) -> Adapter:
    if not isinstance(one.adapter, Adapter):
        raise CannotDraw(f"{one.key} is no adapter")
    return one.adapter


def _only_file(path: Path) -> Path:
    if path.is_file():
        return path
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        raise ValueError(f"{len(files)} safetensors files instead of one")
    return files[0]
