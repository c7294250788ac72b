"""Ports that nobody else uses, and that stay the same when a process restarts."""

import itertools
import os
import socket
import threading

# Below the range from which the system takes ports for outgoing connections: between the check and the use nobody gets one
# by chance. The tests of `tests/it` take theirs from 20 000 to 32 000, too, but in another order.
FIRST, COUNT = 10_100, 9_800

_next = itertools.count(os.getpid() * 61)
_lock = threading.Lock()


def free_address():
    """A free address of this machine, given out once."""
    with _lock:
        for offset in itertools.islice(_next, COUNT):
            port = FIRST + offset % COUNT
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return f"127.0.0.1:{port}"
    raise RuntimeError("this machine has no free port")
