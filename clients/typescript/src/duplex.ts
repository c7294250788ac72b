// One gRPC stream after the other: says what a session has to say, and hands it what comes.

import { once } from "node:events";
import type { ClientDuplexStream } from "@grpc/grpc-js";

// How long the other side may take to end a stream that we ended.
const CLOSING_MS = 5_000;

/** What is said on streams. */
export interface Talk<Request> {
  /** The first frame of a new stream. */
  open(): Request;
  /** What is to be said next, if anything is. */
  nextFrame(): Request | undefined;
  /** Nothing more will be said on this stream. */
  readonly over: boolean;
}

/** Whoever changes the talk calls `changed`. */
export class Duplex<Request, Response> {
  private stream: ClientDuplexStream<Request, Response> | undefined;
  private closing: NodeJS.Timeout | undefined;
  private readonly waiters = new Set<() => void>();

  constructor(
    private readonly connect: () => ClientDuplexStream<Request, Response>,
    private readonly talk: Talk<Request>,
  ) {}

  /** Whether there is a stream now. */
  get lives(): boolean {
    return this.stream !== undefined;
  }

  /** Lives as long as one stream: resolves when both sides ended it, rejects with a ServiceError when it broke. */
  async live(take: (response: Response) => void): Promise<void> {
    const stream = this.connect();
    this.stream = stream;
    const ended = new Promise<void>((resolve, reject) => {
      stream.on("data", take).on("error", reject).on("end", resolve);
    });
    try {
      await Promise.race([ended, this.say(stream).then(() => ended)]);
    } finally {
      this.stream = undefined;
      clearTimeout(this.closing);
      this.closing = undefined;
      // Emitted once more for what we cancel.
      stream.removeAllListeners("error").on("error", () => {});
      stream.cancel();
      this.changed();
    }
  }

  /** The other side has a few seconds to end the stream. */
  endSoon(): void {
    if (this.stream && !this.closing) {
      this.closing = setTimeout(() => this.stream?.cancel(), CLOSING_MS);
    }
  }

  /** Something changed: whoever waits looks again. */
  changed(): void {
    const waiters = [...this.waiters];
    this.waiters.clear();
    for (const wake of waiters) {
      wake();
    }
  }

  /** Waits until something holds, at most so long. */
  async until(holds: () => boolean, limitMs = Number.POSITIVE_INFINITY): Promise<boolean> {
    let over = false;
    const end = () => {
      over = true;
      this.changed();
    };
    const timer = Number.isFinite(limitMs) ? setTimeout(end, limitMs) : undefined;
    while (!holds() && !over) {
      await new Promise<void>((wake) => this.waiters.add(wake));
    }
    clearTimeout(timer);
    return holds();
  }

  private async say(stream: ClientDuplexStream<Request, Response>): Promise<void> {
    let frame: Request | undefined = this.talk.open();
    while (this.stream === stream) {
      if (frame !== undefined) {
        await written(stream, frame);
      } else if (this.talk.over) {
        this.endSoon();
        stream.end();
        return;
      } else {
        await new Promise<void>((wake) => this.waiters.add(wake));
      }
      frame = this.stream === stream ? this.talk.nextFrame() : undefined;
    }
  }
}

/** Writes a frame, and waits while the stream has enough to do. */
async function written<Request>(stream: ClientDuplexStream<Request, unknown>, frame: Request): Promise<void> {
  if (!stream.write(frame) && !stream.destroyed) {
    // A broken stream does not drain: its error ends the wait, and is told to whoever reads.
    await Promise.race([once(stream, "drain"), once(stream, "close"), once(stream, "end")]).catch(() => {});
  }
}
