// What a producer has taken and not seen confirmed, over as many streams as that takes. No I/O.
//
// Rules, the same in every language's client:
//
// - The other side names the producer, and the name stays; batches keep their seq. After a broken stream what is not confirmed is said again
//   under the same seq, so that nothing is stored twice.
// - Nothing is said beyond the window of the other side.
// - A message that was refused for the moment only is said again as part of a later batch, until its time is over.

import { type CallError, fromItem, UNAVAILABLE } from "./errors.js";
import { Message as WireMessage } from "./generated/ackwell/v1/message.js";
import type {
  ProduceConfirm,
  ProduceRequest,
  ProduceResponse,
  ProduceWindow,
  SendResult,
} from "./generated/ackwell/v1/queues.js";

export const MAX_BATCH_MESSAGES = 1000;
/** Below the 4 MiB that gRPC servers accept by default; a single larger message goes alone. */
export const MAX_BATCH_BYTES = 3 << 20;
// Where a refusal has no hint of its own.
const SAY_AGAIN_MS = 500;

/** A message that is on disk. */
export interface Sent {
  /** Of the message, or of the first one with its dedupId. */
  id: string;
  /** The dedupId was known: nothing new was stored. */
  duplicate: boolean;
}

/** A message that was taken, and who waits for its confirm. */
export class Entry {
  readonly bytes: number;
  readonly confirmed: Promise<Sent>;
  readonly takenAt = performance.now();
  resolve!: (sent: Sent) => void;
  reject!: (error: CallError) => void;

  constructor(readonly message: WireMessage) {
    this.bytes = encodedBytes(message);
    this.confirmed = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    // A refusal that nobody asks about is no error of the program.
    this.confirmed.catch(() => {});
  }
}

/** Messages refused for the moment, to be given to `sayAgain` after `againMs`. */
export interface Again {
  entries: Entry[];
  againMs: number;
}

/** One producer of one queue. */
export class Outbox {
  closed = false;
  leaving = false;
  // Empty until the other side gave one: it knows then that nothing was sent under it.
  private name = "";
  private window: ProduceWindow | undefined;
  private readonly waiting: Entry[] = [];
  private readonly batches = new Map<bigint, Entry[]>();
  private unsaid: bigint[] = [];
  private readonly refused = new Set<Entry>();
  private seq = 0n;
  // All that was taken and not confirmed; and of these, what is in batches that were said.
  private messages = 0;
  private bytes = 0;
  private saidMessages = 0;
  private saidBytes = 0;

  constructor(
    readonly queue: string,
    private readonly maxMessages: number,
    private readonly maxBytes: number,
    private readonly limitMs: number,
  ) {}

  /** Everything that was taken is confirmed or refused. */
  get idle(): boolean {
    return this.messages === 0;
  }

  /** Nothing more will be said on this stream. */
  get over(): boolean {
    return (this.closed && this.idle) || (this.leaving && this.batches.size === 0);
  }

  /** Whether a message of that size may be taken now. A larger one than all room is taken alone. */
  hasRoom(bytes: number): boolean {
    return this.idle || (this.messages < this.maxMessages && this.bytes + bytes <= this.maxBytes);
  }

  /** Takes a message. */
  takeIn(entry: Entry): void {
    this.messages += 1;
    this.bytes += entry.bytes;
    this.waiting.push(entry);
  }

  /** The first frame of a new stream. */
  open(): ProduceRequest {
    this.window = undefined;
    this.leaving = false;
    this.saidMessages = this.saidBytes = 0;
    this.unsaid = [...this.batches.keys()];
    return { frame: { $case: "open", open: { queue: this.queue, producer: this.name, wantIds: true } } };
  }

  /** What is to be said next, if anything is and there is room for it. */
  nextFrame(): ProduceRequest | undefined {
    const seq = this.window && !this.leaving ? this.nextBatch(this.window) : undefined;
    if (seq === undefined) {
      return undefined;
    }
    const batch = this.batches.get(seq) ?? [];
    this.saidMessages += batch.length;
    this.saidBytes += bytesOf(batch);
    const messages = batch.map((entry) => entry.message);
    return { frame: { $case: "batch", batch: { seq, messages } } };
  }

