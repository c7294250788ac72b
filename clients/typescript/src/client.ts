// The client.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { type CallOptions as GrpcCallOptions, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import { Consumer, type ConsumerOptions, type Handler } from "./consumer.js";
import { AckwellError, CallError, ClosedError, fromItem, fromServiceError } from "./errors.js";
import { QueueAdminClient } from "./generated/ackwell/v1/admin.js";
import type { Message as WireMessage } from "./generated/ackwell/v1/message.js";
import { QueuesClient, type SendResult } from "./generated/ackwell/v1/queues.js";
import {
  type Delivery,
  deliveryFromWire,
  duration,
  fromWire,
  type Message,
  type State,
  type StoredMessage,
  stateToWire,
  toWire,
} from "./message.js";
import { encodedBytes, MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, type Sent } from "./outbox.js";
import { ack, nack, reject, release, type Settled, type Settlement, settledFromWire } from "./outcome.js";
import { Producer, type ProducerOptions } from "./producer.js";
import { Attempts, DEFAULT_LIMIT_MS } from "./retry.js";
import { currentTrace } from "./trace.js";

/** Where a sidecar, or `ackwell dev`, listens. */
export const DEFAULT_ADDRESS = "127.0.0.1:7400";
const DEFAULT_WAIT_MS = 20_000;
// 16 MiB of bodies, and as much again for each of headers and histories.
const MAX_ANSWER_BYTES = 64 << 20;

const CHANNEL_OPTIONS = {
  "grpc.max_receive_message_length": MAX_ANSWER_BYTES,
  "grpc.max_send_message_length": -1,
  // A peer that vanished without a word is noticed within the sum of the two.
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  // A broken stream has 5 s to come back: gRPC's own first pause of a second, up to two minutes, is far too long.
  "grpc.initial_reconnect_backoff_ms": 50,
  "grpc.max_reconnect_backoff_ms": 1_000,
  // Repeating is ours: it knows which calls may be repeated, and their deadline.
  "grpc.enable_retries": 0,
  // Two clients in a process have two connections, and closing one leaves the other alone.
  "grpc.use_local_subchannel_pool": 1,
};

export interface ClientOptions {
  /** `host:port`. Default: ACKWELL_ADDRESS, or 127.0.0.1:7400. */
  address?: string;
  /** How long calls are repeated while the broker is unavailable. Default 30 s; from two minutes on a send may store twice. */
  retryLimitMs?: number;
  /** Where warnings go, about broken streams for example. Default: `console.warn`. */
  warn?: (text: string) => void;
}

/** Of every call. */
export interface CallOptions {
  /** Cancels the call. */
  signal?: AbortSignal;
  /** For all of it, repetitions included. */
  timeoutMs?: number;
}

export interface ReceiveOptions extends CallOptions {
  /** 1 to 1000; default 1. */
  maxMessages?: number;
  /** How long to wait for the first message; default 20 s, at most 60 s. */
  waitMs?: number;
  /** How long the messages are held; default: the queue's own time. */
  ackTimeoutMs?: number;
  /** A name for this consumer in histories. */
  consumer?: string;
}

export interface PeekOptions extends CallOptions {
  /** Default 20, at most 1000. */
  limit?: number;
  /** From the page before. */
  cursor?: Uint8Array;
  /** How much of each body to show; default none. */
  bodyBytes?: number;
  /** Any of these; default any. */
  states?: State[];
}

export interface Stats {
  ready: number;
  delayed: number;
  inFlight: number;
  dead: number;
  bytes: number;
  consumers: number;
  paused: boolean;
}

export interface Commit {
  settle?: { queue: string; settlements: Settlement[] }[];
  send?: { queue: string; messages: Outgoing[] }[];
  /** Repeated with it within 2 minutes, the commit is answered as the first time. */
  requestId?: string;
}

/** What can be sent. */
export type Outgoing = Message | Uint8Array | string;

/** One of a batch: what was stored, or why not. */
export type SentOrError = (Sent & { error?: undefined }) | { error: CallError };

type Unary<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: Partial<GrpcCallOptions>,
  callback: (error: ServiceError | null, response: Response) => void,
) => { cancel(): void };

/**
 * A connection to a sidecar or broker. It connects with the first call. Calls that can be repeated without a second effect are
 * repeated while the broker is unavailable. Close it at the end, or say `await using`.
 */
export class Client {
  readonly address: string;
  private readonly queues: QueuesClient;
  private readonly admin: QueueAdminClient;
  private readonly retryLimitMs: number;
  private readonly warn: (text: string) => void;
  private readonly closing = new AbortController();
  private readonly parts = new Set<Consumer | Producer>();

