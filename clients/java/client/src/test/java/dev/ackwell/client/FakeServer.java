package dev.ackwell.client;

import com.google.protobuf.Any;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.ackwell.v1.ConsumeRequest;
import dev.ackwell.v1.ConsumeResponse;
import dev.ackwell.v1.ProduceRequest;
import dev.ackwell.v1.ProduceResponse;
import dev.ackwell.v1.QueuesGrpc.QueuesImplBase;
import dev.ackwell.v1.SendRequest;
import dev.ackwell.v1.SendResponse;
import dev.ackwell.v1.SettleRequest;
import dev.ackwell.v1.SettleResponse;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Server;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/** Answers as its functions say, and plays scripts on streams. */
final class FakeServer extends QueuesImplBase implements AutoCloseable {
    /** When everything that is waited for has long come. */
    static final Duration SOON = Duration.ofSeconds(20);

    /** What a stream does. */
    interface Script<Q, A> {
        void play(Stream<Q, A> stream) throws Exception;
    }

    /** A stream, as the server sees it. */
    static final class Stream<Q, A> implements StreamObserver<Q> {
        private final BlockingQueue<Optional<Q>> asked = new LinkedBlockingQueue<>();
        private final StreamObserver<A> answers;

        private Stream(StreamObserver<A> answers) {
            this.answers = answers;
        }

        /** The next frame; none when the client has ended its side. */
        Optional<Q> next() throws InterruptedException {
            Optional<Q> frame = asked.poll(SOON.toSeconds(), TimeUnit.SECONDS);
            if (frame == null) {
                throw new AssertionError("no frame came in time");
            }
            return frame;
        }

        void tell(A frame) {
            answers.onNext(frame);
        }

        void drained() throws InterruptedException {
            while (next().isPresent()) { }
        }

        @Override
        public void onNext(Q frame) {
            asked.add(Optional.of(frame));
        }

        @Override
        public void onError(Throwable cancelled) {
            asked.add(Optional.empty());
        }

        @Override
        public void onCompleted() {
            asked.add(Optional.empty());
        }
    }

    volatile Function<SendRequest, SendResponse> send;
    volatile Function<SettleRequest, SettleResponse> settle;
    /** One for each stream, in order; all but the last one end by an error. */
    List<Script<ConsumeRequest, ConsumeResponse>> consume = List.of();
    List<Script<ProduceRequest, ProduceResponse>> produce = List.of();

    private final ExecutorService scripts = Executors.newCachedThreadPool();
    private final List<CompletableFuture<Void>> played = new ArrayList<>();
    private final Server server;
    private int streams;

    FakeServer() throws IOException {
        server = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create()).addService(this).build().start();
    }

    AckwellClient.Builder client() {
        return AckwellClient.builder().address("127.0.0.1:" + server.getPort()).name("test");
    }

    /** Fails with what went wrong in a script. */
    void expectPlayed() throws Exception {
        for (CompletableFuture<Void> script : List.copyOf(played)) {
            try {
                script.get(SOON.toSeconds(), TimeUnit.SECONDS);
            } catch (ExecutionException failed) {
                throw new AssertionError("a script failed", failed.getCause());
            }
        }
    }

    @Override
    public void close() {
        server.shutdownNow();
        scripts.shutdownNow();
    }

    static StatusRuntimeException refusal(Reason reason, Duration retryAfter) {
        com.google.rpc.Status.Builder status = com.google.rpc.Status.newBuilder()
                .setCode(reason.code().value())
                .setMessage("what to do")
                .addDetails(Any.pack(ErrorInfo.newBuilder().setDomain("ackwell.dev").setReason(reason.name()).build()));
        if (retryAfter != null) {
            status.addDetails(Any.pack(RetryInfo.newBuilder().setRetryDelay(Wire.duration(retryAfter)).build()));
        }
        return StatusProto.toStatusRuntimeException(status.build());
    }

    static StatusRuntimeException broken() {
        return io.grpc.Status.UNAVAILABLE.withDescription("the connection broke").asRuntimeException();
    }

    static SendResponse stored(SendRequest request) {
        SendResponse.Builder answer = SendResponse.newBuilder();
        request.getMessagesList().forEach(message -> answer.addResultsBuilder().setId(message.getBody().toStringUtf8()));
        return answer.build();
    }

    @Override
    public void send(SendRequest request, StreamObserver<SendResponse> answers) {
        answer(send, request, answers);
    }

    @Override
    public void settle(SettleRequest request, StreamObserver<SettleResponse> answers) {
        answer(settle, request, answers);
    }

    private static <Q, A> void answer(Function<Q, A> function, Q request, StreamObserver<A> answers) {
        try {
            answers.onNext(function.apply(request));
            answers.onCompleted();
        } catch (StatusRuntimeException refusal) {
            answers.onError(refusal);
        }
    }

    @Override
    public StreamObserver<ConsumeRequest> consume(StreamObserver<ConsumeResponse> answers) {
        return play(consume, answers);
    }

    @Override
    public StreamObserver<ProduceRequest> produce(StreamObserver<ProduceResponse> answers) {
        return play(produce, answers);
    }

    private synchronized <Q, A> StreamObserver<Q> play(List<Script<Q, A>> all, StreamObserver<A> answers) {
        Stream<Q, A> stream = new Stream<>(answers);
        boolean isLast = streams >= all.size() - 1;
        Script<Q, A> script = all.get(Math.min(streams++, all.size() - 1));
        played.add(CompletableFuture.runAsync(() -> run(script, stream, isLast), scripts));
        return stream;
    }

    private static <Q, A> void run(Script<Q, A> script, Stream<Q, A> stream, boolean isLast) {
        try {
            script.play(stream);
        } catch (StatusRuntimeException refusal) {
            stream.answers.onError(refusal);
            return;
        } catch (Exception failure) {
            stream.answers.onError(failure);
            throw new IllegalStateException(failure);
        }
        if (isLast) {
            stream.answers.onCompleted();
        } else {
            stream.answers.onError(broken());
        }
    }
}