  private nextBatch(window: ProduceWindow): bigint | undefined {
    const [again] = this.unsaid;
    if (again !== undefined) {
      const batch = this.batches.get(again) ?? [];
      // A window that got smaller than a batch still takes it alone.
      const fits = this.saidMessages === 0 || this.fits(window, batch.length, bytesOf(batch));
      return fits ? this.unsaid.shift() : undefined;
    }
    const batch = this.cut(window);
    if (batch.length === 0) {
      return undefined;
    }
    this.seq += 1n;
    this.batches.set(this.seq, batch);
    return this.seq;
  }

  private cut(window: ProduceWindow): Entry[] {
    let count = 0;
    let bytes = 0;
    for (const entry of this.waiting) {
      const tooLarge = count > 0 && bytes + entry.bytes > MAX_BATCH_BYTES;
      if (count === MAX_BATCH_MESSAGES || tooLarge || !this.fits(window, count + 1, bytes + entry.bytes)) {
        break;
      }
      count += 1;
      bytes += entry.bytes;
    }
    return this.waiting.splice(0, count);
  }

  /** Whether that many more may be on their way; one may always go alone. */
  private fits(window: ProduceWindow, messages: number, bytes: number): boolean {
    if (this.saidMessages === 0 && messages <= 1) {
      return true;
    }
    const maxBytes = Number(window.maxBytes);
    const room = this.saidMessages + messages <= window.maxMessages;
    return room && (maxBytes === 0 || this.saidBytes + bytes <= maxBytes);
  }

  /** Reads one frame of the other side. */
  take({ frame }: ProduceResponse): Again {
    switch (frame?.$case) {
      case "opened":
        this.name = frame.opened.producer;
        this.window = frame.opened.window;
        break;
      case "window":
        this.window = frame.window;
        break;
      case "confirm":
        return this.confirm(frame.confirm);
      case "goAway":
        this.leaving = true;
        break;
      default:
        break;
    }
    return { entries: [], againMs: 0 };
  }

  private confirm(confirm: ProduceConfirm): Again {
    const again: Again = { entries: [], againMs: 0 };
    const results = new Map(confirm.results.map((each) => [`${each.seq} ${each.index}`, each.result]));
    for (const [seq, batch] of this.batches) {
      if (seq > confirm.throughSeq) {
        break;
      }
      this.batches.delete(seq);
      this.saidMessages -= batch.length;
      this.saidBytes -= bytesOf(batch);
      batch.forEach((entry, index) => this.judge(entry, results.get(`${seq} ${index}`), again));
    }
    return again;
  }

  private judge(entry: Entry, result: SendResult | undefined, again: Again): void {
    const error = result?.error && fromItem(result.error);
    if (error && UNAVAILABLE.has(error.reason ?? "") && !this.isLate(entry)) {
      this.refused.add(entry);
      again.entries.push(entry);
      again.againMs = Math.max(again.againMs, error.retryAfterMs ?? SAY_AGAIN_MS);
      return;
    }
    this.forget(entry);
    if (error) {
      entry.reject(error);
    } else {
      entry.resolve({ id: result?.id ?? "", duplicate: result?.duplicate ?? false });
    }
  }

  /** Messages that could not be stored are said once more, before younger ones. */
  sayAgain(entries: Entry[]): void {
    this.waiting.unshift(...entries.filter((entry) => this.refused.delete(entry)));
  }

  /** Gives up after a broken stream: on everything, or when something is late. Whether it did. */
  fail(error: CallError, everything: "everything" | "when late"): boolean {
    const entries = [...[...this.batches.values()].flat(), ...this.refused, ...this.waiting];
    if (everything === "when late" && !entries.some((entry) => this.isLate(entry))) {
      return false;
    }
    // All: what was taken later cannot be confirmed before the oldest is.
    this.batches.clear();
    this.unsaid = [];
    this.refused.clear();
    this.waiting.length = 0;
    for (const entry of entries) {
      this.forget(entry);
      entry.reject(error);
    }
    return true;
  }

  private isLate(entry: Entry): boolean {
    return performance.now() - entry.takenAt > this.limitMs;
  }

  private forget(entry: Entry): void {
    this.messages -= 1;
    this.bytes -= entry.bytes;
  }
}

/** The length of a message on the wire, near enough: what bounds calls has room to spare. */
export function encodedBytes(message: WireMessage): number {
  const texts = Object.entries(message.headers).flat();
  return texts.reduce((sum, text) => sum + Buffer.byteLength(text) + 4, message.body.length + 512);
}

function bytesOf(batch: Entry[]): number {
  return batch.reduce((sum, entry) => sum + entry.bytes, 0);
}
