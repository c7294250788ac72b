// The producer.

import type { ServiceError } from "@grpc/grpc-js";
import { Duplex } from "./duplex.js";
import { ClosedError, fromServiceError } from "./errors.js";
import type { ProduceRequest, ProduceResponse, QueuesClient } from "./generated/ackwell/v1/queues.js";
import { type Message, toWire } from "./message.js";
import { Entry, Outbox, type Sent } from "./outbox.js";
import { isPermanent, Pauses } from "./retry.js";
import { currentTrace } from "./trace.js";

export interface ProducerOptions {
  /** Messages taken and not confirmed. Default 1000. */
  maxOutstanding?: number;
  /** Their bytes. Default 16 MiB. */
  maxOutstandingBytes?: number;
}

/** A message that was taken. */
export interface Taken {
  /** Resolves when the message is on disk; rejects with a CallError when it was refused. */
  confirmed: Promise<Sent>;
}

/**
 * Sends many messages without waiting for each.
 *
 * `send` resolves as soon as there is room: it waits only while `maxOutstanding` messages, or `maxOutstandingBytes` of them, are not
 * confirmed. Messages are stored in the order of `send`, but for those that were refused for the moment and stored later. Broken
 * connections are opened again; nothing is stored twice. `close` waits for what is outstanding.
 */
export class Producer {
  private readonly outbox: Outbox;
  private readonly duplex: Duplex<ProduceRequest, ProduceResponse>;
  private readonly timers = new Set<NodeJS.Timeout>();
  private runner: Promise<void> | undefined;
  // Those who wait for room, in their order.
  private line: Promise<unknown> = Promise.resolve();

  /** @internal */
  constructor(
    stub: QueuesClient,
    queue: string,
    options: ProducerOptions,
    limitMs: number,
    private readonly warn: (text: string) => void,
  ) {
    const { maxOutstanding = 1000, maxOutstandingBytes = 16 << 20 } = options;
    if (!(maxOutstanding >= 1 && maxOutstandingBytes >= 1)) {
      throw new RangeError("a producer needs room for at least one message");
    }
    this.outbox = new Outbox(queue, maxOutstanding, maxOutstandingBytes, limitMs);
    this.duplex = new Duplex(() => stub.produce(), this.outbox);
  }

  /** Takes a message, as soon as there is room for it. */
  async send(message: Message | Uint8Array | string): Promise<Taken> {
    const wire = toWire(message, { ...currentTrace() });
    const before = this.line;
    const taken = before.then(() => this.takeIn(wire));
    this.line = taken.catch(() => {});
    return taken;
  }

  private async takeIn(wire: ReturnType<typeof toWire>): Promise<Taken> {
    const entry = new Entry(wire);
    await this.duplex.until(() => this.outbox.closed || this.outbox.hasRoom(entry.bytes));
    if (this.outbox.closed) {
      throw new ClosedError("the producer is closed");
    }
    this.outbox.takeIn(entry);
    this.runner ??= this.run();
    this.duplex.changed();
    return { confirmed: entry.confirmed };
  }

  /** Waits until everything that was taken is confirmed or refused. */
  async flush(): Promise<void> {
    await this.duplex.until(() => this.outbox.idle);
  }

  /** Takes no more, and waits until everything that was taken is confirmed or refused. */
  async close(): Promise<void> {
    this.end();
    await this.runner;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Whether it takes no more. */
  get closed(): boolean {
    return this.outbox.closed;
  }

  /** @internal */
  end(): void {
    this.outbox.closed = true;
    this.duplex.changed();
  }

  private async run(): Promise<void> {
    const pauses = new Pauses();
    while (await this.hasWork()) {
      try {
        await this.duplex.live((response) => this.take(response, pauses));
      } catch (broken) {
        this.onBroken(broken as ServiceError);
      }
      await this.duplex.until(() => this.outbox.closed && this.outbox.idle, pauses.next());
    }
    for (const timer of this.timers) {
      clearTimeout(timer);
    }
  }

  /** False: closed, and everything is confirmed. */
  private async hasWork(): Promise<boolean> {
    await this.duplex.until(() => this.outbox.closed || !this.outbox.idle);
    return !this.outbox.idle;
  }

  private onBroken(broken: ServiceError): void {
    const error = fromServiceError(broken);
    if (!this.outbox.fail(error, isPermanent(error) ? "everything" : "when late")) {
      this.warn(`the stream to queue ${this.outbox.queue} broke, opening it again: ${error.message}`);
    }
    this.duplex.changed();
  }

  private take(response: ProduceResponse, pauses: Pauses): void {
    if (response.frame?.$case === "opened") {
      pauses.reset();
    }
    const { entries, againMs } = this.outbox.take(response);
    if (entries.length > 0) {
      const timer = setTimeout(() => {
        this.timers.delete(timer);
        this.outbox.sayAgain(entries);
        this.duplex.changed();
      }, againMs);
      this.timers.add(timer);
    }
    this.duplex.changed();
  }
}
