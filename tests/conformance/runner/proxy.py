"""The network between application and sidecar: copies bytes, and can be cut."""

import contextlib
import socket
import struct
import threading

BUFFER_BYTES = 1 << 16
# Close with a reset: what a peer sees of a host that lost its connections.
RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on an address of its own for as long as it is up."""

    def __init__(self, target):
        self.target = split(target)
        self.lock = threading.Lock()
        self.sockets = set()
        self.listener = listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.spawn(self.accept, self.listener)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def cut(self):
        """Resets every connection."""
        with self.lock:
            sockets, self.sockets = self.sockets, set()
        for each in sockets:
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                each.shutdown(socket.SHUT_RD)
            each.close()

    def down(self):
        """Resets every connection, and refuses new ones."""
        listener, self.listener = self.listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def up(self):
        """Takes new connections again."""
        if self.listener is None:
            self.listener = listen("127.0.0.1", self.port)
            self.spawn(self.accept, self.listener)

    def turn(self, target):
        """Leads to another address from now on."""
        self.target = split(target)
        self.cut()

    def accept(self, listener):
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.target)
            except OSError:
                near.close()
                continue
            if not self.keep(listener, near, far):
                return
            self.spawn(self.copy, near, far)
            self.spawn(self.copy, far, near)

    def keep(self, listener, *sockets):
        """False when the network went down meanwhile."""
        with self.lock:
            if self.listener is listener:
                self.sockets.update(sockets)
                return True
        for each in sockets:
            each.close()
        return False

    def copy(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(BUFFER_BYTES):
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            with self.lock:
                self.sockets.discard(each)
            each.close()

    def spawn(self, function, *arguments):
        threading.Thread(target=function, args=arguments, daemon=True).start()


def listen(host, port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen()
    return listener


def split(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)
