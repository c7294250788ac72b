"""Another application of the same sidecar, that begins large requests and does not end them."""

import socket

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
        # The kernel takes more than the sidecar has read.
        wait_until(self.is_refused, "the sidecar to be busy")

    def begin(self, part):
        host, port = self.address.split(":")
        request = socket.create_connection((host, int(port)))
        head = f"POST {PATH} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {MAX_BYTES}\r\n\r\n"
        request.sendall(head.encode() + part)
        return request

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
