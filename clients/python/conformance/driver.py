"""The driver of the client for threads."""

import contextlib
import itertools
import json
import logging
import queue
import signal
import sys
import threading

import ackwell
import protocol
from ackwell import trace


class Driver:
    """Carries out commands, each in a thread of its own where it may have to wait."""

    def __init__(self):
        self.client = ackwell.Client()
        self.consumers = {}
        self.producers = {}
        self.lines = {}
        self.cancels = {}
        self.finishes = {}
        self.names = itertools.count(1)
        self.under_way = []
        self.calls = {
            "send": self.send,
            "send_many": self.send_many,
            "receive": self.receive,
            "settle": self.settle,
            "extend": self.extend,
            "commit": self.commit,
            "stats": lambda command, how: protocol.stats_json(self.client.stats(command["queue"], **how)),
            "peek": self.peek,
            "get": self.get,
            "cancel": self.cancel,
        }
        self.others = {
            "options": self.options,
            "producer_open": self.producer_open,
            "producer_flush": lambda command: self.producers[command["producer"]].flush() or {},
            "producer_close": lambda command: self.producers[command["producer"]].close() or {},
            "consume": self.consume,
            "consume_stop": self.consume_stop,
            "to_message": protocol.to_message,
            "to_cloud_event": protocol.to_cloud_event,
            "seal": protocol.seal,
            "open": protocol.open_sealed,
        }

    def serve(self):
        for line in sys.stdin.buffer:
            command = json.loads(line)
            self.begin(command)
        self.close()

    def begin(self, command):
        match command["op"]:
            case "finish":
                self.finishes.get(command["delivery"], queue.SimpleQueue()).put(command)
                protocol.answer(command, {})
            case "cancel_call":
                self.cancels[command["call"]].cancel()
                protocol.answer(command, {})
            case "close":
                self.spawn(self.close_and_leave, command)
            case "producer_send":
                self.lines[command["producer"]].put(command)
            case op if op in self.calls:
                self.cancels[command["id"]] = ackwell.Cancel()
                self.spawn(self.call, command)
            case op if op in self.others:
                # Done here where it cannot wait, so that the next command finds it done.
                run = self.spawn if op in ("producer_flush", "producer_close", "consume_stop") else lambda f, c: f(c)
                run(self.other, command)
            case _:
                protocol.unsupported(command)

    def spawn(self, function, command):
        threading.Thread(target=function, args=(command,), daemon=True, name="driver").start()

    def call(self, command):
        how = {"cancel": self.cancels[command["id"]]}
        if "timeout_ms" in command:
            how["timeout"] = command["timeout_ms"] / 1000
        self.attempt(command, lambda: self.calls[command["op"]](command, how))

    def other(self, command):
        self.attempt(command, lambda: self.others[command["op"]](command))

    def attempt(self, command, function):
        try:
            protocol.answer(command, function())
        except Exception as error:
            if not isinstance(error, ackwell.Error):
                logging.warning("%s failed", command["op"], exc_info=error)
            protocol.refuse(command, error)

    # Calls

    def options(self, command):
        self.client.close()
        self.client = ackwell.Client(retry_limit=command["retry_limit_ms"] / 1000)
        return {}

    def send(self, command, how):
        context = trace.use(command["traceparent"]) if "traceparent" in command else contextlib.nullcontext()
        with context:
            return protocol.sent_json(self.client.send(command["queue"], protocol.message(command["message"]), **how))

    def send_many(self, command, how):
        messages = [protocol.message(one) for one in command["messages"]]
        sent = self.client.send_many(command["queue"], messages, atomic=command.get("atomic", False), **how)
        return {"results": [protocol.sent_json(one) for one in sent]}

    def receive(self, command, how):
        deliveries = self.client.receive(
            command["queue"],
            command.get("max_messages", 1),
            wait=protocol.optional_seconds(command, "wait_ms"),
            ack_timeout=protocol.optional_seconds(command, "ack_timeout_ms"),
            consumer=command.get("consumer", ""),
            **how,
        )
        return {"deliveries": [protocol.delivery_json(one) for one in deliveries]}

    def settle(self, command, how):
        settlements = protocol.settlements(command["settlements"])
        settled = self.client.settle(command["queue"], settlements, **how)
        return {"results": [protocol.settled_json(one) for one in settled]}

    def extend(self, command, how):
        timeout = protocol.optional_seconds(command, "ack_timeout_ms")
        extended = self.client.extend(command["queue"], protocol.receipts(command), timeout, **how)
        return {"results": [protocol.extended_json(one) for one in extended]}

    def commit(self, command, how):
        committed = self.client.commit(
            settle=[(one["queue"], protocol.settlements(one["settlements"])) for one in command.get("settle", [])],
            send=[(one["queue"], [protocol.message(item) for item in one["messages"]]) for one in command.get("send", [])],
            request_id=command.get("request_id", ""),
            **how,
        )
        return protocol.committed_json(committed)

    def peek(self, command, how):
        body_bytes = command.get("body_bytes", 0)
        messages, _ = self.client.peek(command["queue"], command.get("limit", 20), body_bytes=body_bytes, **how)
        return {"messages": [protocol.message_json(one) for one in messages]}

    def get(self, command, how):
        return {"message": protocol.message_json(self.client.get(command["queue"], command["message_id"], **how))}

    def cancel(self, command, how):
        cancelled = self.client.cancel(command["queue"], command["message_ids"], **how)
        return {"results": [protocol.cancelled_json(one) for one in cancelled]}

    # Producers

    def producer_open(self, command):
        outstanding = {"max_outstanding": command["max_outstanding"]} if "max_outstanding" in command else {}
        name = command["producer"]
        self.producers[name] = self.client.producer(command["queue"], **outstanding)
        self.lines[name] = queue.SimpleQueue()
        self.spawn(self.produce, name)
        return {}

    def produce(self, name):
        producer, line = self.producers[name], self.lines[name]
        while True:
            command = line.get()
            try:
                confirm = producer.send(protocol.message(command["message"]))
            except Exception as error:
                protocol.refuse(command, error)
                continue
            protocol.say({"event": "accepted", "call": command["id"]})
            confirm.add_done_callback(lambda done, command=command: self.confirmed(command, done))

    def confirmed(self, command, done):
        self.attempt(command, lambda: protocol.sent_json(done.result()))

    # Consumers

    def consume(self, command):
        name = command["consumer"]
        consumer = self.client.consumer(
            command["queue"],
            lambda delivery: self.handle(name, delivery),
            concurrency=command.get("concurrency", 1),
            prefetch=command.get("prefetch", 0),
            name=name,
        )
        self.consumers[name] = consumer.start()
        self.spawn(self.watch, name)
        return {}

    def watch(self, name):
        ended = {"event": "consumer_ended", "consumer": name}
        try:
            self.consumers[name].wait()
        except Exception as error:
            ended["error"] = protocol.error_json(error)
        protocol.say(ended)

    def handle(self, consumer, delivery):
        name = f"d{next(self.names)}"
        finishes = self.finishes[name] = queue.SimpleQueue()
        event = {"event": "handle", "consumer": consumer, "delivery": name}
        event["message"] = protocol.message_json(delivery.message)
        protocol.say(event | {key: value for key, value in trace.current().items() if key == "traceparent"})
        while not delivery.revoked.is_set():
            with contextlib.suppress(queue.Empty):
                return protocol.raise_outcome(finishes.get(timeout=0.01))
        protocol.say({"event": "cancelled", "delivery": name})

    def consume_stop(self, command):
        self.consumers[command["consumer"]].stop(protocol.optional_seconds(command, "grace_ms"))
        return {}

    # The end

    def close(self):
        self.client.close()

    def close_and_leave(self, command):
        self.close()
        protocol.answer(command, {"leaks": self.leaks()})
        protocol.leave(0)

    def leaks(self):
        # Those of gRPC are its own, and end with its last channel.
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("ackwell")]


def main():
    logging.basicConfig(stream=sys.stderr)
    driver = Driver()

    def stop(*_):
        # Beside the thread that reads, which still takes `finish`.
        threading.Thread(target=drain, daemon=True).start()

    def drain():
        driver.close()
        protocol.leave(0)

    signal.signal(signal.SIGTERM, stop)
    protocol.say({"event": "ready", "protocol": 1})
    driver.serve()


main()
