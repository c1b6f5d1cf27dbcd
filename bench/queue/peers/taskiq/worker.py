"""One taskiq worker with one process for tasks, as its command line starts it."""

import sys

from taskiq.__main__ import main

from bench.queue.producing import setting

if __name__ == "__main__":
    sys.argv = [
        "taskiq",
        "worker",
        "bench.queue.peers.taskiq.tasks:broker",
        "--workers=1",
        f"--max-async-tasks={setting('CONCURRENCY')}",
        "--ack-type=when_executed",
        "--log-level=WARNING",
    ]
    main()
