// When a call is made again.

import { CallError, Reason } from "./errors.js";

/**
 * How long a call is repeated while the broker is unavailable. Well below the two minutes for which brokers remember request
 * ids, so that a repeated call has no second effect.
 */
export const DEFAULT_LIMIT_MS = 30_000;

// First pause; doubled up to the last, each between half and all of it, so that clients do not come back as one.
const MIN_PAUSE_MS = 50;
const MAX_PAUSE_MS = 2_000;

const PERMANENT = new Set([
  "INVALID_ARGUMENT",
  "NOT_FOUND",
  "PERMISSION_DENIED",
  "UNAUTHENTICATED",
  "UNIMPLEMENTED",
  "FAILED_PRECONDITION",
  "OUT_OF_RANGE",
]);

/** Growing, jittered pauses. */
export class Pauses {
  private nextMs = MIN_PAUSE_MS;

  next(): number {
    const pauseMs = this.nextMs * (0.5 + Math.random() / 2);
    this.nextMs = Math.min(2 * this.nextMs, MAX_PAUSE_MS);
    return pauseMs;
  }

  reset(): void {
    this.nextMs = MIN_PAUSE_MS;
  }
}

/** The attempts of one call, within a limit. */
export class Attempts {
  private readonly pauses = new Pauses();
  private readonly until: number;
  private last: CallError | undefined;

  constructor(
    limitMs: number,
    private readonly repeatable: boolean,
  ) {
    this.until = performance.now() + limitMs;
  }

  /** When the next attempt must have ended. */
  deadline(): Date {
    return new Date(Date.now() + Math.max(this.until - performance.now(), 1));
  }

  /** How long to wait before the next attempt; throws where there is none. */
  pauseAfter(error: CallError): number {
    if (!this.repeatable || !isTemporary(error)) {
      // When time runs out in an attempt, the caller learns why the earlier ones failed.
      throw error.code === "DEADLINE_EXCEEDED" && this.last ? this.last : error;
    }
    this.last = error;
    const pauseMs = Math.max(error.retryAfterMs ?? 0, this.pauses.next());
    if (pauseMs >= this.until - performance.now()) {
      throw error;
    }
    return pauseMs;
  }
}

/** Whether the same call can succeed later, without anything else being done. */
export function isTemporary(error: CallError): boolean {
  return error.code === "UNAVAILABLE" || error.reason === Reason.BUSY;
}

/** Whether opening a stream again does not help. */
export function isPermanent(error: CallError): boolean {
  return PERMANENT.has(error.code);
}
