package dev.ackwell.client;

import java.lang.System.Logger.Level;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executor;
import java.util.concurrent.atomic.AtomicInteger;

/** Runs tasks one after the other, in order, on threads of an executor: whose tasks these are needs no lock. */
final class Mailbox implements Executor {
    private static final System.Logger LOG = System.getLogger("dev.ackwell.client");

    private final Executor executor;
    /** Runs after the tasks that were there, so that what they have to say goes together. */
    private final Runnable afterwards;
    private final Queue<Runnable> tasks = new ConcurrentLinkedQueue<>();
    private final AtomicInteger count = new AtomicInteger();

    Mailbox(Executor executor, Runnable afterwards) {
        this.executor = executor;
        this.afterwards = afterwards;
    }

    @Override
    public void execute(Runnable task) {
        tasks.add(task);
        if (count.getAndIncrement() == 0) {
            executor.execute(this::run);
        }
    }

    private void run() {
        int done;
        do {
            done = 0;
            for (Runnable task = tasks.poll(); task != null; task = tasks.poll()) {
                guarded(task);
                done++;
            }
            guarded(afterwards);
        } while (count.addAndGet(-done) != 0);
    }

    private static void guarded(Runnable task) {
        try {
            task.run();
        } catch (Throwable failure) {
            // Whatever it was, the tasks after it still have their turn.
            LOG.log(Level.ERROR, "a task of a stream failed", failure);
        }
    }
}
