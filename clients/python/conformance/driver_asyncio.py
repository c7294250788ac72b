"""The driver of the client for asyncio."""

import asyncio
import contextlib
import itertools
import json
import logging
import signal
import sys

import ackwell
import ackwell.aio
import protocol
from ackwell import trace

LONGEST_LINE = 32 << 20


class Driver:
    """Carries out commands, each in a task of its own."""

    def __init__(self):
        self.client = ackwell.aio.Client()
        self.consumers = {}
        self.producers = {}
        self.lines = {}
        self.tasks = {}
        self.finishes = {}
        self.names = itertools.count(1)
        self.calls = {
            "options": self.options,
            "send": self.send,
            "send_many": self.send_many,
            "receive": self.receive,
            "settle": self.settle,
            "extend": self.extend,
            "commit": self.commit,
            "stats": self.stats,
            "peek": self.peek,
            "get": self.get,
            "cancel": self.cancel,
            "producer_open": self.producer_open,
            "producer_flush": self.producer_flush,
            "producer_close": self.producer_close,
            "consume": self.consume,
            "consume_stop": self.consume_stop,
            "to_message": self.to_message,
            "to_cloud_event": self.to_cloud_event,
            "seal": self.seal,
            "open": self.open_sealed,
        }

    async def serve(self, reader):
        while line := await reader.readline():
            await self.begin(json.loads(line))
        await self.client.close()

    async def begin(self, command):
        match command["op"]:
            case "finish":
                finish = self.finishes.get(command["delivery"])
                if finish is not None and not finish.done():
                    finish.set_result(command)
                protocol.answer(command, {})
            case "cancel_call":
                self.tasks[command["call"]].cancel()
                protocol.answer(command, {})
            case "close":
                self.tasks["close"] = asyncio.create_task(self.close_and_leave(command), name="driver")
            case "producer_send":
                self.lines[command["producer"]].put_nowait(command)
            case "options" | "producer_open" | "consume":
                await self.attempt(command)
            case op if op in self.calls:
                self.tasks[command["id"]] = asyncio.create_task(self.attempt(command), name="driver")
            case _:
                protocol.unsupported(command)

    async def attempt(self, command):
        how = {"timeout": command["timeout_ms"] / 1000} if "timeout_ms" in command else {}
        try:
            protocol.answer(command, await self.calls[command["op"]](command, **how))
        except asyncio.CancelledError:
            protocol.refuse(command, ackwell.Cancelled("cancelled"))
        except Exception as error:
            if not isinstance(error, ackwell.Error):
                logging.warning("%s failed", command["op"], exc_info=error)
            protocol.refuse(command, error)

    # Calls

    async def options(self, command):
        await self.client.close()
        self.client = ackwell.aio.Client(retry_limit=command["retry_limit_ms"] / 1000)
        return {}

    async def send(self, command, **how):
        context = trace.use(command["traceparent"]) if "traceparent" in command else contextlib.nullcontext()
        with context:
            sent = await self.client.send(command["queue"], protocol.message(command["message"]), **how)
        return protocol.sent_json(sent)

    async def send_many(self, command, **how):
        messages = [protocol.message(one) for one in command["messages"]]
        sent = await self.client.send_many(command["queue"], messages, atomic=command.get("atomic", False), **how)
        return {"results": [protocol.sent_json(one) for one in sent]}

    async def receive(self, command, **how):
        deliveries = await self.client.receive(
            command["queue"],
            command.get("max_messages", 1),
            wait=protocol.optional_seconds(command, "wait_ms"),
            ack_timeout=protocol.optional_seconds(command, "ack_timeout_ms"),
            consumer=command.get("consumer", ""),
            **how,
        )
        return {"deliveries": [protocol.delivery_json(one) for one in deliveries]}

    async def settle(self, command, **how):
        settlements = protocol.settlements(command["settlements"])
        settled = await self.client.settle(command["queue"], settlements, **how)
        return {"results": [protocol.settled_json(one) for one in settled]}

    async def extend(self, command, **how):
        timeout = protocol.optional_seconds(command, "ack_timeout_ms")
        extended = await self.client.extend(command["queue"], protocol.receipts(command), timeout, **how)
        return {"results": [protocol.extended_json(one) for one in extended]}

    async def commit(self, command, **how):
        committed = await self.client.commit(
            settle=[(one["queue"], protocol.settlements(one["settlements"])) for one in command.get("settle", [])],
            send=[(one["queue"], [protocol.message(item) for item in one["messages"]]) for one in command.get("send", [])],
            request_id=command.get("request_id", ""),
            **how,
        )
        return protocol.committed_json(committed)

    async def stats(self, command, **how):
        return protocol.stats_json(await self.client.stats(command["queue"], **how))

    async def peek(self, command, **how):
        limit, body_bytes = command.get("limit", 20), command.get("body_bytes", 0)
        messages, _ = await self.client.peek(command["queue"], limit, body_bytes=body_bytes, **how)
        return {"messages": [protocol.message_json(one) for one in messages]}

    async def get(self, command, **how):
        message = await self.client.get(command["queue"], command["message_id"], **how)
        return {"message": protocol.message_json(message)}

    async def cancel(self, command, **how):
        cancelled = await self.client.cancel(command["queue"], command["message_ids"], **how)
        return {"results": [protocol.cancelled_json(one) for one in cancelled]}

    async def to_message(self, command):
        return protocol.to_message(command)

    async def to_cloud_event(self, command):
        return protocol.to_cloud_event(command)

    async def seal(self, command):
        return protocol.seal(command)

    async def open_sealed(self, command):
        return protocol.open_sealed(command)

    # Producers

    async def producer_open(self, command):
        outstanding = {"max_outstanding": command["max_outstanding"]} if "max_outstanding" in command else {}
        name = command["producer"]
        self.producers[name] = self.client.producer(command["queue"], **outstanding)
        self.lines[name] = asyncio.Queue()
        self.tasks[name] = asyncio.create_task(self.produce(name), name="driver")
        return {}

    async def produce(self, name):
        producer, line = self.producers[name], self.lines[name]
        while command := await line.get():
            try:
                confirm = await producer.send(protocol.message(command["message"]))
            except Exception as error:
                protocol.refuse(command, error)
                continue
            protocol.say({"event": "accepted", "call": command["id"]})
            confirm.add_done_callback(lambda done, command=command: self.confirmed(command, done))

    def confirmed(self, command, done):
        if done.exception():
            protocol.refuse(command, done.exception())
        else:
            protocol.answer(command, protocol.sent_json(done.result()))

    async def producer_flush(self, command):
        await self.producers[command["producer"]].flush()
        return {}

    async def producer_close(self, command):
        await self.producers[command["producer"]].close()
        return {}

    # Consumers

    async def consume(self, command):
        name = command["consumer"]
        consumer = self.client.consumer(
            command["queue"],
            lambda delivery: self.handle(name, delivery),
            concurrency=command.get("concurrency", 1),
            prefetch=command.get("prefetch", 0),
            name=name,
        )
        self.consumers[name] = consumer.start()
        self.tasks[name] = asyncio.create_task(self.watch(name), name="driver")
        return {}

    async def watch(self, name):
        ended = {"event": "consumer_ended", "consumer": name}
        try:
            await self.consumers[name].wait()
        except Exception as error:
            ended["error"] = protocol.error_json(error)
        protocol.say(ended)

    async def handle(self, consumer, delivery):
        name = f"d{next(self.names)}"
        finish = self.finishes[name] = asyncio.get_running_loop().create_future()
        event = {"event": "handle", "consumer": consumer, "delivery": name}
        event["message"] = protocol.message_json(delivery.message)
        protocol.say(event | {key: value for key, value in trace.current().items() if key == "traceparent"})
        try:
            protocol.raise_outcome(await finish)
        except asyncio.CancelledError:
            protocol.say({"event": "cancelled", "delivery": name})
            raise

    async def consume_stop(self, command):
        await self.consumers[command["consumer"]].stop(protocol.optional_seconds(command, "grace_ms"))
        return {}

    # The end

    async def close_and_leave(self, command):
        await self.client.close()
        protocol.answer(command, {"leaks": self.leaks()})
        protocol.leave(0)

    def leaks(self):
        return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("ackwell")]


async def main():
    logging.basicConfig(stream=sys.stderr)
    driver = Driver()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def drain():
        await driver.client.close()
        protocol.leave(0)

    def stop():
        driver.tasks["drain"] = asyncio.create_task(drain())

    loop.add_signal_handler(signal.SIGTERM, stop)
    protocol.say({"event": "ready", "protocol": 1})
    await driver.serve(reader)


asyncio.run(main())
