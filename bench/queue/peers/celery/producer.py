"""Celery's `apply_async`, one thread for each job in flight, on its pool of connections."""

from bench.queue.peers.celery.tasks import HIGH, LOW, run
from bench.queue.producing import Job, serve_threads, setting

_PRIORITIES = bool(setting("PRIORITIES"))


def _submit(job: Job) -> None:
    options = {"priority": HIGH if job.high else LOW} if _PRIORITIES else {}
    run.apply_async((job.number, job.hold_ms), **options)


serve_threads(_submit)
