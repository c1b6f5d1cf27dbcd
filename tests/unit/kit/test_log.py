"""A line of log is one JSON object that carries what was bound and the ids of its trace."""

import json
import logging

import pytest
import structlog

from easel_kit.log import configure_logging, get_logger
from easel_kit.telemetry import configure_tracing, current_traceparent, span


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_bound_fields_and_trace_ids_are_in_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("sample")
    configure_tracing("sample")
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with (
        structlog.contextvars.bound_contextvars(job_id="job_1"),
        span("work", traceparent=parent),
    ):
        get_logger("there").info("job.queued", position=3)
        assert current_traceparent().split("-")[1] == parent.split("-")[1]
    get_logger("there").info("outside")
    inside, outside = lines(capsys)
    assert inside["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert (inside["event"], inside["job_id"], inside["service"]) == (
        "job.queued", "job_1", "sample",
    )  # fmt: skip
    assert "trace_id" not in outside
    assert "job_id" not in outside


def test_the_level_holds_and_libraries_are_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("sample", "warning")
    get_logger("there").info("unheard")
    get_logger("there").warning("heard")
    logging.getLogger("library").info("unheard")
    logging.getLogger("library").warning("heard too")
    logging.getLogger("opentelemetry.context").error("Failed to detach context")
    assert [line["event"] for line in lines(capsys)] == ["heard", "heard too"]


def test_an_error_brings_its_traceback_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("sample")
    try:
        raise KeyError("missing")
    except KeyError:
        get_logger("there").exception("it.failed")
    (line,) = lines(capsys)
    assert "KeyError" in line["exception"]


def test_a_malformed_traceparent_starts_a_trace_of_its_own() -> None:
    configure_tracing("sample")
    with span("work", traceparent="no trace at all") as current:
        assert current.get_span_context().is_valid
