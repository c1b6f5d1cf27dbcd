"""Usage and statements to and from the wire."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from billing.domain.accounts import Period
from billing.domain.statement import month
from billing.domain.usage import Usage, UsageLine, UsagePlace, UsageQuery
from billing.rpc.mapping import page_size_from, timestamp_to, within
from easel.billing.v1 import billing_pb2 as pb
from easel_kit.errors import InvalidInput
from easel_kit.ids import job_id

# Where a page ended: microseconds since 1970, and the job.
_TOKEN = re.compile(r"([1-9][0-9]{0,17})\.(job_[0-9a-f]{32})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Nothing was ever booked before, and nobody asks for what comes after.
_FIRST_YEAR = 2000
_LAST_YEAR = 9000


def usage_query_from(request: pb.ListUsageRequest) -> tuple[int, UsageQuery]:
    """The page's size, and a query for one line more, which says that there is another page.

    Raises:
        InvalidInput: names the field.
    """
    size = page_size_from(request.page_size)
    since = _moment("since", request.since) if request.HasField("since") else None
    until = _moment("until", request.until) if request.HasField("until") else None
    if since is not None and until is not None and since >= until:
        raise InvalidInput("until", "must be later than since")
    return size, UsageQuery(since, until, _place(request.page_token), size + 1)


def usage_to(usage: Usage, size: int) -> pb.ListUsageResponse:
    """A page of at most `size` lines."""
    page = usage.lines[:size]
    return pb.ListUsageResponse(
        lines=[_line_to(line) for line in page],
        next_page_token=_token(page[-1].place) if len(usage.lines) > size else "",
        charged_millicredits=usage.charged,
        jobs=usage.jobs,
    )


def month_from(request: pb.GetStatementRequest) -> Period:
    """The month of a statement.

    Raises:
        InvalidInput: names the field.
    """
    year = within("year", request.year, _LAST_YEAR, least=_FIRST_YEAR)
    return month(year, within("month", request.month, 12))


def _line_to(line: UsageLine) -> pb.UsageLine:
    work = line.work
    return pb.UsageLine(
        job_id=line.place.job_id,
        ended_at=timestamp_to(line.place.ended_at),
        work=pb.Work(
            model_key=work.model_key,
            width_px=work.width_px,
            height_px=work.height_px,
            steps=work.steps,
            image_count=work.image_count,
            pixel_steps=work.reckoned_pixel_steps,
        ),
        held_millicredits=line.held,
        charged_millicredits=line.charged,
        reason=line.reason,
    )


def _token(place: UsagePlace) -> str:
    return f"{(place.ended_at - _EPOCH) // timedelta(microseconds=1)}.{place.job_id}"


def _place(token: str) -> UsagePlace | None:
    if not token:
        return None
    parts = _TOKEN.fullmatch(token)
    try:
        if parts is not None:
            ended_at = _EPOCH + timedelta(microseconds=int(parts[1]))
            return UsagePlace(ended_at, job_id(parts[2]))
    except (OverflowError, InvalidInput):
        pass
    raise InvalidInput("page_token", "is not from an answer of this call")


def _moment(field: str, stamp: Timestamp) -> datetime:
    try:
        return stamp.ToDatetime(UTC)
    except (OverflowError, ValueError) as error:
        raise InvalidInput(field, "is not a point in time") from error
