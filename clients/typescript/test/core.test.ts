// What needs no connection: what a consumer and a producer hold and say, errors, messages, trace context, events.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Metadata, status } from "@grpc/grpc-js";
import { fromServiceError } from "../src/errors.js";
import { ErrorInfo, RetryInfo, Status } from "../src/generated/ackwell/_status.js";
import { Delivery as WireDelivery } from "../src/generated/ackwell/v1/message.js";
import type { ConsumeResponse, ProduceResponse } from "../src/generated/ackwell/v1/queues.js";
import { ack, Client, CallError, Reject, Release, Retry, toCloudEvent, toMessage, withTrace, currentTrace } from "../src/index.js";
import { fromWire, toWire } from "../src/message.js";
import { Entry, Outbox } from "../src/outbox.js";
import { settlementAfter } from "../src/outcome.js";
import { Attempts } from "../src/retry.js";
import { Session } from "../src/session.js";

function session(): Session {
  return new Session("orders", "c", 4, () => {});
}

function deliveries(...receipts: string[]): ConsumeResponse {
  const items = receipts.map((receipt) => WireDelivery.fromPartial({ receipt: Buffer.from(receipt) }));
  return { frame: { $case: "deliveries", deliveries: { deliveries: items } } };
}

function settled(seq: bigint, reason?: string): ConsumeResponse {
  const error = reason === undefined ? undefined : { reason, message: "" };
  return { frame: { $case: "settled", settled: { seq, results: [{ state: 0, error }] } } };
}

function settleFrame(consumer: Session) {
  const frame = consumer.nextFrame()?.frame;
  assert(frame?.$case === "settle");
  return frame.settle;
}

function one<T>(items: T[]): T {
  assert.equal(items.length, 1);
  return items[0] as T;
}

// Promise: what was settled while the connection broke is settled by the same receipt on the next one.
test("unconfirmed settlement is said again on the next stream", () => {
  const consumer = session();
  consumer.open();
  const job = one(consumer.take(deliveries("r")).arrived);
  assert(consumer.begin(job));
  consumer.settle(job, ack(job.delivery));
  const first = settleFrame(consumer);
  const opening = consumer.open().frame;
  assert(opening?.$case === "open");
  assert.deepEqual(opening.open.held.map(String), ["r"]);
  const again = settleFrame(consumer);
  assert.deepEqual(again.settlements, first.settlements);
  consumer.take(settled(again.seq));
  assert(consumer.idle);
});

// Promise: stopping costs no message an attempt.
test("drain releases what no handler has begun", () => {
  const consumer = session();
  consumer.open();
  const [running, waiting] = consumer.take(deliveries("1", "2")).arrived;
  assert(running && waiting && consumer.begin(running));
  consumer.drain();
  assert.equal(consumer.nextFrame()?.frame?.$case, "drain");
  const released = one(settleFrame(consumer).settlements);
  assert.deepEqual([String(released.receipt), released.outcome?.$case], ["2", "release"]);
  assert(!consumer.begin(waiting));
  assert(!consumer.over);
});

// Promise: nothing is said about a message that somebody else holds.
test("revoked delivery is not settled", () => {
  const consumer = session();
  consumer.open();
  const job = one(consumer.take(deliveries("r")).arrived);
  consumer.begin(job);
  const revoked = { receipts: [Buffer.from("r")], reason: "" };
  assert.deepEqual(consumer.take({ frame: { $case: "revoked", revoked } }).revoked, [job]);
  consumer.settle(job, ack(job.delivery));
  assert.equal(consumer.nextFrame(), undefined);
});

// Promise: an ack is not lost because a broker was away for too long; any other refusal is final.
test("settlement that could not be carried out is said again", () => {
  const consumer = session();
  consumer.open();
  const job = one(consumer.take(deliveries("r")).arrived);
  consumer.begin(job);
  consumer.settle(job, ack(job.delivery));
  const { again } = consumer.take(settled(settleFrame(consumer).seq, "BROKER_UNAVAILABLE"));
  assert.equal(consumer.nextFrame(), undefined);
  consumer.sayAgain(again);
  consumer.take(settled(settleFrame(consumer).seq, "RECEIPT_EXPIRED"));
  assert(consumer.idle);
});

// Promise: an error nacks with its text, and Retry, Reject and Release say what they say.
test("what a handler throws is its outcome", () => {
  const { delivery } = one(session().take(deliveries("r")).arrived);
  const outcome = (thrown: unknown) => settlementAfter(delivery, thrown).outcome;
  assert.deepEqual(outcome(new Error("no such disc")), { $case: "nack", nack: { reason: "Error: no such disc", delay: undefined } });
  assert.deepEqual(outcome(new Retry(0, "x")), { $case: "nack", nack: { reason: "x", delay: { seconds: 0n, nanos: 0 } } });
  const cut = outcome(new Reject(`${"x".repeat(1023)}ß`));
  assert.deepEqual(cut, { $case: "reject", reject: { reason: "x".repeat(1023) } });
  assert.equal(outcome(new Release())?.$case, "release");
});

function opened(maxMessages: number): ProduceResponse {
  const window = { maxMessages, maxBytes: 0n };
  return { frame: { $case: "opened", opened: { producer: "p", window } } };
}

function entry(body: string): Entry {
  return new Entry(toWire(body, {}));
}

function batch(producer: Outbox) {
  const frame = producer.nextFrame()?.frame;
  return frame?.$case === "batch" ? frame.batch : undefined;
}

