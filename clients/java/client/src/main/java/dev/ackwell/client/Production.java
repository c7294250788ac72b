package dev.ackwell.client;

import dev.ackwell.client.Producer.Pending;
import dev.ackwell.client.Retries.Pauses;
import dev.ackwell.v1.ProduceBatch;
import dev.ackwell.v1.ProduceConfirm;
import dev.ackwell.v1.ProduceOpen;
import dev.ackwell.v1.ProduceRequest;
import dev.ackwell.v1.ProduceResponse;
import dev.ackwell.v1.ProduceResult;
import dev.ackwell.v1.ProduceWindow;
import io.grpc.Status.Code;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** A producer at work: batches on a stream, and on another one when that breaks. */
final class Production {
    private static final System.Logger LOG = System.getLogger("dev.ackwell.client");
    /** With more to send than these, batches become larger instead of more. */
    private static final int MAX_UNCONFIRMED_BATCHES = 8;
    private static final Duration CLOSING = Duration.ofSeconds(5);
    private static final Duration CHECK = Duration.ofSeconds(1);

    /** Messages that go together; sent again, they have the same number. */
    private record Batch(long sequence, List<Pending> messages, long bytes) { }

    private record Completion(Pending pending, SendResult result) {
        void tell() {
            if (result.error().isPresent()) {
                pending.confirmation.completeExceptionally(result.error().get());
            } else {
                pending.confirmation.complete(result.sent().get());
            }
        }
    }

    private final Producer producer;
    private final AckwellClient client;
    private final String queue;
    /** Empty until the other side gave one: it knows then that nothing was sent under it. */
    private String name = "";
    private final Mailbox mailbox;
    private final CompletableFuture<Void> ended = new CompletableFuture<>();

    // Only tasks of the mailbox touch what follows.

    /** Unconfirmed, the oldest first. */
    private final Deque<Batch> batches = new ArrayDeque<>();
    /** How many of them, the newest, the current stream has not seen. */
    private int unsent;
    private long sequence;
    private final Pauses pauses = new Pauses();
    private Duplex<ProduceRequest, ProduceResponse> stream;
    /** As granted; null while the stream is not open. */
    private ProduceWindow window;
    private boolean isLeaving;
    private boolean isPausing;
    /** Messages that were refused for now wait before they are sent again. */
    private boolean isHolding;
    private boolean isFinishing;
    private boolean isOver;
    /** When there was progress last. */
    private long heardNanos = System.nanoTime();

    Production(Producer producer, AckwellClient client, String queue) {
        this.producer = producer;
        this.client = client;
        this.queue = queue;
        this.mailbox = new Mailbox(client.connection().executor(), this::goOn);
    }

    /** There are fresh messages. */
    void wake() {
        post(() -> { });
    }

    /** No more messages come. */
    void finish() {
        post(() -> isFinishing = true);
    }

