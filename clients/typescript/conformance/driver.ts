// The driver of the client; the protocol is in tests/conformance/README.md.

import { writeSync } from "node:fs";
import { createInterface } from "node:readline";
import {
  AckwellError,
  ack,
  CallError,
  Client,
  type CloudEvent,
  type Consumer,
  currentTrace,
  type Delivery,
  Keyring,
  type Message,
  nack,
  type Producer,
  Reject,
  Release,
  Retry,
  reject,
  release,
  type SentOrError,
  type Settled,
  type Settlement,
  type StoredMessage,
  toCloudEvent,
  toMessage,
  withTrace,
} from "../src/index.js";

// What the runner says is not typed: it keeps to the protocol.
type Command = any;
type Json = Record<string, unknown>;
type Call = (command: Command, how: { signal: AbortSignal; timeoutMs?: number }) => Promise<Json>;

let client = new Client();
const consumers = new Map<string, Consumer>();
const producers = new Map<string, { producer: Producer; line: Promise<unknown> }>();
const cancels = new Map<number, AbortController>();
const finishes = new Map<string, (command: Command) => void>();
let lastDelivery = 0;

const calls: Record<string, Call> = {
  async options({ retry_limit_ms }) {
    await client.close();
    client = new Client({ retryLimitMs: retry_limit_ms });
    return {};
  },
  async send({ queue, message, traceparent }, how) {
    const send = () => client.send(queue, messageOf(message), how);
    return { ...(await (traceparent ? withTrace({ traceparent }, send) : send())) };
  },
  async send_many({ queue, messages, atomic }, how) {
    return { results: (await client.sendMany(queue, messages.map(messageOf), { ...how, atomic })).map(sentJson) };
  },
  async receive({ queue, max_messages, wait_ms, ack_timeout_ms, consumer }, how) {
    const options = { maxMessages: max_messages, waitMs: wait_ms, ackTimeoutMs: ack_timeout_ms, consumer };
    return { deliveries: (await client.receive(queue, { ...how, ...options })).map(deliveryJson) };
  },
  async settle({ queue, settlements }, how) {
    return { results: (await client.settle(queue, settlements.map(settlementOf), how)).map(settledJson) };
  },
  async extend({ queue, receipts, ack_timeout_ms }, how) {
    const extended = await client.extend(queue, receipts.map(bytes), ack_timeout_ms, how);
    const shown = (each: Date | CallError) =>
      each instanceof Date ? { ack_deadline_at_ms: each.getTime() } : { error: errorJson(each) };
    return { results: extended.map(shown) };
  },
  async commit({ settle = [], send = [], request_id }, how) {
    const commit = {
      settle: settle.map(({ queue, settlements }: Command) => ({ queue, settlements: settlements.map(settlementOf) })),
      send: send.map(({ queue, messages }: Command) => ({ queue, messages: messages.map(messageOf) })),
      requestId: request_id,
    };
    const { settled, sent } = await client.commit(commit, how);
    return { settled: settled.map((results) => results.map(settledJson)), sent };
  },
  async stats({ queue }, how) {
    const { inFlight, ...stats } = await client.stats(queue, how);
    return { ...stats, in_flight: inFlight };
  },
  async peek({ queue, limit, body_bytes }, how) {
    const { messages } = await client.peek(queue, { ...how, limit, bodyBytes: body_bytes });
    return { messages: messages.map(messageJson) };
  },
  async get({ queue, message_id }, how) {
    return { message: messageJson(await client.get(queue, message_id, how)) };
  },
  async cancel({ queue, message_ids }, how) {
    const cancelled = await client.cancel(queue, message_ids, how);
    return { results: cancelled.map((error) => (error ? { error: errorJson(error) } : {})) };
  },
  async producer_open({ producer: name, queue, max_outstanding }) {
    const producer = client.producer(queue, { maxOutstanding: max_outstanding });
    producers.set(name, { producer, line: Promise.resolve() });
    return {};
  },
  async producer_flush({ producer }) {
    await producers.get(producer)?.producer.flush();
    return {};
  },
  async producer_close({ producer }) {
    await producers.get(producer)?.producer.close();
    return {};
  },
  async consume({ consumer: name, queue, concurrency, prefetch }) {
    const consumer = client.consume(queue, (delivery) => handle(name, delivery), { concurrency, prefetch, name });
    consumers.set(name, consumer);
    consumer.done.then(
      () => say({ event: "consumer_ended", consumer: name }),
      (error) => say({ event: "consumer_ended", consumer: name, error: errorJson(error) }),
    );
    return {};
  },
  async consume_stop({ consumer, grace_ms }) {
    await consumers.get(consumer)?.stop(grace_ms);
    return {};
  },
  async to_message({ cloud_event }) {
    const event: CloudEvent = { ...cloud_event, data: bytes(cloud_event.data ?? "") };
    return { message: messageJson({ ...emptyMessage, ...toMessage(event) } as StoredMessage) };
  },
  async to_cloud_event({ message }) {
    const { data, extensions, ...event } = toCloudEvent({ ...emptyMessage, ...messageOf(message) } as StoredMessage);
    const more = Object.keys(extensions ?? {}).length > 0 ? { extensions } : {};
    return { cloud_event: { ...event, ...more, data: base64(data) } };
  },
  async seal({ queue, message, ...keyring }) {
    return { message: messageJson({ ...emptyMessage, ...keyringOf(keyring).seal(queue, messageOf(message)) } as StoredMessage) };
  },
  async open({ queue, message, ...keyring }) {
    const sealed = { ...emptyMessage, ...messageOf(message) } as StoredMessage;
    return { message: messageJson(keyringOf(keyring).open(queue, sealed)) };
  },
};

