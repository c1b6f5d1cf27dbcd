"""A server and a channel of the kit talking over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from easel.billing.v1 import billing_pb2, billing_pb2_grpc
from easel.scheduler.v1 import events_pb2, events_pb2_grpc
from easel_kit import errors
from easel_kit.log import configure_logging
from easel_kit.rpc.channel import open_channel
from easel_kit.rpc.server import RpcServer, build_server
from easel_kit.telemetry import configure_tracing, span

SERVICE = "easel.billing.v1.BillingService"
Quote = billing_pb2.QuoteRequest


class Quotes(billing_pb2_grpc.BillingServiceServicer):
    """Answers Quote by what the user id asks for."""

    def __init__(self) -> None:
        self.calls = 0
        self.remaining: float | None = None
        self.entered = asyncio.Event()
        self.released = asyncio.Event()

    async def Quote(  # noqa: N802 (the contract's name)
        self,
        request: billing_pb2.QuoteRequest,
        context: grpc.aio.ServicerContext[
            billing_pb2.QuoteRequest, Awaitable[billing_pb2.QuoteResponse]
        ],
    ) -> billing_pb2.QuoteResponse:
        self.calls += 1
        self.remaining = context.time_remaining()
        match request.user_id:
            case "poor":
                raise errors.InsufficientCredits(5, 3)
            case "broken":
                raise KeyError("a secret")
            case "flaky" if self.calls < 3:
                raise errors.DependencyDown("away")
            case "slow":
                self.entered.set()
                await self.released.wait()
        return billing_pb2.QuoteResponse(millicredits=7)


Quotes.__abstractmethods__ = frozenset()


class Feed(events_pb2_grpc.EventServiceServicer):
    """One batch, then an error or silence."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def Subscribe(  # noqa: N802 (the contract's name)
        self,
        request: events_pb2.SubscribeRequest,
        context: grpc.aio.ServicerContext[
            events_pb2.SubscribeRequest, AsyncIterator[events_pb2.SubscribeResponse]
        ],
    ) -> AsyncIterator[events_pb2.SubscribeResponse]:
        del context
        try:
            yield events_pb2.SubscribeResponse()
            if request.after.generation:
                raise errors.OutOfRange("too old")
            await asyncio.Event().wait()
        finally:
            self.ended.set()


@pytest.fixture
def quotes() -> Quotes:
    return Quotes()  # type: ignore[abstract]


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
async def server(quotes: Quotes, feed: Feed) -> AsyncIterator[RpcServer]:
    built = build_server()
    billing_pb2_grpc.add_BillingServiceServicer_to_server(quotes, built.grpc)
    events_pb2_grpc.add_EventServiceServicer_to_server(feed, built.grpc)
    async with built.serving("127.0.0.1:0", [SERVICE], grace_s=2):
        yield built


@pytest.fixture
async def channel(server: RpcServer) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(f"127.0.0.1:{server.port}", default_timeout_s=2) as opened:
        yield opened


async def test_an_error_of_the_servicer_is_raised_by_the_stub(channel: grpc.aio.Channel) -> None:
    stub = billing_pb2_grpc.BillingServiceStub(channel)
    with pytest.raises(errors.InsufficientCredits) as caught:
        await stub.Quote(Quote(user_id="poor"))
    assert caught.value.needed_millicredits == 5


