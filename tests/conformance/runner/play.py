"""Plays the steps of one scenario."""

import json
import signal
import threading
import time

from .matching import Mismatch, at, compare, filled, matches, short
from .processes import POLL_SECONDS

WITHIN_MS = 10_000


class Unsupported(Exception):
    """The library does not have the operation."""


class Failure(Exception):
    """A step did not go as the scenario says."""


class Play:
    """One run of one scenario with one language."""

    def __init__(self, scenario, world, say, patience=1.0):
        self.scenario = scenario
        self.patience = patience
        self.world = world
        self.say = say
        self.variables = {}
        self.underway = {}

    def run(self):
        for number, step in enumerate(self.scenario.steps, start=1):
            self.say(f"  {number}. {short(json.dumps(step, ensure_ascii=False))}")
            try:
                self.step(dict(step))
            except (Mismatch, TimeoutError, RuntimeError, OSError, KeyError, IndexError) as error:
                raise Failure(
                    f"step {number}, {short(json.dumps(step, ensure_ascii=False))}:\n{type(error).__name__}: {error}"
                ) from error

    def step(self, step):
        for kind in ("call", "await", "event", "silence", "queue", "stored", "network", "signal", "exits", "volume", "spans"):
            if kind in step:
                return getattr(self, f"do_{kind}")(step)
        for process in (*self.world.brokers, self.world.sidecar):
            kind = process.name if process.name in step else process.name.removesuffix("-0")
            if kind in step:
                return self.control(process, step[kind])
        raise Mismatch(f"no such step: {step}")

    # Calls

    def do_call(self, step):
        driver = self.driver(step)
        commands = [self.tell(driver, step, number) for number in range(step.get("times", 1))]
        if "as" in step:
            self.underway[step["as"]] = (driver, commands)
            self.variables[f"{step['as']}.id"] = commands[0]
        else:
            self.answers(driver, commands, step)

    def tell(self, driver, step, number):
        self.variables["n"] = number
        return driver.tell(step["call"], filled(step.get("with", {}), self.variables))

    def do_await(self, step):
        driver, commands = self.underway.pop(step["await"])
        self.answers(driver, commands, step)

    def answers(self, driver, commands, step):
        for number, command in enumerate(commands):
            self.variables["n"] = number
            answer = driver.answer(command, self.within(step))
            self.say(f"     {short(json.dumps(answer, ensure_ascii=False))}")
            self.judge(answer, step)

    def judge(self, answer, step):
        if answer.get("unsupported"):
            raise Unsupported(step.get("call", "an operation"))
        answer = as_expected(answer, step)
        if "error" in step:
            if "error" not in answer:
                raise Mismatch(f"an error is expected, and the answer is {short(json.dumps(answer))}")
            compare(filled(step["error"], self.variables), answer["error"], "error")
        elif "ok" not in answer:
            raise Mismatch(f"it failed: {short(json.dumps(answer))}")
        else:
            compare(filled(step.get("expect", {}), self.variables), answer["ok"])
            self.save(step, answer["ok"])

    def save(self, step, value):
        for path, name in step.get("save", {}).items():
            self.variables[name] = at(path, value)

    # Events

    def do_event(self, step):
        driver = self.driver(step)
        where = filled(step.get("where", {}), self.variables)
        for number in range(step.get("times", 1)):
            event = driver.event(step["event"], lambda event: matches(where, event), self.within(step))
            self.say(f"     {short(json.dumps(event, ensure_ascii=False))}")
            self.variables["n"] = number
            compare(filled(step.get("expect", {}), self.variables), event, "event")
            self.save(step, event)
            if "finish" in step:
                driver.tell("finish", {"delivery": event["delivery"], "outcome": step["finish"]})

    def do_silence(self, step):
        where = filled(step.get("where", {}), self.variables)
        driver = self.driver(step)
        if not driver.stays_silent(step["silence"], lambda event: matches(where, event), step["for_ms"] / 1000):
            raise Mismatch(f"event {step['silence']} came")

    # The queue

    def do_queue(self, step):
        expected, counts = step["queue"], None
        until = time.monotonic() + self.within(step)
        while not matches(expected, counts := self.world.looking.counts()):
            if time.monotonic() > until:
                compare(expected, counts, "queue")
            time.sleep(POLL_SECONDS)

    def do_stored(self, step):
        compare(filled(step["stored"], self.variables), self.world.looking.messages(), "stored")

    # Traces

    def do_spans(self, step):
        expected, spans = filled(step["spans"], self.variables), []
        until = time.monotonic() + self.within(step)
        while not matches(expected, spans := self.world.collector.spans()):
            if time.monotonic() > until:
                compare(expected, spans, "spans")
            time.sleep(POLL_SECONDS)

    # Processes

    def control(self, process, what):
        if isinstance(what, dict):
            # Done beside the next steps: `{kill: ..., after_ms: ...}` is how a scenario hits the middle of something.
            timer = threading.Timer(what["after_ms"] / 1000, self.control, (process, what["do"]))
            timer.start()
            self.world.callback(timer.cancel)
            return
        if what.startswith("damage "):
            return process.damage(what.removeprefix("damage ").encode())
        actions = {
            "kill": process.kill,
            "start": process.start,
            "pause": process.pause,
            "continue": process.resume,
            "terminate": process.terminate,
            "crowd": self.world.crowd,
            "calm": self.world.calm,
            "fail writes": getattr(process, "fail_writes", None),
            "allow writes": getattr(process, "allow_writes", None),
        }
        actions[what]()

    def do_volume(self, step):
        {"fill": self.world.volume.fill, "free": self.world.volume.free}[step["volume"]]()

    def do_network(self, step):
        network = self.world.network
        actions = {"cut": network.cut, "down": network.down, "up": network.up, "stand-in": self.world.stand_in}
        actions[step["network"]]()

    def do_signal(self, step):
        self.driver(step).signal(getattr(signal, f"SIG{step['signal']}"))

    def do_exits(self, step):
        code = self.driver(step).exit_code(self.within(step))
        compare(step["exits"], code, "exit code")

    def within(self, step):
        """How long to wait for what should come, in seconds."""
        return step.get("within_ms", WITHIN_MS) / 1000 * self.patience

    def driver(self, step):
        return self.world.driver(step.get("driver", "app"))


def as_expected(answer, step):
    """A batch of one that is refused may be answered as an error of the call, or as the result's."""
    expects_error = "error" in step
    results = answer.get("ok", {}).get("results", [])
    if expects_error and len(results) == 1 and "error" in results[0]:
        return {"error": results[0]["error"]}
    if "error" in answer and len(step.get("expect", {}).get("results", [])) == 1:
        return {"ok": {"results": [{"error": answer["error"]}]}}
    return answer
