"""Another application of the same sidecar, that begins large requests and does not end them."""

import socket
from pathlib import Path

from .processes import wait_until

# What a sidecar takes of requests that are not complete, of all applications together.
ROOM_KIB = 64 << 10
# A request may have 27 MiB.
REQUESTS = 3
PATH = "/v1/queues/orders/messages"
MAX_BYTES = 27 << 20


class Neighbour:
    """Takes all the memory that its sidecar has for what is being received, until it is closed."""

    def __init__(self, address):
        self.address = address
        self.requests = [self.begin(b" " * (ROOM_KIB // REQUESTS << 10)) for _ in range(REQUESTS)]
        # A request more before these are read would take the room of one of them, which would be refused in its place.
        wait_until(self.is_read, "the sidecar to read")
        wait_until(self.is_refused, "the sidecar to be busy")

    def begin(self, part):
        host, port = self.address.split(":")
        request = socket.create_connection((host, int(port)))
        head = f"POST {PATH} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {MAX_BYTES}\r\n\r\n"
        request.sendall(head.encode() + part)
        return request

    def is_read(self):
        """Nothing that was sent to the sidecar is left in the kernel, on either side."""
        port = f":{int(self.address.split(':')[1]):04X}"
        connections = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        queues = [fields[4] for fields in connections if fields[1].endswith(port) or fields[2].endswith(port)]
        return all(queue == "00000000:00000000" for queue in queues)

    def is_refused(self):
        with self.begin(b" " * 4096) as request:
            request.settimeout(0.5)
            try:
                return request.recv(64).startswith(b"HTTP/1.1 429")
            except TimeoutError:
                return False

    def close(self):
        for request in self.requests:
            request.close()