function keyringOf({ current, keys, allow_unsealed }: Command): Keyring {
  return new Keyring(current, keys, { allowUnsealed: allow_unsealed });
}

const emptyMessage = { body: Buffer.alloc(0), headers: {}, id: "", attempts: 0, deliveries: 0, history: [], bodyBytes: 0 };

function begin(command: Command): void {
  switch (command.op) {
    case "finish":
      finishes.get(command.delivery)?.(command);
      answer(command, {});
      break;
    case "cancel_call":
      cancels.get(command.call)?.abort();
      answer(command, {});
      break;
    case "close":
      void closeAndLeave(command);
      break;
    case "producer_send":
      produce(command);
      break;
    default:
      void attempt(command);
  }
}

async function attempt(command: Command): Promise<void> {
  const call = calls[command.op];
  if (!call) {
    say({ id: command.id, unsupported: true });
    return;
  }
  const cancel = new AbortController();
  cancels.set(command.id, cancel);
  try {
    answer(command, await call(command, { signal: cancel.signal, timeoutMs: command.timeout_ms }));
  } catch (error) {
    refuse(command, error);
  }
}

function produce(command: Command): void {
  const line = producers.get(command.producer);
  if (!line) {
    return refuse(command, new AckwellError("no such producer"));
  }
  line.line = line.line.then(async () => {
    try {
      const { confirmed } = await line.producer.send(messageOf(command.message));
      say({ event: "accepted", call: command.id });
      confirmed.then(
        (sent) => answer(command, { ...sent }),
        (error) => refuse(command, error),
      );
    } catch (error) {
      refuse(command, error);
    }
  });
}

async function handle(consumer: string, delivery: Delivery): Promise<void> {
  lastDelivery += 1;
  const name = `d${lastDelivery}`;
  const finished = new Promise<Command>((resolve) => finishes.set(name, resolve));
  const cancelled = new Promise<undefined>((resolve) =>
    delivery.signal.addEventListener("abort", () => resolve(undefined), { once: true }),
  );
  const { traceparent } = currentTrace();
  say({ event: "handle", consumer, delivery: name, message: messageJson(delivery.message), traceparent });
  const finish = await Promise.race([finished, cancelled]);
  if (finish === undefined) {
    say({ event: "cancelled", delivery: name });
    return;
  }
  throwOutcome(finish);
}

function throwOutcome({ outcome, reason, delay_ms }: Command): void {
  switch (outcome) {
    case "raise":
      throw new Error(reason);
    case "retry":
      throw new Retry(delay_ms, reason);
    case "reject":
      throw new Reject(reason);
    case "release":
      throw new Release();
    default:
  }
}

// Between the protocol's words and the library's

