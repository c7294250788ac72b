// What a message is, and what a consumer gets to see of it.

import { type Delivery as WireDelivery, Message as WireMessage, State as WireState } from "./generated/ackwell/v1/message.js";
import type { Duration } from "./generated/google/protobuf/duration.js";
import { milliseconds } from "./errors.js";

/** Where a stored message stands. */
export type State = "READY" | "DELAYED" | "IN_FLIGHT" | "DEAD";

/** What a sender says; proto/ackwell/v1/message.proto tells the limits. */
export interface Message {
  /** Text is sent as UTF-8. */
  body?: Uint8Array | string;
  headers?: Record<string, string>;
  contentType?: string;
  orderingKey?: string;
  fairnessKey?: string;
  /** 0 to 9, the highest first; absent: 4. */
  priority?: number;
  dedupId?: string;
  delayMs?: number;
  deliverAt?: Date;
  ttlMs?: number;
  maxAttempts?: number;
}

/** One failed attempt. */
export interface Attempt {
  started: Date;
  ended: Date;
  /** nack, ack-timeout, consumer-lost or reject. */
  outcome: string;
  reason: string;
  consumer: string;
}

/** A message as it is stored. */
export interface StoredMessage extends Message {
  body: Buffer;
  headers: Record<string, string>;
  id: string;
  storedAt?: Date;
  state?: State;
  /** How often processing failed. */
  attempts: number;
  /** How often it was handed out. */
  deliveries: number;
  /** The newest first. */
  history: Attempt[];
  deadReason?: string;
  nextAttemptAt?: Date;
  /** Length of the whole body; more than `body` holds where `peek` cut it. */
  bodyBytes: number;
}

/** A message in your hands, until it is settled or `ackDeadline` passes. */
export class Delivery {
  private readonly controller = new AbortController();

  constructor(
    readonly queue: string,
    readonly receipt: Buffer,
    readonly message: StoredMessage,
    readonly ackDeadline: Date,
    /** Grows with every delivery: lets a store refuse writes of an earlier holder. */
    readonly fencingToken: bigint,
  ) {}

  get id(): string {
    return this.message.id;
  }

  get body(): Buffer {
    return this.message.body;
  }

  get headers(): Record<string, string> {
    return this.message.headers;
  }

  /** The body as UTF-8 text. */
  get text(): string {
    return this.message.body.toString("utf8");
  }

  /** The body, read as JSON. */
  json<T = unknown>(): T {
    return JSON.parse(this.text) as T;
  }

  /** Aborted when a consumer's handler should stop: somebody else has the message, or soon will. */
  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** @internal */
  revoke(): void {
    this.controller.abort(new Error("the message is no longer held by this handler"));
  }
}

/** @internal The message as it is sent; headers that it has itself come before `extraHeaders`. */
export function toWire(message: Message | Uint8Array | string, extraHeaders: Record<string, string>): WireMessage {
  const sent: Message = typeof message === "string" || message instanceof Uint8Array ? { body: message } : message;
  return WireMessage.fromPartial({
    body: bytes(sent.body ?? ""),
    headers: { ...extraHeaders, ...sent.headers },
    contentType: sent.contentType,
    orderingKey: sent.orderingKey,
    fairnessKey: sent.fairnessKey,
    priority: sent.priority,
    dedupId: sent.dedupId,
    available: available(sent),
    ttl: sent.ttlMs === undefined ? undefined : duration(sent.ttlMs),
    maxAttempts: sent.maxAttempts,
  });
}

function available(message: Message): WireMessage["available"] {
  if (message.delayMs !== undefined && message.deliverAt !== undefined) {
    throw new RangeError("a message has delayMs or deliverAt, not both");
  }
  if (message.delayMs !== undefined) {
    return { $case: "delay", delay: duration(message.delayMs) };
  }
  return message.deliverAt && { $case: "deliverAt", deliverAt: message.deliverAt };
}

/** @internal The message as it came. */
export function fromWire(message: WireMessage): StoredMessage {
  const { available } = message;
  return {
    body: message.body,
    headers: message.headers,
    contentType: message.contentType || undefined,
    orderingKey: message.orderingKey || undefined,
    fairnessKey: message.fairnessKey || undefined,
    priority: message.priority,
    dedupId: message.dedupId || undefined,
    delayMs: available?.$case === "delay" ? milliseconds(available.delay) : undefined,
    deliverAt: available?.$case === "deliverAt" ? available.deliverAt : undefined,
    ttlMs: message.ttl && milliseconds(message.ttl),
    maxAttempts: message.maxAttempts,
    id: message.id,
    storedAt: message.storedAt,
    state: stateFromWire(message.state),
    attempts: message.attempts,
    deliveries: message.deliveries,
    history: message.history.map((attempt) => ({
      ...attempt,
      started: attempt.started ?? new Date(0),
      ended: attempt.ended ?? new Date(0),
    })),
    deadReason: message.deadReason || undefined,
    nextAttemptAt: message.nextAttemptAt,
    bodyBytes: Number(message.bodyBytes),
  };
}

/** @internal The delivery as it came. */
export function deliveryFromWire(queue: string, delivery: WireDelivery): Delivery {
  const message = fromWire(delivery.message ?? WireMessage.fromPartial({}));
  return new Delivery(queue, delivery.receipt, message, delivery.ackDeadline ?? new Date(0), delivery.fencingToken);
}

/** @internal */
export function stateFromWire(state: WireState): State | undefined {
  switch (state) {
    case WireState.STATE_READY:
      return "READY";
    case WireState.STATE_DELAYED:
      return "DELAYED";
    case WireState.STATE_IN_FLIGHT:
      return "IN_FLIGHT";
    case WireState.STATE_DEAD:
      return "DEAD";
    default:
      return undefined;
  }
}

/** @internal */
export function stateToWire(state: State): WireState {
  return WireState[`STATE_${state}`];
}

/** @internal A time span on the wire. */
export function duration(spanMs: number): Duration {
  if (!Number.isFinite(spanMs)) {
    throw new RangeError(`${spanMs} is no time span`);
  }
  const seconds = Math.trunc(spanMs / 1000);
  return { seconds: BigInt(seconds), nanos: Math.round((spanMs - seconds * 1000) * 1e6) };
}

/** @internal */
export function bytes(body: Uint8Array | string): Buffer {
  return typeof body === "string" ? Buffer.from(body, "utf8") : Buffer.from(body.buffer, body.byteOffset, body.byteLength);
}