    /** Gives up what is unconfirmed. */
    void abandon() {
        post(() -> {
            isFinishing = true;
            isOver = true;
            if (stream != null) {
                stream.cancel("the producer was closed");
            }
            failBefore(Long.MAX_VALUE, AckwellException.closed("the producer"));
        });
        try {
            awaitEnd();
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    /** Waits for the end of the stream. */
    boolean awaitEnd() throws InterruptedException {
        try {
            ended.get(CLOSING.toMillis(), TimeUnit.MILLISECONDS);
            return true;
        } catch (TimeoutException | ExecutionException late) {
            return false;
        }
    }

    private void post(Runnable task) {
        try {
            mailbox.execute(task);
        } catch (RejectedExecutionException closed) {
            // Nothing runs any more that could do this beside us.
            failBefore(Long.MAX_VALUE, AckwellException.closed("the client"));
            ended.complete(null);
        }
    }

    private void after(Duration pause, Runnable task) {
        try {
            client.connection().timers().schedule(() -> post(task), pause.toNanos(), TimeUnit.NANOSECONDS);
        } catch (RejectedExecutionException closed) {
            failBefore(Long.MAX_VALUE, AckwellException.closed("the client"));
        }
    }

    /** After every event: opens a stream where one is needed, and says what there is to say. */
    private void goOn() {
        boolean hasWork = !batches.isEmpty() || producer.hasFresh();
        if (!hasWork) {
            heardNanos = System.nanoTime();
        }
        if (stream == null && hasWork && !isPausing && !isOver) {
            open();
        }
        if (stream != null && window != null) {
            say();
        }
        if (stream == null && isFinishing && (isOver || !hasWork)) {
            ended.complete(null);
        }
    }

    private void open() {
        unsent = batches.size();
        window = null;
        isLeaving = false;
        client.connection().reconnectNow();
        stream = Duplex.open(client.connection().streams()::produce, this::post, this::read, this::onEnd);
        ProduceOpen open = ProduceOpen.newBuilder().setQueue(queue).setProducer(name).setWantIds(true).build();
        stream.say(ProduceRequest.newBuilder().setOpen(open).build());
        check(stream);
    }

    /** Ends a stream that does not get on. */
    private void check(Duplex<ProduceRequest, ProduceResponse> checked) {
        if (stream != checked || isOver) {
            return;
        }
        boolean isWaiting = window == null || batches.size() > unsent;
        if (isWaiting && isStuck()) {
            stream.cancel("there is no answer to messages on their way");
        }
        after(CHECK, () -> check(checked));
    }

    private boolean isStuck() {
        return System.nanoTime() - heardNanos > client.settings().retryLimit().toNanos();
    }

    private void say() {
        if (isLeaving || isFinishing && batches.isEmpty() && !producer.hasFresh()) {
            closeWhenConfirmed();
            return;
        }
        while (unsent > 0 || fill()) {
            Batch next = firstUnsent();
            if (!hasRoom(next)) {
                return;
            }
            unsent--;
            ProduceBatch.Builder batch = ProduceBatch.newBuilder().setSeq(next.sequence);
            next.messages.forEach(pending -> batch.addMessages(pending.message.wire()));
            stream.say(ProduceRequest.newBuilder().setBatch(batch).build());
        }
    }

    private void closeWhenConfirmed() {
        if (batches.size() == unsent && !stream.isClosed()) {
            stream.close();
            Duplex<ProduceRequest, ProduceResponse> closed = stream;
            after(CLOSING, () -> closed.cancel("the other side did not end the stream"));
        }
    }

    private Batch firstUnsent() {
        Iterator<Batch> newest = batches.descendingIterator();
        Batch batch = newest.next();
        for (int index = 1; index < unsent; index++) {
            batch = newest.next();
        }
        return batch;
    }

    /** Whether the window takes the batch besides what is on its way. One that is alone is always taken. */
    private boolean hasRoom(Batch next) {
        long messages = next.messages.size();
        long bytes = next.bytes;
        int onTheWay = batches.size() - unsent;
        Iterator<Batch> oldest = batches.iterator();
        for (int index = 0; index < onTheWay; index++) {
            Batch batch = oldest.next();
            messages += batch.messages.size();
            bytes += batch.bytes;
        }
        return onTheWay == 0 || messages <= Integer.toUnsignedLong(window.getMaxMessages()) && bytes <= window.getMaxBytes();
    }

    /** Makes a batch of what is fresh. */
    private boolean fill() {
        if (batches.size() >= MAX_UNCONFIRMED_BATCHES || isHolding) {
            return false;
        }
        List<Pending> messages = producer.nextBatch(Math.max(window.getMaxMessages(), 1));
        if (messages.isEmpty()) {
            return false;
        }
        batches.add(new Batch(++sequence, messages, messages.stream().mapToLong(pending -> pending.size).sum()));
        unsent++;
        return true;
    }

    private void read(ProduceResponse frame) {
        heardNanos = System.nanoTime();
        switch (frame.getFrameCase()) {
            case OPENED -> {
                name = frame.getOpened().getProducer();
                window = frame.getOpened().getWindow();
                pauses.reset();
            }
            case WINDOW -> window = frame.getWindow();
            case CONFIRM -> confirm(frame.getConfirm());
            case GO_AWAY -> isLeaving = true;
            default -> { }
        }
    }

    private void confirm(ProduceConfirm confirm) {
        Results results = new Results(confirm.getResultsList().iterator());
        List<Completion> completions = new ArrayList<>();
        List<Completion> again = new ArrayList<>();
        while (batches.size() > unsent && batches.peek().sequence <= confirm.getThroughSeq()) {
            Batch batch = batches.poll();
            for (int index = 0; index < batch.messages.size(); index++) {
                Completion one = new Completion(batch.messages.get(index), results.of(batch.sequence, index));
                boolean isForNow = one.result.error().map(AckwellException::isTemporary).orElse(false) && isYoung(one.pending);
                (isForNow ? again : completions).add(one);
            }
        }
        if (!again.isEmpty()) {
            sendAgain(again);
        }
        complete(completions);
    }

    /** The results of a confirm, in the order of its messages; those that say nothing new may be left out. */
    private static final class Results {
        private final Iterator<ProduceResult> results;
        private ProduceResult next;

        Results(Iterator<ProduceResult> results) {
            this.results = results;
            next = results.hasNext() ? results.next() : null;
        }

        SendResult of(long sequence, int index) {
            if (next == null || next.getSeq() != sequence || next.getIndex() != index) {
                return SendResult.of(dev.ackwell.v1.SendResult.getDefaultInstance());
            }
            SendResult result = SendResult.of(next.getResult());
            next = results.hasNext() ? results.next() : null;
            return result;
        }
    }

    /** Tells in a thread of its own: what hangs on a future may wait for other messages of this producer. */
    private void complete(List<Completion> completions) {
        if (completions.isEmpty()) {
            return;
        }
        producer.release(completions.size(), completions.stream().mapToLong(one -> one.pending.size).sum());
        Runnable all = () -> completions.forEach(Completion::tell);
        try {
            client.connection().executor().execute(all);
        } catch (RejectedExecutionException closed) {
            all.run();
        }
    }

    /** What is refused only for now goes into a later batch. */
    private void sendAgain(List<Completion> again) {
        producer.putBack(again.stream().map(Completion::pending).toList());
        isHolding = true;
        Duration hold = again.stream()
                .flatMap(one -> one.result.error().orElseThrow().retryAfter().stream())
                .reduce(pauses.take(), Retries::max);
        after(hold, () -> isHolding = false);
    }

    private boolean isYoung(Pending pending) {
        return System.nanoTime() - pending.takenNanos < client.settings().retryLimit().toNanos();
    }

    private void onEnd(Duplex<ProduceRequest, ProduceResponse> closed, Throwable cause) {
        stream = null;
        if (isOver || cause == null && batches.isEmpty()) {
            return;
        }
        AckwellException why = cause == null
                ? new AckwellException("", Code.UNAVAILABLE, "the other side ended the stream", null, null)
                : AckwellException.of(cause);
        if (client.connection().isClosed()) {
            failBefore(Long.MAX_VALUE, AckwellException.closed("the client"));
            return;
        }
        if (why.isPermanent()) {
            failBefore(Long.MAX_VALUE, why);
            return;
        }
        if (isStuck()) {
            failBefore(System.nanoTime() - client.settings().retryLimit().toNanos(), why);
        }
        LOG.log(Level.WARNING, "the stream to queue {0} ended, it is opened again: {1}", queue, why.getMessage());
        isPausing = true;
        after(pauses.take(), () -> isPausing = false);
    }

    /** Gives up on what was taken before a time; a batch as a whole. Long.MAX_VALUE means all. */
    private void failBefore(long nanos, AckwellException why) {
        long before = nanos == Long.MAX_VALUE ? System.nanoTime() + 1 : nanos;
        List<Pending> failed = new ArrayList<>();
        while (!batches.isEmpty() && batches.peek().messages.get(0).takenNanos - before < 0) {
            failed.addAll(batches.poll().messages);
        }
        failed.addAll(producer.freshBefore(before));
        complete(failed.stream().map(pending -> new Completion(pending, SendResult.failed(why))).toList());
    }
}
