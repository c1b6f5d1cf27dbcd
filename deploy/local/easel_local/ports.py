"""Free ports on loopback."""

import random
import socket

# Below the ports that Linux (32768) and macOS (49152) hand to outgoing connections: a port from
# there could be taken by a connection while its server restarts.
_LOWEST, _HIGHEST = 15_000, 31_999
_TRIES = 200

_given: set[int] = set()


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that nothing listens on, never the same twice in this process.

    Raises:
        OSError: no free port was found.
    """
    chooser = random.SystemRandom()
    for _ in range(_TRIES):
        port = chooser.randint(_LOWEST, _HIGHEST)
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    raise OSError(f"no free port between {_LOWEST} and {_HIGHEST}")
