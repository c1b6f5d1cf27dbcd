"""`easel.worker.v1.WorkerService`: thin; the use cases are the worker's."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import grpc

from easel.common.v1 import model_pb2
from easel.worker.v1 import worker_pb2, worker_pb2_grpc
from easel_kit.errors import InvalidInput
from easel_kit.ids import ModelKey
from gpu_worker.domain.model import ModelCard
from gpu_worker.service.loop import Worker

SERVICE_NAME = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name

_Context = grpc.aio.ServicerContext[Any, Any]


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """Answers for one worker."""

    def __init__(self, worker: Worker) -> None:
        """Takes the worker it speaks for."""
        self._worker = worker

    async def Describe(  # noqa: N802 (gRPC's name)
        self, request: worker_pb2.DescribeRequest, context: _Context
    ) -> worker_pb2.DescribeResponse:
        """What it is and does right now."""
        del request, context
        status = self._worker.status()
        return worker_pb2.DescribeResponse(
            worker_id=status.profile.worker_id,
            version=status.profile.version,
            device=status.device,
            memory_used_bytes=status.memory_used_bytes,
            memory_total_bytes=status.memory_total_bytes,
            models=[_model(card) for card in status.models],
            running=[worker_pb2.RunningJob(**asdict(running)) for running in status.running],
            slots=status.profile.slots,
            draining=status.draining,
        )

    async def LoadModel(  # noqa: N802
        self, request: worker_pb2.LoadModelRequest, context: _Context
    ) -> worker_pb2.LoadModelResponse:
        """Loads and answers when the model is ready."""
        del context
        card = await self._worker.load(_key(request.model_key))
        return worker_pb2.LoadModelResponse(model=_model(card))

    async def UnloadModel(  # noqa: N802
        self, request: worker_pb2.UnloadModelRequest, context: _Context
    ) -> worker_pb2.UnloadModelResponse:
        """Frees memory."""
        del context
        card = await self._worker.unload(_key(request.model_key))
        return worker_pb2.UnloadModelResponse(model=_model(card))

    async def Drain(  # noqa: N802
        self, request: worker_pb2.DrainRequest, context: _Context
    ) -> worker_pb2.DrainResponse:
        """Has the worker leave; answers before it has."""
        del request, context
        self._worker.ask_to_drain()
        return worker_pb2.DrainResponse()


def register(worker: Worker, server: grpc.aio.Server) -> None:
    """Has a server, not started yet, answer for the worker."""
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(WorkerServicer(worker), server)


def _key(text: str) -> ModelKey:
    if not text:
        raise InvalidInput("model_key", "must not be empty")
    return ModelKey(text)


def _model(card: ModelCard) -> model_pb2.Model:
    return model_pb2.Model(**asdict(card))
