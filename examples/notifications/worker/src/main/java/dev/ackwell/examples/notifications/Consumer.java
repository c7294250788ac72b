package dev.ackwell.examples.notifications;

import com.google.protobuf.ByteString;
import dev.ackwell.v1.ConsumeRequest;
import dev.ackwell.v1.ConsumeResponse;
import dev.ackwell.v1.Delivery;
import dev.ackwell.v1.Drain;
import dev.ackwell.v1.Open;
import dev.ackwell.v1.QueuesGrpc.QueuesStub;
import dev.ackwell.v1.SettleFrame;
import dev.ackwell.v1.SettledFrame;
import dev.ackwell.v1.Settlement;
import dev.ackwell.v1.Window;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;

/**
 * Takes notifications from the queue and settles them, over as many streams as that takes.
 *
 * <p>Only the thread in {@link #run} touches the fields; other threads put what is to be done into {@code events}.
 */
final class Consumer {
    private static final String QUEUE = "notifications";
    private static final int WINDOW = 16;
    private static final int THREADS = 4;
    private static final long SHORTEST_PAUSE_MILLIS = 100;
    private static final long LONGEST_PAUSE_MILLIS = 5_000;
    /** Failures that trying again does not change. */
    private static final Set<Status.Code> PERMANENT = Set.of(
            Status.Code.INVALID_ARGUMENT,
            Status.Code.NOT_FOUND,
            Status.Code.PERMISSION_DENIED,
            Status.Code.UNIMPLEMENTED);

    private final QueuesStub queues;
    private final Notifier notifier;
    private final ExecutorService workers = Executors.newFixedThreadPool(THREADS);
    /** Bounded by the window: frames, and one entry for each notification that is worked on. */
    private final BlockingQueue<Runnable> events = new LinkedBlockingQueue<>();
    /** Every delivery, by receipt, whose settlement is not confirmed. It outlives a stream that breaks. */
    private final Map<ByteString, Job> held = new HashMap<>();

    private StreamObserver<ConsumeRequest> requests;
    private Status end;
    private long pauseMillis = SHORTEST_PAUSE_MILLIS;
    private long sequence;
    private boolean leaving;
    private boolean closed;
    private boolean stopping;
    private volatile boolean finished;

    Consumer(QueuesStub queues, Notifier notifier) {
        this.queues = queues;
        this.notifier = notifier;
    }

    /** Consumes until {@link #stop}, and until everything held is settled. */
    void run() throws InterruptedException {
        try {
            while (!stopping || !held.isEmpty()) {
                consume();
                if (PERMANENT.contains(end.getCode())) {
                    throw end.asRuntimeException();
                }
                if (!closed) {
                    System.err.printf("stream ended, opening it again in %d ms: %s%n", pauseMillis, end.getDescription());
                    Thread.sleep(pauseMillis);
                    pauseMillis = Math.min(2 * pauseMillis, LONGEST_PAUSE_MILLIS);
                }
            }
            finished = true;
        } finally {
            workers.shutdownNow();
        }
    }

    /** Takes no more notifications, and lets {@link #run} return once those taken are settled. */
    void stop() {
        events.add(() -> {
            stopping = true;
            drain();
        });
    }

    boolean isFinished() {
        return finished;
    }

    /** Lives as long as one stream. */
    private void consume() throws InterruptedException {
        end = null;
        leaving = false;
        closed = false;
        requests = queues.consume(new Frames());
        open();
        while (end == null) {
            events.take().run();
            closeWhenDone();
        }
    }

    /** Takes along what an earlier stream left behind, and repeats settlements that got no answer. */
    private void open() {
        Open.Builder open = Open.newBuilder()
                .setQueue(QUEUE)
                .setConsumer(System.getenv().getOrDefault("HOSTNAME", "notifier"))
                .setWindow(Window.newBuilder().setMaxMessages(WINDOW))
                .addAllHeld(held.keySet());
        requests.onNext(ConsumeRequest.newBuilder().setOpen(open).build());
        held.values().stream().filter(job -> job.settlement != null).forEach(job -> settle(job.settlement));
        if (stopping) {
            drain();
        }
    }

    private void handle(ConsumeResponse response) {
        switch (response.getFrameCase()) {
            case OPENED -> pauseMillis = SHORTEST_PAUSE_MILLIS;
            case DELIVERIES -> response.getDeliveries().getDeliveriesList().forEach(this::start);
            case SETTLED -> confirm(response.getSettled());
            // Another consumer will get them: what is still being worked on is not settled here.
            case REVOKED -> held.keySet().removeAll(response.getRevoked().getReceiptsList());
            case GO_AWAY -> leaving = true;
            default -> { }
        }
    }

    private void start(Delivery delivery) {
        if (closed) {
            return;
        }
        held.put(delivery.getReceipt(), new Job());
        workers.execute(() -> {
            Settlement settlement = notifier.process(delivery);
            events.add(() -> settle(settlement));
        });
    }

    private void settle(Settlement settlement) {
        Job job = held.get(settlement.getReceipt());
        if (job == null) {
            return;
        }
        job.settlement = settlement;
        job.sequence = ++sequence;
        SettleFrame frame = SettleFrame.newBuilder().setSeq(sequence).addSettlements(settlement).build();
        requests.onNext(ConsumeRequest.newBuilder().setSettle(frame).build());
    }

    private void confirm(SettledFrame settled) {
        held.values().removeIf(job -> job.sequence == settled.getSeq());
        settled.getResultsList().stream()
                .filter(result -> result.hasError())
                .forEach(result -> System.err.println("not settled: " + result.getError().getMessage()));
    }

    private void drain() {
        leaving = true;
        requests.onNext(ConsumeRequest.newBuilder().setDrain(Drain.getDefaultInstance()).build());
    }

    /** Ends our side of the stream. What is delivered from then on goes back to the queue, free of charge. */
    private void closeWhenDone() {
        if (leaving && held.isEmpty() && !closed && end == null) {
            closed = true;
            requests.onCompleted();
        }
    }

    /** A delivery in hand. */
    private static final class Job {
        /** Null while it is worked on. */
        private Settlement settlement;
        /** Under which number the settlement was last sent; the first is 1. */
        private long sequence;
    }

    /** Hands what the stream brings to the thread in {@link #run}. */
    private final class Frames implements StreamObserver<ConsumeResponse> {
        @Override
        public void onNext(ConsumeResponse response) {
            events.add(() -> handle(response));
        }

        @Override
        public void onError(Throwable failure) {
            events.add(() -> end = Status.fromThrowable(failure));
        }

        @Override
        public void onCompleted() {
            events.add(() -> end = Status.OK);
        }
    }
}
