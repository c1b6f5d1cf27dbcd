"""What billing and the scheduler do for a person's data, as the gateway sees them over gRPC."""

# ruff: noqa: ARG002, N802 (the names and arguments are the stubs')

from __future__ import annotations

from collections.abc import AsyncIterator

from easel.billing.v1 import privacy_pb2 as bill
from easel.billing.v1 import privacy_pb2_grpc as bill_grpc
from easel.scheduler.v1 import privacy_pb2 as sched
from easel.scheduler.v1 import privacy_pb2_grpc as sched_grpc
from easel_kit.erasure import hash_of
from easel_kit.errors import NotFound
from easel_kit.ids import UserId
from tests.fakes.gateway_scheduler import STATES, FakeScheduler
from tests.fakes.gateway_wire import Context, Fault, now

OPEN = STATES[:2]


class FakeAccountPrivacy(bill_grpc.PrivacyServiceServicer):
    """Billing: an erasure ends when a test says so."""

    def __init__(self) -> None:
        self.kept: dict[str, list[bytes]] = {}
        self.asked: list[str] = []
        self.settled: set[str] = set()
        self.fault: Fault | None = None
        self.cut: Fault | None = None

    async def ExportAccount(
        self, request: bill.ExportAccountRequest, context: Context
    ) -> AsyncIterator[bill.ExportAccountResponse]:
        if self.fault is not None:
            await self.fault()
        if request.user_id not in self.kept:
            raise NotFound("account of", request.user_id)
        for part in self.kept[request.user_id]:
            yield bill.ExportAccountResponse(data=part)
        if self.cut is not None:
            await self.cut()

    async def EraseAccount(
        self, request: bill.EraseAccountRequest, context: Context
    ) -> bill.EraseAccountResponse:
        if self.fault is not None:
            await self.fault()
        self.asked.append(request.user_id)
        is_done = request.user_id in self.settled
        state = bill.ERASURE_STATE_DONE if is_done else bill.ERASURE_STATE_REQUESTED
        return bill.EraseAccountResponse(erasure=bill.Erasure(state=state, requested_at=now()))

    async def GetErasure(
        self, request: bill.GetErasureRequest, context: Context
    ) -> bill.GetErasureResponse:
        raise NotImplementedError


class FakeJobPrivacy(sched_grpc.PrivacyServiceServicer):
    """The scheduler, over the jobs of `FakeScheduler`."""

    def __init__(self, scheduler: FakeScheduler) -> None:
        self._scheduler = scheduler
        self.asked: list[list[bytes]] = []

    async def ExportJobs(
        self, request: sched.ExportJobsRequest, context: Context
    ) -> AsyncIterator[sched.ExportJobsResponse]:
        for job in self._scheduler.jobs.values():
            if job.user_id == request.user_id:
                yield sched.ExportJobsResponse(jobs=[job])

    async def EraseUsers(
        self, request: sched.EraseUsersRequest, context: Context
    ) -> sched.EraseUsersResponse:
        self.asked.append(list(request.user_hashes))
        jobs = self._scheduler.jobs
        asked = {*request.user_hashes}
        found = {job.user_id for job in jobs.values() if hash_of(UserId(job.user_id)) in asked}
        busy = {job.user_id for job in jobs.values() if job.state in OPEN} & found
        for job in [*jobs.values()]:
            if job.user_id in found - busy:
                del jobs[job.id]
        return sched.EraseUsersResponse(erased=len(found - busy), busy=len(busy))
