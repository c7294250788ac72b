"""A driver process: commands out, answers and events in."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

PROTOCOL = 1
START_SECONDS = 30


class DriverError(Exception):
    """The driver broke the protocol, or ended."""


class Driver:
    """One process of one language's driver."""

    def __init__(self, command, address, log, environment=None):
        self.log = Path(log)
        self.changed = threading.Condition()
        self.answers = {}
        self.events = []
        self.ended = False
        self.last_id = 0
        with open(self.log, "ab") as stderr:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **(environment or {}), "ACKWELL_ADDRESS": address},
            )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        ready = self.event("ready", lambda event: True, START_SECONDS)
        if ready.get("protocol") != PROTOCOL:
            raise DriverError(f"the driver speaks protocol {ready.get('protocol')}, not {PROTOCOL}")

    def read(self):
        for line in self.child.stdout:
            self.take(line)
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def take(self, line):
        try:
            said = json.loads(line)
        except ValueError:
            said = {"event": "broken line", "line": line[:200].decode(errors="replace")}
        said["arrived"] = time.monotonic()
        with self.changed:
            if "event" in said:
                self.events.append(said)
            else:
                self.answers[said.get("id")] = said
            self.changed.notify_all()

    def tell(self, op, fields):
        """Sends a command; its id."""
        self.last_id += 1
        line = json.dumps({"id": self.last_id, "op": op, **fields}, ensure_ascii=False)
        try:
            self.child.stdin.write(line.encode() + b"\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            raise DriverError(f"the driver ended before {op}") from None
        return self.last_id

    def answer(self, command, within_seconds):
        """The answer to a command."""
        return self.wait(lambda: self.answers.pop(command, None), within_seconds, f"the answer to command {command}")

    def event(self, name, matches, within_seconds):
        """The first event not taken yet that matches."""
        return self.wait(lambda: self.pop_event(name, matches), within_seconds, f"event {name}")

    def pop_event(self, name, matches):
        for index, event in enumerate(self.events):
            if event["event"] == "broken line":
                raise DriverError(f"not a line of JSON: {event['line']}")
            if event["event"] == name and matches(event):
                return self.events.pop(index)
        return None

    def stays_silent(self, name, matches, seconds):
        """Whether no such event comes."""
        try:
            self.event(name, matches, seconds)
        except TimeoutError:
            return True
        return False

    def wait(self, take, within_seconds, what):
        until = time.monotonic() + within_seconds
        with self.changed:
            while (taken := take()) is None:
                if self.ended:
                    raise DriverError(f"the driver ended before {what}; it had said {self.summary()}")
                if not self.changed.wait(until - time.monotonic()):
                    raise TimeoutError(f"{what} did not come within {within_seconds} s; the driver had said {self.summary()}")
            return taken

    def summary(self):
        said = [*self.events, *self.answers.values()]
        return json.dumps(said)[:2000] if said else "nothing else"

    def signal(self, number):
        self.child.send_signal(number)

    def exit_code(self, within_seconds):
        try:
            return self.child.wait(within_seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the driver still runs after {within_seconds} s") from None

    def end(self):
        """Ends it, however it is, when the scenario is over."""
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        self.reader.join()
        self.child.stdin.close()
        self.child.stdout.close()

    def output(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""
