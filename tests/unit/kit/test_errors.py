"""Each error of the tree crosses the wire as the class it is, with all it carries."""

import inspect

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from easel_kit import errors
from easel_kit.rpc.errors import CODES, from_rpc_error, to_status

EXAMPLES: list[errors.DomainError] = [
    errors.InvalidInput("width", "must be a multiple of 8"),
    errors.Unauthenticated("who are you"),
    errors.Forbidden("not yours"),
    errors.NotFound("job", "job_1"),
    errors.AlreadyExists("there it is"),
    errors.Conflict("changed meanwhile"),
    errors.InvalidState("it has ended"),
    errors.InsufficientCredits(5, 3),
    errors.RateLimited("slow down", retry_after_s=2.5, limit=3, current=4, requested=2),
    errors.RateLimited("slow down"),
    errors.OutOfRange("too old"),
    errors.Overloaded("busy"),
    errors.DependencyDown("away"),
    errors.DeadlineExceeded("late"),
    errors.Internal("broken"),
]


def as_received(status: grpc.Status) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        status.code,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(*(status.trailing_metadata or ())),
        status.details,
    )


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_it_left(error: errors.DomainError) -> None:
    arrived = from_rpc_error(as_received(to_status(error)))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_every_class_of_the_tree_has_a_code_and_an_example() -> None:
    tree = {
        found
        for _, found in inspect.getmembers(errors, inspect.isclass)
        if issubclass(found, errors.DomainError) and found is not errors.DomainError
    }
    assert tree == set(CODES)
    assert tree == {type(error) for error in EXAMPLES}


def test_a_rate_limit_carries_retry_info() -> None:
    received = as_received(to_status(errors.RateLimited("slow", retry_after_s=2.5)))
    status = rpc_status.from_call(received)  # type: ignore[arg-type]
    assert status is not None
    retry = error_details_pb2.RetryInfo()
    assert any(packed.Unpack(retry) for packed in status.details)
    assert retry.retry_delay.ToMilliseconds() == 2500


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.DependencyDown),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.UNIMPLEMENTED, errors.Internal),
        (grpc.StatusCode.NOT_FOUND, errors.NotFound),
    ],
)
def test_a_status_of_grpc_itself_names_no_address(
    code: grpc.StatusCode, kind: type[errors.DomainError]
) -> None:
    bare = grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), grpc.aio.Metadata(), "ipv4:10.0.0.7:443 refused"
    )
    arrived = from_rpc_error(bare)
    assert type(arrived) is kind
    if kind is not errors.NotFound:
        assert "10.0.0.7" not in str(arrived)
