// Outcomes of deliveries: as settlements, and as what a handler throws.

import type { CallError } from "./errors.js";
import { fromItem } from "./errors.js";
import { Settlement, type SettleResult } from "./generated/ackwell/v1/queues.js";
import { type Delivery, duration, type State, stateFromWire } from "./message.js";

export type { Settlement } from "./generated/ackwell/v1/queues.js";

// Brokers keep the first KiB.
const MAX_REASON_BYTES = 1024;

/** What a handler throws when neither "done" nor "failed" is meant. */
export class Outcome extends Error {
  override name = "Outcome";
}

/** Failed: counts an attempt, and comes again after `afterMs`; without it, after the queue's backoff. */
export class Retry extends Outcome {
  override name = "Retry";

  constructor(
    readonly afterMs?: number,
    readonly reason = "",
  ) {
    super(reason || "retry");
  }
}

/** Never again: Dead at once, with the reason. */
export class Reject extends Outcome {
  override name = "Reject";

  constructor(readonly reason = "") {
    super(reason || "reject");
  }
}

/** Not processed: back to its place, free of charge. */
export class Release extends Outcome {
  override name = "Release";
}

/** What became of a message. */
export interface Settled {
  /** Absent when it is gone. */
  state?: State;
  nextAttemptAt?: Date;
  /** Why it was not settled. */
  error?: CallError;
}

/** Done: the message is gone. */
export function ack(delivery: Delivery | Uint8Array): Settlement {
  return settlement(delivery, { $case: "ack", ack: {} });
}

/** Failed: counts an attempt; comes again after `delayMs`, or after the queue's backoff. */
export function nack(delivery: Delivery | Uint8Array, reason = "", delayMs?: number): Settlement {
  const delay = delayMs === undefined ? undefined : duration(delayMs);
  return settlement(delivery, { $case: "nack", nack: { reason: cut(reason), delay } });
}

/** Not processed: back to its place, free of charge. */
export function release(delivery: Delivery | Uint8Array): Settlement {
  return settlement(delivery, { $case: "release", release: {} });
}

/** Never again: Dead at once. */
export function reject(delivery: Delivery | Uint8Array, reason = ""): Settlement {
  return settlement(delivery, { $case: "reject", reject: { reason: cut(reason) } });
}

/** @internal The outcome of a handler that threw this. */
export function settlementAfter(delivery: Delivery, thrown: unknown): Settlement {
  if (thrown instanceof Retry) {
    return nack(delivery, thrown.reason, thrown.afterMs);
  }
  if (thrown instanceof Reject) {
    return reject(delivery, thrown.reason);
  }
  return thrown instanceof Release ? release(delivery) : nack(delivery, String(thrown));
}

/** @internal One item of an answer. */
export function settledFromWire(result: SettleResult): Settled {
  const error = result.error && fromItem(result.error);
  return { state: stateFromWire(result.state), nextAttemptAt: result.nextAttemptAt, error };
}

function settlement(delivery: Delivery | Uint8Array, outcome: Settlement["outcome"]): Settlement {
  const receipt = delivery instanceof Uint8Array ? Buffer.from(delivery) : delivery.receipt;
  return Settlement.fromPartial({ receipt, outcome });
}

function cut(reason: string): string {
  const encoded = Buffer.from(reason, "utf8");
  // Back to where a character begins.
  let end = Math.min(encoded.length, MAX_REASON_BYTES);
  while (end < encoded.length && ((encoded[end] ?? 0) & 0xc0) === 0x80) {
    end -= 1;
  }
  return encoded.toString("utf8", 0, end);
}
