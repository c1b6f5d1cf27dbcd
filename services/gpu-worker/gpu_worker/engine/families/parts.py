"""Parts of a saved pipeline on their way into memory: safetensors only, no network, no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from gpu_worker.engine.model import CannotLoad

Module = Any  # diffusers and transformers are untyped

_INDEX_FILE = "model_index.json"
_SCHEDULER_FILE = "scheduler/scheduler_config.json"


def read_index(path: Path) -> dict[str, Any]:
    """What a saved pipeline says of itself: its class, and class and library of every part.

    Raises:
        CannotLoad: there is no such file, or it is no index.
    """
    index = _read_json(path / _INDEX_FILE)
    if not isinstance(index.get("_class_name"), str):
        # a list there names a file of code
        raise CannotLoad(f"{_INDEX_FILE} names no pipeline class of diffusers")
    return index


def read_scheduler_config(path: Path) -> dict[str, Any]:
    """The configuration of the scheduler that the pipeline was saved with.

    Raises:
        CannotLoad: there is none.
    """
    return _read_json(path / _SCHEDULER_FILE)


def has_part(index: dict[str, Any], name: str) -> bool:
    """Whether the saved pipeline has that part, which it may lack."""
    part = index.get(name)
    return isinstance(part, list) and part[0] is not None


def load_network(kind: Any, path: Path, name: str, dtype: torch.dtype) -> Module:  # noqa: ANN401
    """A diffusers model, ready to be used, on the CPU.

    Args:
        kind: its class.
        path: the model directory.
        name: of the folder in it.
        dtype: of all weights, whatever the file holds.

    Raises:
        CannotLoad: the folder is missing.
        OSError, ValueError, RuntimeError, KeyError: its files are not what they should be.
    """
    module = kind.from_pretrained(
        _folder(path, name),
        dtype=dtype,
        low_cpu_mem_usage=False,
        local_files_only=True,
        use_safetensors=True,
    )
    if module.dtype != dtype:  # diffusers 0.42 leaves SD3's transformer in single precision
        module.to(dtype)
    return _for_use(module)


def load_text_encoder(kind: Any, path: Path, name: str, dtype: torch.dtype) -> Module:  # noqa: ANN401
    """A transformers model, as `load_network`."""
    transformers_logging.disable_progress_bar()  # standard error is for nobody's eyes here
    module = kind.from_pretrained(
        _folder(path, name), dtype=dtype, local_files_only=True, use_safetensors=True
    )
    # some keep a few weights in single precision, which stock pipelines then work with as well
    return _for_use(module)


def load_tokenizer(kind: Any, path: Path, name: str) -> Any:  # noqa: ANN401
    """A tokenizer.

    Raises:
        CannotLoad: the folder is missing.
        OSError, ValueError: its files are not what they should be.
    """
    return kind.from_pretrained(_folder(path, name), local_files_only=True)


def _folder(path: Path, name: str) -> Path:
    folder = path / name
    if not folder.is_dir():
        raise CannotLoad(f"{name} is missing")
    return folder


def _for_use(module: Module) -> Module:
    module.eval()
    module.requires_grad_(requires_grad=False)
    return module


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found: Any = json.loads(file.read_bytes())
    except OSError:
        raise CannotLoad(f"{file.name} is missing or unreadable") from None
    except ValueError:
        raise CannotLoad(f"{file.name} is no JSON") from None
    if not isinstance(found, dict):
        raise CannotLoad(f"{file.name} is no JSON object")
    return found
