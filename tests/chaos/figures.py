"""What a run's history tells in numbers: kills, ends, recovery times. Figures, never assertions."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.chaos.checks import PLANTED, counts_rightly, ordered_pairs
from tests.chaos.history import History
from tests.chaos.leases import certain_leases
from tests.chaos.records import Ack, JobRow, Kill, Parked, Sample, Start, Submit

_WORKERS = ("worker", "hang")
_CALM_S = 0.5


@dataclass(frozen=True, slots=True)
class Times:
    """Some durations in seconds."""

    values: tuple[float, ...]

    def __str__(self) -> str:
        if not self.values:
            return "none"
        ordered = sorted(self.values)
        p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * q))] for q in (0.5, 0.99))
        return f"p50 {p50:.3f} s, p99 {p99:.3f} s, max {ordered[-1]:.3f} s ({len(ordered)})"


def taken_over(history: History, what: str, *, alone: bool) -> Times:
    """From the kill (or hang) of a worker to the next start of each job that it ran.

    Args:
        history: of a run.
        what: `worker` or `hang`.
        alone: only where no store and no replica was away around it.
    """
    found = []
    for kill, start in _cut_short(history, what):
        later = [one.at for one in history.starts_of_jobs[start.job] if one.at > kill.at]
        if later and not (alone and _disturbed(history, kill, later[0])):
            found.append(later[0] - kill.at)
    return Times(tuple(found))


def noticed(history: History, what: str, *, alone: bool) -> Times:
    """From the kill (or hang) of a worker to the end of each of its attempts: what follows is the
    job's wait in line. Arguments as of `taken_over`.
    """
    found = []
    for kill, start in _cut_short(history, what):
        row = history.attempts.get(start.attempt)
        if row is None or row.ended_at is None or row.outcome != "lost":
            continue
        if not (alone and _disturbed(history, kill, row.ended_at)):
            found.append(row.ended_at - kill.at)
    return Times(tuple(found))


def _cut_short(history: History, what: str) -> Iterator[tuple[Kill, Start]]:
    """Kills of that kind, each with every attempt that was running there."""
    for kill in history.kills:
        if kill.what == what:
            for start in _running_at(history, kill):
                yield kill, start


def _disturbed(history: History, kill: Kill, until: float) -> bool:
    """Whether a store or a replica was away between a kill and a moment."""
    return any(
        other.at <= until and history.back_at(other) + _CALM_S >= kill.at
        for other in history.kills
        if other.what not in _WORKERS
    )


def _running_at(history: History, kill: Kill) -> Iterator[Start]:
    for start in _starts_of(history).get((kill.name, kill.pid), ()):
        reports = history.reports.get(start.attempt)
        row = history.attempts.get(start.attempt)
        ended = row is not None and row.ended_at is not None and row.ended_at < kill.at
        if start.at < kill.at and not ended and (not reports or reports[0].at > kill.at):
            yield start


def _starts_of(history: History) -> dict[tuple[str, int], list[Start]]:
    found: dict[tuple[str, int], list[Start]] = {}
    for start in history.of(Start):
        found.setdefault((start.worker, start.pid), []).append(start)
    return found


def served_again(history: History, what: str) -> Times:
    """From a kill to the first accepted success of an attempt that was started after it."""
    served = sorted(
        (ack.at, history.starts[ack.attempt][0].at)
        for ack in history.of(Ack)
        if ack.accepted
        and ack.attempt in history.starts
        and history.reports[ack.attempt][0].outcome == "succeeded"
    )
    times = [at for at, _ in served]
    found = []
    for kill in history.kills:
        if kill.what == what:
            for at, started in served[bisect_right(times, kill.at) :]:
                if started > kill.at:
                    found.append(at - kill.at)
                    break
    return Times(tuple(found))


def describe(history: History) -> str:
    """The whole report, a paragraph of lines."""
    lines = [
        f"seed {history.run.seed}: {_counted(kill.what for kill in history.kills)}",
        f"jobs accepted: {len(history.accepted):,}",
        f"jobs: {_counted(row.state for row in history.of(JobRow))}",
        f"failed: {_failures(history)}",
        f"attempts: {_counted(row.outcome for row in history.attempts.values())}",
        f"parked: {sum(one.on for one in history.of(Parked)):,} times",
        f"answers to submits: {_counted(one.code or one.answer for one in history.of(Submit))}",
        f"tries counted without the death of a worker: {_miscounted(history)}",
        f"looked at: {_looked_at(history)}",
    ]
    for what, words in (("worker", "killed worker"), ("hang", "hung worker")):
        lines += [
            f"{words} noticed: {noticed(history, what, alone=True)}",
            f"  its job elsewhere: {taken_over(history, what, alone=True)}",
            f"  with others killed around: {noticed(history, what, alone=False)}",
            f"  its job elsewhere: {taken_over(history, what, alone=False)}",
        ]
    lines += [
        f"{what} killed, next job served: {served_again(history, what)}"
        for what in ("scheduler", "redis", "flush", "postgres", "backend")
    ]
    return "\n".join(lines)


def _looked_at(history: History) -> str:
    leases = sum(1 for _ in certain_leases(history))
    pairs = sum(1 for _ in ordered_pairs(history))
    return f"{len(history.of(Sample)):,} samples, {leases:,} leases, {pairs:,} pairs in order"


def _failures(history: History) -> str:
    found = Counter(
        "own error" if row.code.startswith(PLANTED) else f"three deaths ({row.code})"
        for row in history.of(JobRow)
        if row.state == "failed"
    )
    return _counted(found.elements())


def _miscounted(history: History) -> int:
    return sum(
        row.counted and not counts_rightly(history, row) for row in history.attempts.values()
    )


def _counted(words: Iterable[str]) -> str:
    found = Counter(words)
    return ", ".join(f"{count:,} {word}" for word, count in sorted(found.items())) or "none"
