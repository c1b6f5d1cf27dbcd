"""One Celery worker."""

from bench.queue.peers.celery.tasks import app
from bench.queue.producing import setting

app.worker_main(
    [
        "worker",
        "--pool=threads",
        f"--concurrency={setting('CONCURRENCY')}",
        "--loglevel=WARNING",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        f"--hostname={setting('NAME')}@bench",
    ]
)
