package dev.ackwell.client;

import java.lang.System.Logger.Level;
import java.lang.reflect.InvocationTargetException;
import java.util.concurrent.Executor;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.RejectedExecutionException;

/** Runs handlers: on what the user gave, else on virtual threads, else on threads that end with the consumer. */
final class HandlerThreads implements Taker {
    private static final System.Logger LOG = System.getLogger("dev.ackwell.client");

    private final Handler handler;
    private final TracePropagator propagator;
    private final int concurrency;
    private final Executor executor;
    /** Null where the threads are the user's. */
    private final ExecutorService own;

    HandlerThreads(Handler handler, TracePropagator propagator, ConsumerOptions options) {
        this.handler = handler;
        this.propagator = propagator;
        this.concurrency = options.concurrency();
        own = options.executor() == null ? threadPerHandler() : null;
        executor = options.executor() == null ? own : options.executor();
    }

    @Override
    public boolean hasRoom(int running) {
        return running < concurrency;
    }

    @Override
    public Job.Taken take(Job job) {
        HandlerRun run = new HandlerRun(job, handler, propagator);
        try {
            executor.execute(run);
        } catch (RejectedExecutionException full) {
            LOG.log(Level.WARNING, "the executor took no handler for message " + job.delivery.id(), full);
            job.end(Settlement.release(job.delivery.receipt()));
        }
        return run;
    }

    @Override
    public void close(AckwellException failure) {
        if (own != null) {
            own.shutdown();
        }
    }

    /** Virtual threads exist from Java 21 on; this is compiled for 17. */
    private static ExecutorService threadPerHandler() {
        try {
            return (ExecutorService) Executors.class.getMethod("newVirtualThreadPerTaskExecutor").invoke(null);
        } catch (NoSuchMethodException | IllegalAccessException | InvocationTargetException | UnsupportedOperationException old) {
            return Executors.newCachedThreadPool(Connection.threads("ackwell-handler"));
        }
    }
}
