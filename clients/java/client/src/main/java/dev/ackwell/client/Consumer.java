package dev.ackwell.client;

import com.google.protobuf.ByteString;
import dev.ackwell.client.Retries.Pauses;
import dev.ackwell.v1.ConsumeRequest;
import dev.ackwell.v1.ConsumeResponse;
import dev.ackwell.v1.Deliveries;
import dev.ackwell.v1.Drain;
import dev.ackwell.v1.Open;
import dev.ackwell.v1.SettleFrame;
import dev.ackwell.v1.SettledFrame;
import dev.ackwell.v1.Window;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Runs a handler for the messages of a queue. Made by {@link AckwellClient#consume}; it runs from then on, until it is closed. */
public final class Consumer implements AutoCloseable {
    private static final System.Logger LOG = System.getLogger("dev.ackwell.client");
    private static final int MAX_SETTLEMENTS = 1000;
    /** With more to say, frames become larger instead of more, and each is a part of one commit. */
    private static final int MAX_UNANSWERED_FRAMES = 8;
    /** Bounds what is still to be said when handlers are told to stop, and the wait for the other side to end a stream. */
    private static final Duration CLOSING = Duration.ofSeconds(5);

    private final AckwellClient client;
    private final String queue;
    private final ConsumerOptions options;
    private final Taker taker;
    private final Mailbox mailbox;
    private final CompletableFuture<Void> completion = new CompletableFuture<>();

    // Only tasks of the mailbox touch what follows.

    /** Every delivery, by receipt, whose settlement is not confirmed. It outlives a stream that breaks. */
    private final Map<ByteString, Job> held = new LinkedHashMap<>();
    /** Deliveries for which no handler runs yet. */
    private final Deque<Job> waiting = new ArrayDeque<>();
    /** Those whose settlement has to be sent. */
    private final Deque<Job> unsaid = new ArrayDeque<>();
    /** Settlements that wait for an answer, by the number of their frame. */
    private final Map<Long, List<Job>> asked = new HashMap<>();
    private final Pauses pauses = new Pauses();
    private int running;
    private long sequence;
    private Duplex<ConsumeRequest, ConsumeResponse> stream;
    private boolean isDrained;
    private boolean isLeaving;
    private boolean isStopping;
    private boolean isOver;
    /** Why it ended, where nobody asked for it. */
    private AckwellException failure;

    Consumer(AckwellClient client, String queue, Taker taker, ConsumerOptions options) {
        this.client = client;
        this.queue = queue;
        this.taker = taker;
        this.options = options;
        this.mailbox = new Mailbox(client.connection().executor(), this::goOn);
    }

    Consumer start() {
        post(this::open);
        return this;
    }

    /** Ends when the consumer has; with an {@link AckwellException} where nobody asked for that, such as {@code QUEUE_NOT_FOUND}. */
    public CompletionStage<Void> completion() {
        return completion.minimalCompletionStage();
    }

    /** Waits until the consumer has ended. */
    public void join() {
        try {
            completion.get();
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw AckwellException.interrupted(interrupted);
        } catch (ExecutionException ended) {
            throw AckwellException.of(ended.getCause());
        }
    }

    /** {@link #stop} with the grace of its options. */
    @Override
    public void close() {
        stop(options.grace());
    }

    /**
     * Takes nothing new, and waits until what was begun is settled: running handlers have so long, then they are interrupted and
     * their messages released. What waits for a handler is released at once.
     */
    public void stop(Duration grace) {
        post(this::stopTaking);
        if (!ended(grace)) {
            post(this::hurry);
            ended(CLOSING.multipliedBy(2));
        }
    }

    private boolean ended(Duration limit) {
        try {
            completion.get(limit.toNanos(), TimeUnit.NANOSECONDS);
            return true;
        } catch (TimeoutException late) {
            return false;
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            return false;
        } catch (ExecutionException failed) {
            return true;
        }
    }

    /** {@link #stop} that does not wait. */
    void stopWithin(Duration grace) {
        post(() -> {
            stopTaking();
            after(grace, this::hurry);
        });
    }

    /** A task for the mailbox; none when the client is closed: then there is nothing left to do it on. */
    void post(Runnable task) {
        try {
            mailbox.execute(task);
        } catch (RejectedExecutionException closed) {
            completion.completeExceptionally(AckwellException.closed("the client"));
        }
    }

    private void after(Duration pause, Runnable task) {
        try {
            client.connection().timers().schedule(() -> post(task), pause.toNanos(), TimeUnit.NANOSECONDS);
        } catch (RejectedExecutionException closed) {
            abandon(AckwellException.closed("the client"));
        }
    }

    // The stream

    /** Takes along what an earlier stream left behind, and repeats settlements that got no answer. */
    private void open() {
        if (isDone()) {
            return;
        }
        isDrained = false;
        isLeaving = false;
        asked.clear();
        unsaid.clear();
        held.values().stream().filter(job -> job.settlement != null).forEach(unsaid::add);
        client.connection().reconnectNow();
        stream = Duplex.open(client.connection().streams()::consume, this::post, this::read, this::onEnd);
        Open.Builder open = Open.newBuilder()
                .setQueue(queue)
                .setConsumer(options.name() == null ? client.settings().name() : options.name())
                .setWindow(Window.newBuilder()
                        .setMaxMessages(options.concurrency() + options.prefetch())
                        .setMaxBytes(options.windowBytes()))
                .addAllHeld(held.keySet());
        stream.say(ConsumeRequest.newBuilder().setOpen(open).build());
    }

    private void read(ConsumeResponse frame) {
        switch (frame.getFrameCase()) {
            case OPENED -> pauses.reset();
            case DELIVERIES -> take(frame.getDeliveries());
            case SETTLED -> confirm(frame.getSettled());
            case REVOKED -> frame.getRevoked().getReceiptsList().forEach(this::revoke);
            case GO_AWAY -> isLeaving = true;
            default -> { }
        }
    }

    private void onEnd(Duplex<ConsumeRequest, ConsumeResponse> ended, Throwable cause) {
        boolean isAgreed = ended.isClosed();
        stream = null;
        if (isDone()) {
            return;
        }
        if (client.connection().isClosed()) {
            abandon(AckwellException.closed("the client"));
            return;
        }
        if (cause != null && !isAgreed) {
            AckwellException why = AckwellException.of(cause);
            if (why.isPermanent()) {
                abandon(why);
                return;
            }
            LOG.log(Level.WARNING, "the stream of queue {0} ended, it is opened again: {1}", queue, why.getMessage());
        }
        after(pauses.take(), this::open);
    }

    /** After every event: begins what can be begun, says what there is to say, ends when all is done. */
    private void goOn() {
        begin();
        if (stream != null) {
            say();
        }
        if (stream == null && isDone()) {
            complete();
        }
    }

    private void say() {
        if (isStopping && !isDrained) {
            isDrained = true;
            isLeaving = true;
            stream.say(ConsumeRequest.newBuilder().setDrain(Drain.getDefaultInstance()).build());
        }
        while (!unsaid.isEmpty() && asked.size() < MAX_UNANSWERED_FRAMES) {
            sayNext();
        }
        if (isLeaving && held.isEmpty() && !stream.isClosed()) {
            // What is delivered only now goes back to the queue, free of charge.
            stream.close();
            Duplex<ConsumeRequest, ConsumeResponse> closed = stream;
            after(CLOSING, () -> closed.cancel("the other side did not end the stream"));
        }
    }

    private void sayNext() {
        SettleFrame.Builder frame = SettleFrame.newBuilder().setSeq(++sequence);
        List<Job> jobs = new ArrayList<>();
        while (!unsaid.isEmpty() && jobs.size() < MAX_SETTLEMENTS) {
            Job job = unsaid.poll();
            if (!job.isGone) {
                jobs.add(job);
                frame.addSettlements(job.settlement.wire());
            }
        }
        if (!jobs.isEmpty()) {
            asked.put(sequence, jobs);
            stream.say(ConsumeRequest.newBuilder().setSettle(frame).build());
        }
    }

    // Messages

    private void take(Deliveries frame) {
        if (stream.isClosed()) {
            return;
        }
        for (dev.ackwell.v1.Delivery wire : frame.getDeliveriesList()) {
            if (held.containsKey(wire.getReceipt())) {
                continue;
            }
            Delivery delivery = new Delivery(client, queue, wire);
            Job job = new Job(delivery, (ended, how) -> post(() -> finish(ended, how)));
            held.put(wire.getReceipt(), job);
            if (isStopping) {
                settle(job, Settlement.release(delivery.receipt()));
            } else {
                waiting.add(job);
            }
        }
    }

    private void begin() {
        while (!waiting.isEmpty() && taker.hasRoom(running)) {
            Job job = waiting.poll();
            if (!job.isGone) {
                running++;
                job.taken = taker.take(job);
            }
        }
    }

    private void finish(Job job, Settlement settlement) {
        if (job.isEnded) {
            return;
        }
        job.isEnded = true;
        running--;
        if (job.isGone) {
            return;
        }
        if (job.delivery.isSettled()) {
            drop(job);
        } else {
            settle(job, settlement);
        }
    }

    private void settle(Job job, Settlement settlement) {
        job.settlement = settlement;
        unsaid.add(job);
    }

    private void drop(Job job) {
        job.isGone = true;
        held.remove(job.delivery.receipt().bytes());
    }

    /** What cannot be done now is asked for again. */
    private void confirm(SettledFrame settled) {
        List<Job> jobs = asked.remove(settled.getSeq());
        for (int index = 0; jobs != null && index < Math.min(jobs.size(), settled.getResultsCount()); index++) {
            Job job = jobs.get(index);
            AckwellException refusal = SettleResult.of(settled.getResults(index)).error().orElse(null);
            if (refusal != null && refusal.isTemporary()) {
                after(Retries.max(refusal.retryAfter().orElse(Duration.ZERO), pauses.take()), () -> unsaid.add(job));
                continue;
            }
            if (refusal != null && !job.isGone) {
                LOG.log(Level.WARNING, "message {0} was not settled: {1}", job.delivery.id(), refusal.getMessage());
            }
            drop(job);
        }
    }

    private void revoke(ByteString receipt) {
        Job job = held.get(receipt);
        if (job != null) {
            drop(job);
            job.cancel(Job.Cancellation.REVOKED);
        }
    }

    // The end

    private boolean isDone() {
        return isOver || isStopping && held.isEmpty();
    }

    private void stopTaking() {
        isStopping = true;
        waiting.forEach(job -> settle(job, Settlement.release(job.delivery.receipt())));
        waiting.clear();
    }

    private void hurry() {
        stopTaking();
        held.values().forEach(job -> job.cancel(Job.Cancellation.SHUTDOWN));
        after(CLOSING, this::giveUp);
    }

    /** What is still held is left to the broker: the end of the stream releases it. */
    private void giveUp() {
        isOver = true;
        if (stream != null) {
            stream.cancel("the consumer stops");
        }
    }

    /** Ends because of a refusal; results of handlers that run are not taken any more. */
    private void abandon(AckwellException why) {
        failure = why;
        isOver = true;
        held.values().forEach(job -> job.cancel(Job.Cancellation.SHUTDOWN));
        waiting.clear();
    }

    private void complete() {
        taker.close(failure);
        if (failure != null) {
            completion.completeExceptionally(failure);
        } else if (running > 0) {
            String text = running + " handlers did not end although they were interrupted";
            completion.completeExceptionally(new AckwellException("", io.grpc.Status.Code.DEADLINE_EXCEEDED, text, null, null));
        } else {
            completion.complete(null);
        }
    }
}
