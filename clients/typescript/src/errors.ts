// Why a call, or one item of it, failed.

import { type ServiceError, status } from "@grpc/grpc-js";
import { ErrorInfo, RetryInfo, Status } from "./generated/ackwell/_status.js";
import type { ItemError } from "./generated/ackwell/v1/message.js";
import type { Duration } from "./generated/google/protobuf/duration.js";

const DOMAIN = "ackwell.dev";

/** The stable reasons of docs/reference/errors.md. Newer brokers may have more. */
export const Reason = {
  INVALID_ARGUMENT: "INVALID_ARGUMENT",
  MESSAGE_TOO_LARGE: "MESSAGE_TOO_LARGE",
  BATCH_TOO_LARGE: "BATCH_TOO_LARGE",
  INVALID_RECEIPT: "INVALID_RECEIPT",
  BATCH_REFUSED: "BATCH_REFUSED",
  CROSS_SHARD: "CROSS_SHARD",
  UNAUTHENTICATED: "UNAUTHENTICATED",
  PERMISSION_DENIED: "PERMISSION_DENIED",
  QUEUE_NOT_FOUND: "QUEUE_NOT_FOUND",
  MESSAGE_NOT_FOUND: "MESSAGE_NOT_FOUND",
  MESSAGE_IN_FLIGHT: "MESSAGE_IN_FLIGHT",
  RECEIPT_EXPIRED: "RECEIPT_EXPIRED",
  SETTLED_OTHERWISE: "SETTLED_OTHERWISE",
  ALREADY_SETTLED: "ALREADY_SETTLED",
  QUEUE_FULL: "QUEUE_FULL",
  BUSY: "BUSY",
  DISK_FULL: "DISK_FULL",
  STORAGE_UNAVAILABLE: "STORAGE_UNAVAILABLE",
  TOKEN_EXPIRED: "TOKEN_EXPIRED",
  SHARD_MOVED: "SHARD_MOVED",
  SHUTTING_DOWN: "SHUTTING_DOWN",
  BROKER_UNAVAILABLE: "BROKER_UNAVAILABLE",
  CORRUPT: "CORRUPT",
} as const;

/** Reasons of an item that may well succeed when it is tried again. */
export const UNAVAILABLE: ReadonlySet<string> = new Set([
  Reason.STORAGE_UNAVAILABLE,
  Reason.SHARD_MOVED,
  Reason.SHUTTING_DOWN,
  Reason.BROKER_UNAVAILABLE,
  Reason.BUSY,
]);

/** The base of everything that this package throws. */
export class AckwellError extends Error {
  override name = "AckwellError";
}

/** The client, consumer or producer was closed. */
export class ClosedError extends AckwellError {
  override name = "ClosedError";
}

/** A call, or one item of it, failed. */
export class CallError extends AckwellError {
  override name = "CallError";

  constructor(
    /** For people: what was wrong and what to do. */
    readonly detail: string,
    /** The gRPC code's name, like NOT_FOUND; empty for an item of a batch. */
    readonly code: string,
    /** Stable, for programs: one of `Reason`, or a newer one. Absent where nobody of Ackwell answered. */
    readonly reason?: string,
    /** Where trying again later can help. */
    readonly retryAfterMs?: number,
  ) {
    super(`${detail} [${reason ?? code}]`);
  }
}

/** What a failed call says. */
export function fromServiceError(error: ServiceError): CallError {
  const [reason, retryAfterMs] = details(error);
  return new CallError(error.details || error.message, status[error.code] ?? "UNKNOWN", reason, retryAfterMs);
}

/** What one item of an answer says. */
export function fromItem(error: ItemError): CallError {
  return new CallError(error.message, "", error.reason, error.retryAfter && milliseconds(error.retryAfter));
}

/** A time span of the API as a number. */
export function milliseconds(duration: Duration): number {
  return Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

function details(error: ServiceError): [string | undefined, number | undefined] {
  const [encoded] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!(encoded instanceof Buffer)) {
    return [undefined, undefined];
  }
  try {
    return read(Status.decode(encoded));
  } catch {
    // Whatever answered, it was not Ackwell.
    return [undefined, undefined];
  }
}

function read(said: Status): [string | undefined, number | undefined] {
  let reason: string | undefined;
  let retryAfterMs: number | undefined;
  for (const { typeUrl, value } of said.details) {
    const kind = typeUrl.slice(typeUrl.lastIndexOf("/") + 1);
    if (kind === "google.rpc.ErrorInfo") {
      const info = ErrorInfo.decode(value);
      reason = info.domain === DOMAIN ? info.reason : undefined;
    } else if (kind === "google.rpc.RetryInfo") {
      const { retryDelay } = RetryInfo.decode(value);
      retryAfterMs = retryDelay && milliseconds(retryDelay);
    }
  }
  return [reason, retryAfterMs];
}
