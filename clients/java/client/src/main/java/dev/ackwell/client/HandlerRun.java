package dev.ackwell.client;

import dev.ackwell.client.Job.Cancellation;
import java.lang.System.Logger.Level;
import java.util.concurrent.locks.ReentrantLock;

/** A handler at work on one delivery, in a thread that can be interrupted until it is done. */
final class HandlerRun implements Runnable, Job.Taken {
    private static final System.Logger LOG = System.getLogger("dev.ackwell.client");

    private final Job job;
    private final Handler handler;
    private final TracePropagator propagator;

    private final ReentrantLock lock = new ReentrantLock();
    private Thread thread;
    private Cancellation cancellation;

    HandlerRun(Job job, Handler handler, TracePropagator propagator) {
        this.job = job;
        this.handler = handler;
        this.propagator = propagator;
    }

    @Override
    public void run() {
        job.end(process());
    }

    private Settlement process() {
        if (!begin()) {
            return Settlement.release(job.delivery.receipt());
        }
        try (TracePropagator.Scope scope = propagator.extract(job.delivery.message().headers())) {
            handler.handle(job.delivery);
            return Settlement.ack(job.delivery.receipt());
        } catch (Throwable failure) {
            return settlementOf(failure);
        } finally {
            end();
        }
    }

    /** Interrupts the handler, if it runs. */
    @Override
    public void cancel(Cancellation why) {
        lock.lock();
        try {
            if (cancellation == null) {
                cancellation = why;
            }
            if (thread != null) {
                thread.interrupt();
            }
        } finally {
            lock.unlock();
        }
    }

    private boolean begin() {
        lock.lock();
        try {
            thread = Thread.currentThread();
            return cancellation == null;
        } finally {
            lock.unlock();
        }
    }

    /** From here on the thread is not ours: an interrupt that came for the handler must not reach who has it next. */
    private void end() {
        lock.lock();
        try {
            thread = null;
            if (cancellation != null) {
                Thread.interrupted();
            }
        } finally {
            lock.unlock();
        }
    }

    private boolean isCancelled() {
        lock.lock();
        try {
            return cancellation != null;
        } finally {
            lock.unlock();
        }
    }

    private Settlement settlementOf(Throwable failure) {
        Receipt receipt = job.delivery.receipt();
        if (failure instanceof RejectException) {
            return Settlement.reject(receipt, text(failure));
        }
        if (failure instanceof ReleaseException || isCancelled()) {
            return Settlement.release(receipt);
        }
        if (failure instanceof RetryException retry) {
            return Settlement.nack(receipt, text(failure), retry.after());
        }
        LOG.log(Level.DEBUG, "handler failed for message " + job.delivery.id(), failure);
        return Settlement.nack(receipt, text(failure));
    }

    private static String text(Throwable failure) {
        boolean isSaid = failure instanceof RejectException || failure instanceof RetryException;
        return isSaid && failure.getMessage() != null ? failure.getMessage() : failure.toString();
    }
}
