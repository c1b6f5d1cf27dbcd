"""What went wrong, classed where it happened: whose fault it is and whether the device survives."""

from __future__ import annotations

import torch

from easel_kit.log import get_logger
from gpu_worker.domain.drawing import Failed, FailureKind
from gpu_worker.engine.device import is_out_of_memory
from gpu_worker.engine.model import CannotDraw

_log = get_logger(__name__)

NOT_FINITE = Failed(
    FailureKind.CALLER,  # the same request gives the same numbers everywhere
    "non_finite",
    "the numbers left their range; try less guidance or another sampler",
)
OUT_OF_MEMORY = Failed(
    FailureKind.CALLER,  # it had the device to itself
    "out_of_memory",
    "there is not enough memory for this; try a smaller size or fewer adapters",
)
STOPPED = Failed(FailureKind.WORKER, "worker_stopped", "the worker stopped")
FAULT = Failed(FailureKind.TRANSIENT, "engine_error", "drawing failed unexpectedly")


def judge(error: Exception, attempt_id: str | None) -> Failed:
    """The failure that an error of torch or diffusers means for a job that ran by itself.

    Raises:
        Exception: the error itself where it leaves the device unusable.
    """
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    if isinstance(error, torch.AcceleratorError):
        raise error
    if isinstance(error, CannotDraw):
        return Failed(FailureKind.CALLER, "invalid_request", str(error))
    _log.error("engine.faulted", attempt_id=attempt_id, exc_info=error)
    return FAULT