  constructor(options: ClientOptions = {}) {
    this.address = findAddress(options.address);
    this.retryLimitMs = options.retryLimitMs ?? DEFAULT_LIMIT_MS;
    this.warn = options.warn ?? ((text) => console.warn(`ackwell: ${text}`));
    this.queues = new QueuesClient(this.address, credentials.createInsecure(), CHANNEL_OPTIONS);
    const channelOverride = this.queues.getChannel();
    this.admin = new QueueAdminClient(this.address, credentials.createInsecure(), { channelOverride });
  }

  /** Drains what was made with this client, and closes the connection. */
  async close(): Promise<void> {
    this.closing.abort(new ClosedError("the client is closed"));
    const parts = [...this.parts];
    for (const part of parts) {
      part.end();
    }
    await Promise.all(parts.map((part) => (part instanceof Consumer ? part.done.catch(() => {}) : part.close())));
    this.queues.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // Sending

  /** Stores one message. Resolves once it is on disk. */
  async send(queue: string, message: Outgoing, options: CallOptions = {}): Promise<Sent> {
    const request = { queue, messages: [outgoing(message)], atomic: false, requestId: randomUUID() };
    const { results } = await this.call(this.queues.send.bind(this.queues), request, options);
    const sent = sentOrError(only(results));
    if (sent.error) {
      throw sent.error;
    }
    return sent;
  }

  /**
   * Stores any number of messages, in order; one result for each. They go in calls of at most 1000, one after the other. What is
   * refused has an `error`; the others are stored. After a call that failed as a whole nothing more is sent, and the rest fails as
   * it did. `atomic`: all or none, in one call.
   */
  async sendMany(
    queue: string,
    messages: Iterable<Outgoing>,
    options: CallOptions & { atomic?: boolean } = {},
  ): Promise<SentOrError[]> {
    const wire = [...messages].map(outgoing);
    if (options.atomic) {
      return this.sendBatch(queue, wire, true, options);
    }
    const results: SentOrError[] = [];
    let failure: CallError | undefined;
    for (const batch of batches(wire)) {
      try {
        results.push(...(failure ? [] : await this.sendBatch(queue, batch, false, options)));
      } catch (error) {
        failure = callError(error);
      }
      const missing = failure ? batch.length : 0;
      results.push(...Array.from({ length: missing }, () => ({ error: failure as CallError })));
    }
    return results;
  }

  private async sendBatch(
    queue: string,
    messages: WireMessage[],
    atomic: boolean,
    options: CallOptions,
  ): Promise<SentOrError[]> {
    const request = { queue, messages, atomic, requestId: randomUUID() };
    const call = async () => (await this.call(this.queues.send.bind(this.queues), request, options)).results;
    return items(messages.length, async () => (await call()).map(sentOrError), (error) => ({ error }));
  }

  /** Sends many messages without waiting for each: see `Producer`. */
  producer(queue: string, options: ProducerOptions = {}): Producer {
    this.check();
    const producer = new Producer(this.queues, queue, options, this.retryLimitMs, this.warn);
    this.adopt(producer);
    return producer;
  }

  // Receiving

  /**
   * Takes up to `maxMessages` as soon as there is one; empty when none came in time. Settle, or extend, each before its
   * `ackDeadline`.
   */
  async receive(queue: string, options: ReceiveOptions = {}): Promise<Delivery[]> {
    const waitMs = options.waitMs ?? DEFAULT_WAIT_MS;
    const request = {
      queue,
      maxMessages: options.maxMessages ?? 1,
      maxBytes: 0n,
      wait: duration(waitMs),
      ackTimeout: optionalDuration(options.ackTimeoutMs),
      requestId: randomUUID(),
      consumer: options.consumer ?? "",
    };
    const answer = await this.call(this.queues.receive.bind(this.queues), request, options, waitMs);
    return answer.deliveries.map((delivery) => deliveryFromWire(queue, delivery));
  }

  /** Settles up to 1000 deliveries (`ack(delivery)` and its siblings); one result for each, in order. */
  async settle(queue: string, settlements: Settlement[], options: CallOptions = {}): Promise<Settled[]> {
    const request = { queue, settlements };
    const call = async () => (await this.call(this.queues.settle.bind(this.queues), request, options)).results;
    return items(settlements.length, async () => (await call()).map(settledFromWire), (error) => ({ error }));
  }

  /** Done: the message is gone. */
  async ack(delivery: Delivery, options: CallOptions = {}): Promise<void> {
    await this.settleOne(delivery, ack(delivery), options);
  }

  /** Failed: counts an attempt; comes again after `delayMs`, or after the queue's backoff. */
  async nack(delivery: Delivery, reason = "", delayMs?: number, options: CallOptions = {}): Promise<Settled> {
    return this.settleOne(delivery, nack(delivery, reason, delayMs), options);
  }

  /** Not processed: back to its place, free of charge. */
  async release(delivery: Delivery, options: CallOptions = {}): Promise<void> {
    await this.settleOne(delivery, release(delivery), options);
  }

  /** Never again: Dead at once. */
  async reject(delivery: Delivery, reason = "", options: CallOptions = {}): Promise<void> {
    await this.settleOne(delivery, reject(delivery, reason), options);
  }

  private async settleOne(delivery: Delivery, settlement: Settlement, options: CallOptions): Promise<Settled> {
    const settled = only(await this.settle(delivery.queue, [settlement], options));
    if (settled.error) {
      throw settled.error;
    }
    return settled;
  }

  /** Holds up to 1000 deliveries longer, counted from now; the new deadline of each, or why not. */
  async extend(
    queue: string,
    deliveries: (Delivery | Uint8Array)[],
    ackTimeoutMs?: number,
    options: CallOptions = {},
  ): Promise<(Date | CallError)[]> {
    const receipts = deliveries.map((each) => (each instanceof Uint8Array ? Buffer.from(each) : each.receipt));
    const request = { queue, receipts, ackTimeout: optionalDuration(ackTimeoutMs) };
    const call = async () => (await this.call(this.queues.extend.bind(this.queues), request, options)).results;
    const item = ({ error, ackDeadline }: Awaited<ReturnType<typeof call>>[number]) =>
      error ? fromItem(error) : (ackDeadline ?? new Date(0));
    return items<Date | CallError>(receipts.length, async () => (await call()).map(item), (error) => error);
  }

  /** Runs `handler` for each message of the queue: see `Consumer`. */
  consume(queue: string, handler: Handler, options: ConsumerOptions = {}): Consumer {
    this.check();
    const consumer = new Consumer(this.queues, queue, handler, options, this.warn);
    this.adopt(consumer);
    return consumer;
  }

  // Both at once

  /** Settles and sends in one step, on one shard: all of it is done, or nothing. */
  async commit(commit: Commit, options: CallOptions = {}): Promise<{ settled: Settled[][]; sent: Sent[][] }> {
    const request = {
      requestId: commit.requestId ?? randomUUID(),
      settle: commit.settle ?? [],
      send: (commit.send ?? []).map(({ queue, messages }) => ({
        queue,
        messages: messages.map(outgoing),
        atomic: false,
        requestId: "",
      })),
    };
    const answer = await this.call(this.queues.commit.bind(this.queues), request, options);
    const settled = answer.settled.map(({ results }) => results.map(settledFromWire));
    return { settled, sent: answer.sent.map(({ results }) => results.map(({ id, duplicate }) => ({ id, duplicate }))) };
  }

  // Looking

  /** Counts of a queue. */
  async stats(queue: string, options: CallOptions = {}): Promise<Stats> {
    const answer = await this.call(this.admin.stats.bind(this.admin), { queue }, options);
    const { consumers, paused } = answer;
    const counts = { ready: Number(answer.ready), delayed: Number(answer.delayed), inFlight: Number(answer.inFlight) };
    return { ...counts, dead: Number(answer.dead), bytes: Number(answer.bytes), consumers, paused };
  }

  /** Shows messages without holding them: one page, and the cursor of the next one, absent at the end. */
  async peek(queue: string, options: PeekOptions = {}): Promise<{ messages: StoredMessage[]; cursor?: Buffer }> {
    const states = (options.states ?? []).map(stateToWire);
    const request = {
      queue,
      filter: { states, orderingKey: "", fairnessKey: "", headers: {}, reasonContains: "", minAttempts: 0, ids: [] },
      limit: options.limit ?? 0,
      cursor: Buffer.from(options.cursor ?? []),
      bodyBytes: options.bodyBytes ?? 0,
    };
    const answer = await this.call(this.admin.peek.bind(this.admin), request, options);
    return { messages: answer.messages.map(fromWire), cursor: answer.cursor.length > 0 ? answer.cursor : undefined };
  }

  /** One message, whole, whatever its state. */
  async get(queue: string, id: string, options: CallOptions = {}): Promise<StoredMessage> {
    const { message } = await this.call(this.admin.get.bind(this.admin), { queue, id }, options);
    if (!message) {
      throw new AckwellError("the answer has no message: client and broker do not match");
    }
    return fromWire(message);
  }

  /** Removes messages that nobody holds, for good; one result for each: undefined, or why not. */
  async cancel(queue: string, ids: string[], options: CallOptions = {}): Promise<(CallError | undefined)[]> {
    // Not repeated: a second call would not find what the first one removed.
    const call = () => this.callOnce(this.admin.cancel.bind(this.admin), { queue, ids }, options);
    const item = ({ error }: Awaited<ReturnType<typeof call>>["results"][number]) => error && fromItem(error);
    return items<CallError | undefined>(ids.length, async () => (await call()).results.map(item), (error) => error);
  }

  // How calls are made

  private call<Request, Response>(
    method: Unary<Request, Response>,
    request: Request,
    options: CallOptions,
    extraMs = 0,
  ): Promise<Response> {
    const limitMs = options.timeoutMs ?? this.retryLimitMs + extraMs;
    return this.repeat(method, request, options.signal, new Attempts(limitMs, true));
  }

  private callOnce<Request, Response>(
    method: Unary<Request, Response>,
    request: Request,
    options: CallOptions,
  ): Promise<Response> {
    const limitMs = options.timeoutMs ?? this.retryLimitMs;
    return this.repeat(method, request, options.signal, new Attempts(limitMs, false));
  }

  private async repeat<Request, Response>(
    method: Unary<Request, Response>,
    request: Request,
    given: AbortSignal | undefined,
    attempts: Attempts,
  ): Promise<Response> {
    const signal = given ? AbortSignal.any([given, this.closing.signal]) : this.closing.signal;
    for (;;) {
      try {
        return await attempt(method, request, attempts.deadline(), signal);
      } catch (error) {
        signal.throwIfAborted();
        const pauseMs = attempts.pauseAfter(fromServiceError(error as ServiceError));
        await sleep(pauseMs, undefined, { signal }).catch(() => signal.throwIfAborted());
      }
    }
  }

  private check(): void {
    this.closing.signal.throwIfAborted();
  }

  private adopt(part: Consumer | Producer): void {
    for (const other of this.parts) {
      if (other.closed) {
        this.parts.delete(other);
      }
    }
    this.parts.add(part);
  }
}

function attempt<Request, Response>(
  method: Unary<Request, Response>,
  request: Request,
  deadline: Date,
  signal: AbortSignal,
): Promise<Response> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const call = method(request, new Metadata(), { deadline }, (error, response) => {
      signal.removeEventListener("abort", cancel);
      return error ? reject(error) : resolve(response);
    });
    const cancel = () => call.cancel();
    signal.addEventListener("abort", cancel, { once: true });
  });
}