function messageOf(shown: Command): Message {
  return {
    body: bytes(shown.body ?? ""),
    headers: shown.headers ?? {},
    contentType: shown.content_type,
    orderingKey: shown.ordering_key,
    fairnessKey: shown.fairness_key,
    priority: shown.priority,
    dedupId: shown.dedup_id,
    delayMs: shown.delay_ms,
    deliverAt: shown.deliver_at_ms === undefined ? undefined : new Date(shown.deliver_at_ms),
    ttlMs: shown.ttl_ms,
    maxAttempts: shown.max_attempts,
  };
}

function messageJson(message: StoredMessage): Json {
  return {
    body: base64(message.body),
    headers: message.headers,
    content_type: message.contentType,
    ordering_key: message.orderingKey,
    fairness_key: message.fairnessKey,
    priority: message.priority,
    dedup_id: message.dedupId,
    max_attempts: message.maxAttempts,
    id: message.id || undefined,
    stored_at_ms: message.storedAt?.getTime(),
    state: message.state,
    attempts: message.attempts,
    deliveries: message.deliveries,
    history: message.history.map(({ outcome, reason, consumer }) => ({ outcome, reason, consumer })),
    dead_reason: message.deadReason,
    next_attempt_at_ms: message.nextAttemptAt?.getTime(),
  };
}

function deliveryJson(delivery: Delivery): Json {
  return {
    receipt: base64(delivery.receipt),
    message: messageJson(delivery.message),
    ack_deadline_at_ms: delivery.ackDeadline.getTime(),
    fencing_token: Number(delivery.fencingToken),
  };
}

function settlementOf({ receipt, outcome, reason, delay_ms }: Command): Settlement {
  const held = bytes(receipt);
  switch (outcome) {
    case "ack":
      return ack(held);
    case "nack":
      return nack(held, reason, delay_ms);
    case "release":
      return release(held);
    default:
      return reject(held, reason);
  }
}

function settledJson({ state, nextAttemptAt, error }: Settled): Json {
  return error ? { error: errorJson(error) } : { state, next_attempt_at_ms: nextAttemptAt?.getTime() };
}

function sentJson(sent: SentOrError): Json {
  return sent.error ? { error: errorJson(sent.error) } : { ...sent };
}

function errorJson(error: unknown): Json {
  if (error instanceof CallError) {
    const { detail, code, reason, retryAfterMs } = error;
    return { message: detail, code: code || "UNKNOWN", reason, retry_after_ms: retryAfterMs };
  }
  const codes: Record<string, string> = { AbortError: "CANCELLED", TimeoutError: "DEADLINE_EXCEEDED" };
  return { message: String(error), code: codes[(error as Error).name] ?? "CLIENT" };
}

function bytes(encoded: string): Buffer {
  return Buffer.from(encoded, "base64");
}

function base64(data: Uint8Array | string | undefined): string {
  return Buffer.from(data ?? "").toString("base64");
}

function answer(command: Command, ok: Json): void {
  say({ id: command.id, ok });
}

function refuse(command: Command, error: unknown): void {
  say({ id: command.id, error: errorJson(error) });
}

/** At once and as a whole: a pipe that is full for now is tried again. */
function say(line: Json): void {
  let rest = Buffer.from(`${JSON.stringify(line)}\n`);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") {
        throw error;
      }
    }
  }
}

/** Sockets and timers that still live; the pipes to the runner, and what Node itself keeps, are not ours. */
function leaks(): string[] {
  return process.getActiveResourcesInfo().filter((name) => name.startsWith("TCP") || name === "Timeout");
}

async function closeAndLeave(command: Command): Promise<void> {
  await client.close();
  // Sockets are closed in the next turns of the loop.
  for (let turn = 0; turn < 10 && leaks().length > 0; turn += 1) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  answer(command, { leaks: leaks() });
  process.exit(0);
}

async function main(): Promise<void> {
  process.once("SIGTERM", () => void client.close().then(() => process.exit(0)));
  say({ event: "ready", protocol: 1 });
  for await (const line of createInterface({ input: process.stdin, crlfDelay: Number.POSITIVE_INFINITY })) {
    begin(JSON.parse(line));
  }
  await client.close();
}

await main();
