package dev.ackwell.client;

import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Stores a stream of messages, many of them on their way at once. For any number of threads; what one of them sends is stored in
 * order. Made by {@link AckwellClient#producer}; it has to be closed.
 */
public final class Producer implements AutoCloseable {
    private final AckwellClient client;
    private final ProducerOptions options;
    private final Production production;
    /** Held by the one that waits for room, so that messages are taken in order. */
    private final Semaphore turn = new Semaphore(1, true);

    private final ReentrantLock lock = new ReentrantLock();
    /** Something was confirmed. */
    private final Condition changed = lock.newCondition();
    // What follows is for holders of the lock.
    /** Messages that are not in a batch yet. */
    private final Deque<Pending> fresh = new ArrayDeque<>();
    private int messages;
    private long bytes;
    private boolean isClosed;

    /** A message that is not confirmed. */
    static final class Pending {
        final Message message;
        final int size;
        final long takenNanos = System.nanoTime();
        final CompletableFuture<Sent> confirmation = new CompletableFuture<>();

        Pending(Message message) {
            this.message = message;
            this.size = message.wire().getSerializedSize();
        }
    }

    Producer(AckwellClient client, String queue, ProducerOptions options) {
        this.client = client;
        this.options = options;
        this.production = new Production(this, client, queue);
    }

    /**
     * Takes a message, to be stored soon; the future ends when it is on disk, or refused with an {@link AckwellException}. Waits while
     * as many are unconfirmed as there may be. An exception from here means that the message was not taken.
     */
    public CompletableFuture<Sent> send(Message message) {
        Pending pending = new Pending(client.outgoing(message));
        try {
            turn.acquire();
            try {
                take(pending);
            } finally {
                turn.release();
            }
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw AckwellException.interrupted(interrupted);
        }
        production.wake();
        return pending.confirmation;
    }

    private void take(Pending pending) throws InterruptedException {
        lock.lockInterruptibly();
        try {
            while (!isClosed && isFull(pending.size)) {
                changed.await();
            }
            if (isClosed) {
                throw new IllegalStateException("the producer is closed");
            }
            messages++;
            bytes += pending.size;
            fresh.add(pending);
        } finally {
            lock.unlock();
        }
    }

    private boolean isFull(int size) {
        return messages > 0 && (messages >= options.maxOutstanding() || bytes + size > options.maxOutstandingBytes());
    }

    /** Waits until all that was taken is confirmed or refused. */
    public void flush() {
        try {
            awaitIdle(Long.MAX_VALUE);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw AckwellException.interrupted(interrupted);
        }
    }

    /** Takes no more messages, and waits until all are confirmed or refused: at most as long as the client repeats calls. */
    @Override
    public void close() {
        close(Duration.ofDays(1));
    }

    /** The same, for at most so long: then what is left fails. It may be stored nevertheless. */
    public void close(Duration limit) {
        lock.lock();
        try {
            isClosed = true;
            changed.signalAll();
        } finally {
            lock.unlock();
        }
        production.finish();
        try {
            boolean isIdle = awaitIdle(limit.toNanos());
            if (!isIdle || !production.awaitEnd()) {
                production.abandon();
            }
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            production.abandon();
        }
    }

    private boolean awaitIdle(long nanos) throws InterruptedException {
        lock.lockInterruptibly();
        try {
            long left = nanos;
            while (messages > 0 && left > 0) {
                left = changed.awaitNanos(left);
            }
            return messages == 0;
        } finally {
            lock.unlock();
        }
    }

    // For the production

    boolean hasFresh() {
        lock.lock();
        try {
            return !fresh.isEmpty();
        } finally {
            lock.unlock();
        }
    }

    /** The next messages for one batch. */
    List<Pending> nextBatch(int most) {
        List<Pending> batch = new ArrayList<>();
        long size = 0;
        lock.lock();
        try {
            while (!fresh.isEmpty() && batch.size() < most && Batches.fits(batch.size(), size, fresh.peek().size)) {
                size += fresh.peek().size;
                batch.add(fresh.poll());
            }
        } finally {
            lock.unlock();
        }
        return batch;
    }

    /** Puts messages back to where they were taken from. */
    void putBack(List<Pending> again) {
        lock.lock();
        try {
            for (int index = again.size() - 1; index >= 0; index--) {
                fresh.addFirst(again.get(index));
            }
        } finally {
            lock.unlock();
        }
    }

    /** Removes the fresh ones taken before a time. */
    List<Pending> freshBefore(long nanos) {
        List<Pending> old = new ArrayList<>();
        lock.lock();
        try {
            while (!fresh.isEmpty() && fresh.peek().takenNanos - nanos < 0) {
                old.add(fresh.poll());
            }
        } finally {
            lock.unlock();
        }
        return old;
    }

    /** So many messages are confirmed or refused. */
    void release(int count, long size) {
        lock.lock();
        try {
            messages -= count;
            bytes -= size;
            changed.signalAll();
        } finally {
            lock.unlock();
        }
    }
}
