"""How much memory the weights of modules take."""

from __future__ import annotations

from typing import Any


def size_bytes(*modules: Any) -> int:  # noqa: ANN401 (transformers and diffusers are untyped)
    """Parameters and buffers of all modules; storage that several share is counted once."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(storages.values())