/** A call with a single item fails as a whole with it; here it is that item's result, as in a larger batch. */
async function items<T>(count: number, call: () => Promise<T[]>, failed: (error: CallError) => T): Promise<T[]> {
  try {
    const results = await call();
    if (results.length !== count) {
      throw new AckwellError(`the answer has ${results.length} results for ${count} items: client and broker do not match`);
    }
    return results;
  } catch (error) {
    if (count === 1 && error instanceof CallError && error.reason && error.code !== "UNAVAILABLE") {
      return [failed(error)];
    }
    throw error;
  }
}

function* batches(messages: WireMessage[]): Generator<WireMessage[]> {
  let batch: WireMessage[] = [];
  let bytes = 0;
  for (const message of messages) {
    const more = encodedBytes(message);
    if (batch.length > 0 && (batch.length === MAX_BATCH_MESSAGES || bytes + more > MAX_BATCH_BYTES)) {
      yield batch;
      [batch, bytes] = [[], 0];
    }
    batch.push(message);
    bytes += more;
  }
  if (batch.length > 0) {
    yield batch;
  }
}

function outgoing(message: Outgoing): WireMessage {
  return toWire(message, { ...currentTrace() });
}

function sentOrError({ id, duplicate, error }: SendResult): SentOrError {
  return error ? { error: fromItem(error) } : { id, duplicate };
}

function callError(error: unknown): CallError {
  if (error instanceof CallError) {
    return error;
  }
  throw error;
}

function only<T>(results: T[]): T {
  const [result] = results;
  if (results.length !== 1 || result === undefined) {
    throw new AckwellError(`the answer has ${results.length} results for 1 item: client and broker do not match`);
  }
  return result;
}

function optionalDuration(spanMs: number | undefined): ReturnType<typeof duration> | undefined {
  return spanMs === undefined ? undefined : duration(spanMs);
}

/** The address that was given, or that of the environment, or the default one. */
function findAddress(given: string | undefined): string {
  const found = (given || process.env.ACKWELL_ADDRESS || DEFAULT_ADDRESS).replace(/^http:\/\//, "").replace(/\/+$/, "");
  const port = Number(/^(?:\[[^\]]+\]|[^/:\s]+):(\d+)$/.exec(found)?.[1]);
  if (!found.startsWith("unix:") && !(port > 0 && port < 65536)) {
    throw new TypeError(`address ${JSON.stringify(found)} is not valid: use host:port, like ${DEFAULT_ADDRESS}`);
  }
  return found;
}