async def test_an_unknown_error_keeps_its_text_to_itself(channel: grpc.aio.Channel) -> None:
    with pytest.raises(errors.Internal) as caught:
        await billing_pb2_grpc.BillingServiceStub(channel).Quote(Quote(user_id="broken"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("path", ["billing.v1.BillingService/Quote", "scheduler.v1.EventService"])
async def test_bytes_that_are_no_message_are_the_callers_fault(
    server: RpcServer, path: str
) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        streams = not path.endswith("/Quote")
        make: Any = channel.unary_stream if streams else channel.unary_unary
        call = make(f"/easel.{path}/Subscribe" if streams else f"/easel.{path}")(b"\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await (call.read() if streams else call)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == "request: is no message of this method"


async def test_unavailable_is_tried_again(channel: grpc.aio.Channel, quotes: Quotes) -> None:
    answer = await billing_pb2_grpc.BillingServiceStub(channel).Quote(Quote(user_id="flaky"))
    assert (answer.millicredits, quotes.calls) == (7, 3)


async def test_each_call_has_a_deadline(channel: grpc.aio.Channel, quotes: Quotes) -> None:
    stub = billing_pb2_grpc.BillingServiceStub(channel)
    await stub.Quote(Quote())
    assert quotes.remaining is not None
    assert 0 < quotes.remaining < 3, "two seconds, give or take the clocks"
    with pytest.raises(errors.DeadlineExceeded):
        await stub.Quote(Quote(user_id="slow"), timeout=0.1)


async def test_nobody_there_is_a_dependency_that_is_down(free_port: int) -> None:
    async with open_channel(f"127.0.0.1:{free_port}", default_timeout_s=1) as nowhere:
        with pytest.raises((errors.DependencyDown, errors.DeadlineExceeded)):
            await billing_pb2_grpc.BillingServiceStub(nowhere).Quote(Quote())


@pytest.mark.parametrize(
    "target", ["127.0.0.1:{nobody},127.0.0.1:{port}", "dns:///localhost:{port}"]
)
async def test_one_of_several_is_enough(target: str, server: RpcServer, free_port: int) -> None:
    address = target.format(nobody=free_port, port=server.port)
    async with open_channel(address, default_timeout_s=5) as opened:
        stub = billing_pb2_grpc.BillingServiceStub(opened)
        for _ in range(5):
            assert (await stub.Quote(Quote())).millicredits == 7


async def test_a_stream_gives_answers_then_its_error(channel: grpc.aio.Channel) -> None:
    request = events_pb2.SubscribeRequest(after=events_pb2.Cursor(generation=1))
    answers = 0
    with pytest.raises(errors.OutOfRange):
        async for _ in events_pb2_grpc.EventServiceStub(channel).Subscribe(request):
            answers += 1
    assert answers == 1


async def test_a_stream_that_is_left_ends_on_the_server(
    channel: grpc.aio.Channel, feed: Feed
) -> None:
    async def read(seen: asyncio.Event) -> None:
        call = events_pb2_grpc.EventServiceStub(channel).Subscribe(events_pb2.SubscribeRequest())
        async with aclosing(call.__aiter__()) as answers:  # type: ignore[type-var]
            async for _ in answers:
                seen.set()

    seen = asyncio.Event()
    task = asyncio.create_task(read(seen))
    await asyncio.wait_for(seen.wait(), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(feed.ended.wait(), 5)


async def test_one_trace_and_one_request_id_on_both_sides(
    channel: grpc.aio.Channel, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("sample")
    configure_tracing("sample")
    with span("root") as root:
        await billing_pb2_grpc.BillingServiceStub(channel).Quote(Quote())
        trace_id = f"{root.get_span_context().trace_id:032x}"
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "{" in line]
    (line,) = [line for line in lines if line["event"] == "rpc.finished"]
    assert (line["trace_id"], line["rpc"], line["code"]) == (trace_id, f"{SERVICE}/Quote", "OK")
    assert line["request_id"].startswith("req_")


async def test_health_and_reflection_answer(channel: grpc.aio.Channel, server: RpcServer) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)  # its stubs know no methods
    states = health_pb2.HealthCheckResponse
    for name in ("", SERVICE):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == states.SERVING
    await server.set_health(serving=False)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == states.NOT_SERVING
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
    call = reflection.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    names = [one.name async for got in call for one in got.list_services_response.service]
    assert SERVICE in names


async def test_a_running_call_is_finished_on_drain(quotes: Quotes) -> None:
    built = build_server()
    billing_pb2_grpc.add_BillingServiceServicer_to_server(quotes, built.grpc)
    async with (
        built.serving("127.0.0.1:0", [SERVICE], grace_s=5),
        open_channel(f"127.0.0.1:{built.port}") as opened,
    ):
        running = asyncio.create_task(_quote(billing_pb2_grpc.BillingServiceStub(opened)))
        await asyncio.wait_for(quotes.entered.wait(), 5)
        stopping = asyncio.create_task(built.grpc.stop(5))
        await asyncio.sleep(0)
        quotes.released.set()
        assert (await running).millicredits == 7
        await stopping


async def _quote(stub: billing_pb2_grpc.BillingServiceStub) -> billing_pb2.QuoteResponse:
    return await stub.Quote(Quote(user_id="slow"))
