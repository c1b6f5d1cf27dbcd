"""Ends children whose parent died, where the kernel cannot: everywhere but on Linux.

Run by path with the parent's end of a pipe as standard input, stdlib only. It reads lines
``watch PID SIGNAL`` and ``forget PID``; when the pipe closes, because the parent closed it or
died, every process still watched gets its signal.
"""

import contextlib
import os
import sys


def main() -> None:
    """Remember until the pipe closes, then send the signals."""
    watched: dict[int, int] = {}
    for line in sys.stdin:
        word, pid, *number = line.split()
        if word == "watch":
            watched[int(pid)] = int(number[0])
        else:
            watched.pop(int(pid), None)
    for pid, signal in watched.items():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal)


if __name__ == "__main__":
    main()
