"""Reconciliation when it is due, for ever."""

from __future__ import annotations

import asyncio

from prometheus_client import Counter, Gauge

from billing.domain.reconciliation import RunKind, RunReport
from billing.loop.findings import findings
from billing.service.reconciliation import Reconciliation
from easel_kit.clock import Clock
from easel_kit.errors import DependencyDown
from easel_kit.log import get_logger

# After a run that could not do all its checks.
_AGAIN_S = 300.0

_log = get_logger(__name__)
_runs = Counter("easel_billing_reconciliations", "Runs, by kind and outcome.", ["kind", "outcome"])
_last = Gauge("easel_billing_reconciliation_seconds", "Unix time of the last run.", ["kind"])


async def reconcile(reconciliation: Reconciliation, clock: Clock, *, poll_s: float) -> None:
    """Looks every `poll_s` seconds whether a run is due; survives whatever one fails with."""
    not_before = dict.fromkeys(RunKind, 0.0)
    while True:
        for kind in RunKind:
            if clock.monotonic() < not_before[kind]:
                continue
            if not await _run(reconciliation, clock, kind):
                not_before[kind] = clock.monotonic() + _AGAIN_S
        await asyncio.sleep(poll_s)


async def _run(reconciliation: Reconciliation, clock: Clock, kind: RunKind) -> bool:
    """Whether all is well, due or not."""
    try:
        report = await reconciliation.run_due(kind)
    except DependencyDown as error:
        _log.warning("reconciliation.postponed", kind=kind.value, error=str(error))
        return True
    except Exception:  # noqa: BLE001 (the run counts as not done)
        _runs.labels(kind.value, "failed").inc()
        _log.exception("reconciliation.failed", kind=kind.value)
        return False
    if report is None:
        return True
    _last.labels(kind.value).set(clock.now().timestamp())
    _runs.labels(kind.value, "incomplete" if report.failed else "done").inc()
    tell(report)
    return not report.failed


def tell(report: RunReport) -> None:
    """Counts and logs what a run has found."""
    for recorded in report.findings:
        if recorded.is_new:
            findings.labels(recorded.finding.kind).inc()
            _log.warning(
                "finding.recorded",
                kind=recorded.finding.kind,
                reference=recorded.finding.reference,
            )
    _log.info(
        "reconciliation.done",
        kind=report.kind.value,
        findings=len(report.findings),
        failed=list(report.failed),
    )