// Promise: what is sent again after a broken connection is known again, and not stored twice, in a smaller window too.
test("unconfirmed batch keeps its seq on the next stream", () => {
  const producer = new Outbox("orders", 10, 1 << 20, 30_000);
  producer.open();
  producer.take(opened(100));
  producer.takeIn(entry("1"));
  producer.takeIn(entry("2"));
  const first = batch(producer);
  producer.open();
  assert.equal(batch(producer), undefined, "the window is not known yet");
  producer.take(opened(1));
  assert.deepEqual(batch(producer), first);
});

// Promise: a producer slows down when it is told to, and confirms tell each message its id.
test("nothing is said beyond the window", async () => {
  const producer = new Outbox("orders", 10, 1 << 20, 30_000);
  producer.open();
  producer.take(opened(2));
  const entries = ["1", "2", "3"].map(entry);
  entries.forEach((each) => producer.takeIn(each));
  assert.equal(batch(producer)?.messages.length, 2);
  assert.equal(batch(producer), undefined);
  const result = (index: number, id: string) => ({ seq: 1n, index, result: { id, duplicate: index === 1 } });
  producer.take({ frame: { $case: "confirm", confirm: { throughSeq: 1n, results: [result(0, "a"), result(1, "b")] } } });
  assert.deepEqual(await entries[1]?.confirmed, { id: "b", duplicate: true });
  assert.equal(batch(producer)?.messages.length, 1);
});

// Promise: a broker that is away for a moment is a pause; one that stays away is an error, in the end.
test("message refused for the moment is said again until it is late", async () => {
  for (const limitMs of [30_000, -1]) {
    const producer = new Outbox("orders", 10, 1 << 20, limitMs);
    producer.open();
    producer.take(opened(10));
    const passing = entry("x");
    producer.takeIn(passing);
    batch(producer);
    const error = { reason: "BROKER_UNAVAILABLE", message: "away" };
    const results = [{ seq: 1n, index: 0, result: { id: "", duplicate: false, error } }];
    const { entries } = producer.take({ frame: { $case: "confirm", confirm: { throughSeq: 1n, results } } });
    if (limitMs < 0) {
      await assert.rejects(passing.confirmed, { reason: "BROKER_UNAVAILABLE" });
      assert(producer.idle);
    } else {
      producer.sayAgain(entries);
      assert.equal(batch(producer)?.seq, 2n);
    }
  }
});

// Promise: programs see why a call failed, and when to try again.
test("reason and hint are read from the details", () => {
  const metadata = new Metadata();
  const details = [
    { typeUrl: "type.googleapis.com/google.rpc.ErrorInfo", value: ErrorInfo.encode({ reason: "QUEUE_FULL", domain: "ackwell.dev" }).finish() },
    { typeUrl: "type.googleapis.com/google.rpc.RetryInfo", value: RetryInfo.encode({ retryDelay: { seconds: 1n, nanos: 5e8 } }).finish() },
  ].map(({ typeUrl, value }) => ({ typeUrl, value: Buffer.from(value) }));
  metadata.set("grpc-status-details-bin", Buffer.from(Status.encode({ code: 8, message: "", details }).finish()));
  const failed = Object.assign(new Error("full"), { code: status.RESOURCE_EXHAUSTED, details: "full", metadata });
  const { code, reason, retryAfterMs } = fromServiceError(failed);
  assert.deepEqual([code, reason, retryAfterMs], ["RESOURCE_EXHAUSTED", "QUEUE_FULL", 1500]);
});

// Promise: when time runs out the caller learns why, not only that it did; what is refused is not repeated.
test("attempts end with the last reason", () => {
  const away = new CallError("away", "UNAVAILABLE", "BROKER_UNAVAILABLE");
  const attempts = new Attempts(10_000, true);
  assert(attempts.pauseAfter(away) <= 50);
  assert.throws(() => attempts.pauseAfter(new CallError("late", "DEADLINE_EXCEEDED")), away);
  assert.throws(() => new Attempts(10_000, true).pauseAfter(new CallError("bad", "INVALID_ARGUMENT")), /bad/);
  assert.throws(() => new Attempts(10_000, false).pauseAfter(away), away);
});

// Promise: what is sent is what is received.
test("message through the wire is unchanged", () => {
  const message = { body: "größe", headers: { a: "ß" }, priority: 0, delayMs: 1500, ttlMs: 2.5, maxAttempts: 3 };
  const received = fromWire(toWire(message, {}));
  assert.deepEqual({ ...message, body: Buffer.from("größe") }, Object.fromEntries(Object.entries(received).filter(([name]) => name in message)));
  assert.throws(() => toWire({ delayMs: 1, deliverAt: new Date() }, {}), /not both/);
});

// Promise: a trace goes on through a queue, and none is made up.
test("trace context is current within its function only", () => {
  const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  assert.deepEqual(withTrace({ traceparent }, currentTrace), { traceparent });
  assert.deepEqual(currentTrace(), {});
});

// Promise: a CloudEvent comes out as it went in, and what is none is told apart.
test("event through a message is unchanged", () => {
  const event = { id: "1", source: "/shop", type: "order.placed", subject: "größe", extensions: { tenant: "n" } };
  const message = fromWire(toWire(toMessage({ ...event, data: "{}" }), {}));
  const { data, extensions, id, source, type, subject } = toCloudEvent(message);
  assert.deepEqual({ id, source, type, subject, extensions }, event);
  assert.equal(String(data), "{}");
  assert.throws(() => toCloudEvent(fromWire(toWire("x", {}))), /no CloudEvent/);
});

// Promise: a wrong address is found at once, not by a call that never ends.
test("bad address is named", async () => {
  for (const address of ["localhost", ":7400", "localhost:", "localhost:0", "localhost:70000", "https://a:1/b"]) {
    assert.throws(() => new Client({ address }), /not valid/, address);
  }
  for (const address of ["127.0.0.1:7400", "http://localhost:7400/", "[::1]:7400"]) {
    await new Client({ address }).close();
  }
});
