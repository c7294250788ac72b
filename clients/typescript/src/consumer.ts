// The consumer.

import { hostname } from "node:os";
import type { ServiceError } from "@grpc/grpc-js";
import { Duplex } from "./duplex.js";
import { fromServiceError } from "./errors.js";
import type { ConsumeRequest, ConsumeResponse, QueuesClient } from "./generated/ackwell/v1/queues.js";
import type { Delivery } from "./message.js";
import { ack, Outcome, settlementAfter } from "./outcome.js";
import { isPermanent, Pauses } from "./retry.js";
import { Session, type Job } from "./session.js";
import { traceOf, withTrace } from "./trace.js";

// How long handlers that were told to stop are waited for.
const STOPPING_MS = 1_000;
const DEFAULT_GRACE_MS = 25_000;

export type Handler = (delivery: Delivery) => unknown;

export interface ConsumerOptions {
  /** Handlers at a time. Default 1. */
  concurrency?: number;
  /** Messages held beside those that handlers work on. Default 0. */
  prefetch?: number;
  /** A name for this consumer in histories. Default: the host's name. */
  name?: string;
  /** How long `stop` waits for running handlers. Default 25 s. */
  graceMs?: number;
  /** Stops the consumer when it is aborted. */
  signal?: AbortSignal;
}

/**
 * Runs a handler for each message of a queue, up to `concurrency` at a time.
 *
 * A handler that returns acks; one that throws nacks, with the error's text; `Retry`, `Reject` and `Release` say otherwise. While
 * a handler runs its message is extended, up to the queue's maxProcessing; `delivery.signal` is aborted when it lost the message.
 * A broken connection is opened again; handlers do not notice.
 *
 * Stopping takes no more messages, releases those that no handler has begun, and waits for the running ones up to the grace; what
 * they hold then is released.
 */
export class Consumer {
  /** Resolves when the consumer has stopped; rejects when the queue cannot be consumed. */
  readonly done: Promise<void>;
  private readonly session: Session;
  private readonly duplex: Duplex<ConsumeRequest, ConsumeResponse>;
  private readonly waiting: Job[] = [];
  private readonly running = new Set<Promise<void>>();
  private readonly timers = new Set<NodeJS.Timeout>();
  private readonly concurrency: number;
  private graceMs: number;
  private gaveUp = false;
  private ended = false;

  /** @internal */
  constructor(
    stub: QueuesClient,
    queue: string,
    private readonly handler: Handler,
    options: ConsumerOptions,
    private readonly warn: (text: string) => void,
  ) {
    const { concurrency = 1, prefetch = 0, name = hostname(), graceMs = DEFAULT_GRACE_MS, signal } = options;
    if (!(concurrency >= 1 && prefetch >= 0)) {
      throw new RangeError("a consumer needs a concurrency of at least 1 and a prefetch of at least 0");
    }
    this.concurrency = concurrency;
    this.graceMs = graceMs;
    this.session = new Session(queue, name, concurrency + prefetch, warn);
    this.duplex = new Duplex(() => stub.consume(), this.session);
    this.done = this.run();
    // Whoever never asks is told by the warnings.
    this.done.catch(() => {});
    const stop = () => this.end();
    signal?.addEventListener("abort", stop, { once: true });
    this.done.catch(() => {}).finally(() => signal?.removeEventListener("abort", stop));
    if (signal?.aborted) {
      stop();
    }
  }

  /** Drains, and resolves when everything is settled or given back. Rejects with what ended the consumer before. */
  async stop(graceMs?: number): Promise<void> {
    this.graceMs = graceMs ?? this.graceMs;
    this.end();
    await this.done;
  }

  /** Stops on SIGTERM or SIGINT; the same as `done`. */
  async untilSignal(): Promise<void> {
    const stop = () => this.end();
    process.on("SIGTERM", stop).on("SIGINT", stop);
    try {
      await this.done;
    } finally {
      process.off("SIGTERM", stop).off("SIGINT", stop);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** Whether it has stopped. */
  get closed(): boolean {
    return this.ended;
  }

  /** @internal Begins to drain. */
  end(): void {
    if (!this.session.draining && !this.ended) {
      this.session.drain();
      this.later(this.graceMs, () => this.stopHandlers());
      this.duplex.changed();
    }
  }

  private async run(): Promise<void> {
    // Not within the constructor: whoever made us may still set things up.
    await Promise.resolve();
    try {
      await this.consumeUntilDrained();
    } finally {
      for (const timer of this.timers) {
        clearTimeout(timer);
      }
      await this.handlersEnd();
      this.ended = true;
    }
  }

  private async consumeUntilDrained(): Promise<void> {
    const pauses = new Pauses();
    while (!this.isDone()) {
      try {
        await this.duplex.live((response) => this.take(response, pauses));
      } catch (broken) {
        this.onBroken(broken as ServiceError);
      }
      if (!this.isDone()) {
        await this.duplex.until(() => this.isDone(), pauses.next());
      }
    }
  }

  private onBroken(broken: ServiceError): void {
    const error = fromServiceError(broken);
    if (isPermanent(error) && !this.gaveUp) {
      this.stopHandlers();
      throw error;
    }
    this.warn(`the stream of queue ${this.session.queue} broke, opening it again: ${error.message}`);
  }

  private isDone(): boolean {
    return (this.gaveUp && !this.duplex.lives) || (this.session.draining && this.session.idle);
  }

  private take(response: ConsumeResponse, pauses: Pauses): void {
    if (response.frame?.$case === "opened") {
      pauses.reset();
    }
    const effects = this.session.take(response);
    for (const job of effects.revoked) {
      job.delivery.revoke();
    }
    this.waiting.push(...effects.arrived);
    this.beginWaiting();
    if (effects.again.length > 0) {
      this.later(effects.againMs, () => this.session.sayAgain(effects.again));
    }
    this.duplex.changed();
  }

  private later(delayMs: number, run: () => void): void {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      run();
      this.duplex.changed();
    }, delayMs);
    this.timers.add(timer);
  }

  private beginWaiting(): void {
    while (this.running.size < this.concurrency) {
      const job = this.waiting.shift();
      if (!job) {
        return;
      }
      if (this.session.begin(job)) {
        const work = this.handle(job);
        this.running.add(work);
        void work.then(() => {
          this.running.delete(work);
          this.beginWaiting();
        });
      }
    }
  }

  private async handle(job: Job): Promise<void> {
    const { delivery } = job;
    let settlement = ack(delivery);
    try {
      await withTrace(traceOf(delivery.headers), async () => this.handler(delivery));
    } catch (thrown) {
      settlement = settlementAfter(delivery, thrown);
      if (!(thrown instanceof Outcome)) {
        this.warn(`the handler failed for message ${delivery.id}: ${thrown}`);
      }
    }
    this.session.settle(job, settlement);
    this.duplex.changed();
  }

  /** Handlers are told to stop, and what they hold is given back. */
  private stopHandlers(): void {
    const running = this.session.giveUp();
    this.gaveUp = true;
    this.duplex.endSoon();
    for (const job of running) {
      job.delivery.revoke();
    }
    this.duplex.changed();
  }

  private async handlersEnd(): Promise<void> {
    const all = Promise.all(this.running);
    if (this.gaveUp) {
      // One that ignores its signal is left behind.
      let timer: NodeJS.Timeout | undefined;
      const limit = new Promise((resolve) => {
        timer = setTimeout(resolve, STOPPING_MS);
      });
      await Promise.race([all, limit]);
      clearTimeout(timer);
    } else {
      await all;
    }
  }
}

