"""Brokers and sidecars as processes: started, killed, stopped and started again."""

import json
import os
import resource
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from .ports import free_address
from .settings import NAMESPACE, QUEUE, queue_config

# Any of our processes is up, and gone after being told to stop, well within this, even on a busy machine.
LIMIT_SECONDS = 30
# Of a file that `fail_writes` still lets be written: enough for what the process prints.
WRITABLE_BYTES = 1 << 19
POLL_SECONDS = 0.01


class ProcessError(Exception):
    """A process of ours did not do what it was told."""


class Process:
    """One `ackwelld`: its addresses and folder outlive its processes."""

    def __init__(self, name, folder):
        self.name = name
        self.folder = Path(folder)
        self.address = free_address()
        self.http = free_address()
        self.child = None

    def arguments(self):
        raise NotImplementedError

    def start(self):
        """Starts it and waits until it says on its HTTP port that it is ready."""
        command = [binary("ackwelld"), *self.arguments(), "--listen", self.address, "--http", self.http]
        with open(self.log, "ab") as log:
            # Signals stay ignored as they are here: a write beyond `fail_writes` shall fail, not kill.
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, restore_signals=False
            )
        wait_until(self.is_ready, f"{self.name} to be ready")

    def is_ready(self):
        if self.child.poll() is not None:
            raise ProcessError(f"{self.name} ended with {self.child.returncode}:\n{self.output()}")
        try:
            with urllib.request.urlopen(f"http://{self.http}/readyz", timeout=LIMIT_SECONDS) as answer:
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def kill(self):
        """Ends it as a power cut would."""
        self.child.kill()
        self.child.wait()

    def terminate(self):
        """Tells it to stop and waits until it has."""
        self.child.terminate()
        self.child.wait(LIMIT_SECONDS)

    def pause(self):
        """Stops it; a thread that runs meanwhile may take a while to notice."""
        self.child.send_signal(signal.SIGSTOP)
        wait_until(self.is_stopped, f"{self.name} to be stopped")

    def is_stopped(self):
        tasks = Path(f"/proc/{self.child.pid}/task").glob("*/stat")
        # The state stands behind the name, which is in brackets and may have any characters.
        return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)

    def resume(self):
        self.child.send_signal(signal.SIGCONT)

    def end(self):
        """Ends it, however it is, when the scenario is over."""
        if self.child is not None and self.child.poll() is None:
            self.kill()

    @property
    def log(self):
        return self.folder / f"{self.name}.log"

    def output(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Broker(Process):
    """One shard of the queue."""

    def __init__(self, name, folder, volume, more=()):
        super().__init__(name, folder)
        self.data = volume / name
        self.more = more

    def write_config(self, overrides, shard_addresses):
        config = queue_config(overrides, shard_addresses)
        (self.folder / f"{self.name}.json").write_text(json.dumps(config))

    def arguments(self):
        config = self.folder / f"{self.name}.json"
        return ["broker", "--config", str(config), "--data", str(self.data), *self.more]

    def fail_writes(self):
        """From now on the system refuses its writes, but for the start of each file."""
        self.limit_files(WRITABLE_BYTES)

    def allow_writes(self):
        """As before."""
        self.limit_files(resource.RLIM_INFINITY)

    def limit_files(self, size):
        _, hard = resource.prlimit(self.child.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.child.pid, resource.RLIMIT_FSIZE, (size, hard))

    def damage(self, body):
        """Flips a bit of this body, where it is stored; the process does not run."""
        for file in self.data.rglob("*"):
            found = file.read_bytes().find(body) if file.is_file() else -1
            if found >= 0:
                with open(file, "r+b") as stored:
                    stored.seek(found)
                    stored.write(bytes([body[0] ^ 1]))
                return
        raise ProcessError(f"{self.name} has not stored {body!r}")


class Sidecar(Process):
    """What the application talks to."""

    def __init__(self, name, folder, broker_address, more=()):
        super().__init__(name, folder)
        self.more = more
        self.broker_address = broker_address
        self.socket = self.folder / "sidecar.sock"

    def arguments(self):
        queues = ["--namespace", NAMESPACE, "--queues", QUEUE, "--broker-address", self.broker_address]
        return ["sidecar", *queues, "--unix-socket", str(self.socket), *self.more]


def binary(name):
    """From the folder that `ACKWELL_BINARIES` names, or as `cargo build --release` makes it."""
    path = Path(os.environ.get("ACKWELL_BINARIES", "target/release")) / name
    if not path.exists():
        raise ProcessError(f"{path} is missing: `cargo build --release --package ackwelld`, or set ACKWELL_BINARIES")
    return str(path.resolve())


def wait_until(holds, what, limit_seconds=LIMIT_SECONDS):
    """Asks again and again until `holds()` is true."""
    until = time.monotonic() + limit_seconds
    while not holds():
        if time.monotonic() > until:
            raise ProcessError(f"waited {limit_seconds} s for {what}")
        time.sleep(POLL_SECONDS)
