package dev.ackwell.client;

import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import io.grpc.stub.StreamObserver;
import java.util.concurrent.Executor;
import java.util.function.BiConsumer;
import java.util.function.Function;

/** A stream in both directions, whose events come through a mailbox. All methods are for tasks of that mailbox. */
final class Duplex<Q, A> implements ClientResponseObserver<Q, A> {
    private final Executor mailbox;
    private final java.util.function.Consumer<A> onFrame;
    private final BiConsumer<Duplex<Q, A>, Throwable> onEnd;
    private volatile ClientCallStreamObserver<Q> requests;
    private boolean isClosed;
    private boolean isEnded;

    private Duplex(
            Executor mailbox, java.util.function.Consumer<A> onFrame, BiConsumer<Duplex<Q, A>, Throwable> onEnd) {
        this.mailbox = mailbox;
        this.onFrame = onFrame;
        this.onEnd = onEnd;
    }

    /** Opens a stream. {@code onEnd} is told its end once, with null for one without an error. */
    static <Q, A> Duplex<Q, A> open(
            Function<StreamObserver<A>, StreamObserver<Q>> call,
            Executor mailbox,
            java.util.function.Consumer<A> onFrame,
            BiConsumer<Duplex<Q, A>, Throwable> onEnd) {
        Duplex<Q, A> duplex = new Duplex<>(mailbox, onFrame, onEnd);
        call.apply(duplex);
        return duplex;
    }

    void say(Q frame) {
        if (!isClosed && !isEnded) {
            requests.onNext(frame);
        }
    }

    /** Ends our side. */
    void close() {
        if (!isClosed && !isEnded) {
            isClosed = true;
            requests.onCompleted();
        }
    }

    boolean isClosed() {
        return isClosed;
    }

    /** Ends both sides at once: what is held on it goes back. */
    void cancel(String reason) {
        if (!isEnded) {
            isClosed = true;
            requests.cancel(reason, null);
        }
    }

    @Override
    public void beforeStart(ClientCallStreamObserver<Q> stream) {
        requests = stream;
    }

    @Override
    public void onNext(A frame) {
        mailbox.execute(() -> {
            if (!isEnded) {
                onFrame.accept(frame);
            }
        });
    }

    @Override
    public void onError(Throwable failure) {
        mailbox.execute(() -> end(failure));
    }

    @Override
    public void onCompleted() {
        mailbox.execute(() -> end(null));
    }

    private void end(Throwable failure) {
        if (!isEnded) {
            isEnded = true;
            onEnd.accept(this, failure);
        }
    }
}
