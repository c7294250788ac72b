package dev.ackwell.client;

import dev.ackwell.v1.ExtendRequest;
import dev.ackwell.v1.QueueAdminGrpc.QueueAdminBlockingStub;
import dev.ackwell.v1.QueuesGrpc.QueuesBlockingStub;
import dev.ackwell.v1.ReceiveRequest;
import dev.ackwell.v1.SendRequest;
import dev.ackwell.v1.SettleRequest;
import dev.ackwell.v1.StatsRequest;
import dev.ackwell.v1.StatsResponse;
import io.grpc.Status.Code;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Flow;
import java.util.function.Function;

/**
 * A connection to a sidecar or broker. For any number of threads; one for each process is enough.
 *
 * <p>Calls wait for a broker that is away, for 30 s, and store nothing twice by that. What is refused is an
 * {@link AckwellException} with a stable {@link Reason}. An interrupt ends a call with the code {@code CANCELLED}.
 */
public final class AckwellClient implements AutoCloseable {
    private final Connection connection;
    private final Settings settings;

    record Settings(String name, Duration retryLimit, TracePropagator propagator) { }

    AckwellClient(Connection connection, Settings settings) {
        this.connection = connection;
        this.settings = settings;
    }

    /** A client of the sidecar at ACKWELL_ADDRESS, else at 127.0.0.1:7400. It connects with the first call. */
    public static AckwellClient create() {
        return builder().build();
    }

    public static Builder builder() {
        return new Builder();
    }

    /** The same connection, with calls that end, repetitions included, within {@code limit} instead of 30 s. */
    public AckwellClient withTimeout(Duration limit) {
        return new AckwellClient(connection, new Settings(settings.name, limit, settings.propagator));
    }

    /** Stores one message. It is on disk when this returns. */
    public Sent send(String queue, Message message) {
        return sendBatch(queue, List.of(outgoing(message)), false).get(0).get();
    }

    /**
     * Stores any number of messages, in as many calls as that takes, in order. One result for each; they are stored or refused one
     * by one.
     */
    public List<SendResult> sendMany(String queue, List<Message> messages) {
        List<SendResult> results = new ArrayList<>(messages.size());
        AckwellException failed = null;
        for (List<Message> batch : Batches.of(messages.stream().map(this::outgoing).toList())) {
            try {
                if (failed == null) {
                    results.addAll(sendBatch(queue, batch, false));
                    continue;
                }
            } catch (AckwellException failure) {
                if (!isOfItem(failure, batch.size())) {
                    failed = failure;
                }
                results.addAll(Collections.nCopies(batch.size(), SendResult.failed(failure)));
                continue;
            }
            results.addAll(Collections.nCopies(batch.size(), SendResult.failed(failed)));
        }
        return results;
    }

    /** Stores all of up to 1000 messages, or none: then every result has an error, {@code BATCH_REFUSED} where others were at fault. */
    public List<SendResult> sendAtomic(String queue, List<Message> messages) {
        return sendBatch(queue, messages.stream().map(this::outgoing).toList(), true);
    }

    /** A stream of messages, many of them on their way at once. It has to be closed. */
    public Producer producer(String queue) {
        return producer(queue, ProducerOptions.DEFAULT);
    }

    public Producer producer(String queue, ProducerOptions options) {
        return new Producer(this, queue, options);
    }

    /** Takes one message, waiting up to 20 s for it. */
    public List<Delivery> receive(String queue) {
        return receive(queue, ReceiveOptions.DEFAULT);
    }

    /** Takes messages as soon as there are some; none when none came in time. */
    public List<Delivery> receive(String queue, ReceiveOptions options) {
        ReceiveRequest.Builder request = ReceiveRequest.newBuilder()
                .setQueue(queue)
                .setMaxMessages(options.maxMessages())
                .setMaxBytes(options.maxBytes())
                .setWait(Wire.duration(options.maxWait()))
                .setRequestId(UUID.randomUUID().toString())
                .setConsumer(options.consumer() == null ? settings.name : options.consumer());
        if (options.ackTimeout() != null) {
            request.setAckTimeout(Wire.duration(options.ackTimeout()));
        }
        Duration limit = settings.retryLimit.equals(RETRY_LIMIT) ? RETRY_LIMIT.plus(options.maxWait()) : settings.retryLimit;
        return call(limit, stub -> stub.receive(request.build())).getDeliveriesList().stream()
                .map(delivery -> new Delivery(this, queue, delivery))
                .toList();
    }

    /** Runs a handler for the messages of a queue, up to 16 at a time, until it is closed. */
    public Consumer consume(String queue, Handler handler) {
        return consume(queue, handler, ConsumerOptions.DEFAULT);
    }

    /**
     * Runs a handler for the messages of a queue until it is closed. Messages are held as long as their handlers run, up to the
     * queue's maxProcessing. A stream that breaks is opened again, with what is held.
     */
    public Consumer consume(String queue, Handler handler, ConsumerOptions options) {
        return new Consumer(this, queue, new HandlerThreads(handler, settings.propagator, options), options).start();
    }

    /**
     * Deliveries of a queue for a subscriber, which gets as many as it requests and settles each by its methods, whenever that is.
     * At most {@code concurrency} and {@code prefetch} of the options are held at once.
     */
    public Flow.Publisher<Delivery> publisher(String queue, ConsumerOptions options) {
        return new DeliveryPublisher(this, queue, options);
    }

    /** Settles up to 1000 deliveries, each by itself; safe to repeat. One result for each. */
    public List<SettleResult> settle(String queue, List<Settlement> settlements) {
        SettleRequest request = SettleRequest.newBuilder()
                .setQueue(queue)
                .addAllSettlements(settlements.stream().map(Settlement::wire).toList())
                .build();
        var results = call(settings.retryLimit, stub -> stub.settle(request)).getResultsList();
        return oneForEach(settlements.size(), results.stream().map(SettleResult::of).toList());
    }

    /** Holds up to 1000 deliveries for {@code ackTimeout} from now; null: as long as they were granted for. */
    public List<ExtendResult> extend(String queue, List<Receipt> receipts, Duration ackTimeout) {
        ExtendRequest.Builder request = ExtendRequest.newBuilder()
                .setQueue(queue)
                .addAllReceipts(receipts.stream().map(Receipt::bytes).toList());
        if (ackTimeout != null) {
            request.setAckTimeout(Wire.duration(ackTimeout));
        }
        var results = call(settings.retryLimit, stub -> stub.extend(request.build())).getResultsList();
        return oneForEach(receipts.size(), results.stream().map(ExtendResult::of).toList());
    }

    /** Settles and sends in one step. */
    public Commit.Result commit(Commit commit) {
        var request = commit.request(this::outgoing);
        return Commit.result(call(settings.retryLimit, stub -> stub.commit(request)));
    }

    /** Counts the messages of a queue. */
    public StatsResponse stats(String queue) {
        return admin(stub -> stub.stats(StatsRequest.newBuilder().setQueue(queue).build()));
    }

    /** What people, consoles and scripts call: Peek, Get, Explain, Stats, Redrive, Purge, Cancel, Pause, on the generated stub. */
    public <T> T admin(Function<QueueAdminBlockingStub, T> call) {
        return repeat(settings.retryLimit, left -> call.apply(connection.admin(left)));
    }

    /** Ends the connection, and with it calls that are under way; consumers and producers are to be closed before. */
    @Override
    public void close() {
        connection.close();
    }

    static final Duration RETRY_LIMIT = Duration.ofSeconds(30);

    Connection connection() {
        return connection;
    }

    Settings settings() {
        return settings;
    }

    /** The message with the trace of this thread. One that it has already stays. */
    Message outgoing(Message message) {
        if (message.headers().containsKey("traceparent")) {
            return message;
        }
        Map<String, String> injected = new LinkedHashMap<>();
        settings.propagator.inject(injected);
        return message.withHeaders(injected);
    }

    private List<SendResult> sendBatch(String queue, List<Message> messages, boolean atomic) {
        SendRequest request = SendRequest.newBuilder()
                .setQueue(queue)
                .addAllMessages(messages.stream().map(Message::wire).toList())
                .setAtomic(atomic)
                .setRequestId(UUID.randomUUID().toString())
                .build();
        var results = call(settings.retryLimit, stub -> stub.send(request)).getResultsList();
        return oneForEach(messages.size(), results.stream().map(SendResult::of).toList());
    }

    private <T> T call(Duration limit, Function<QueuesBlockingStub, T> call) {
        return repeat(limit, left -> call.apply(connection.queues(left)));
    }

    private <T> T repeat(Duration limit, Function<Duration, T> call) {
        return Retries.repeat(limit, call, connection::reconnectNow);
    }

    /** Whether the failure of a call is that of its only message, so that others can still be stored. */
    private static boolean isOfItem(AckwellException failure, int items) {
        return items == 1 && !failure.reason().isEmpty() && !failure.isTemporary() && failure.code() != Code.NOT_FOUND;
    }

    private static <T> List<T> oneForEach(int expected, List<T> results) {
        if (results.size() != expected) {
            throw AckwellException.mismatch(expected, results.size());
        }
        return results;
    }

    /** Makes a client. */
    public static final class Builder {
        private String address;
        private String name = System.getenv().getOrDefault("HOSTNAME", "");
        private Duration retryLimit = RETRY_LIMIT;
        private TracePropagator propagator = TraceContext.PASS_ON;

        private Builder() { }

        /** "host:port", instead of ACKWELL_ADDRESS or 127.0.0.1:7400. */
        public Builder address(String hostAndPort) {
            address = hostAndPort;
            return this;
        }

        /** Names the consumers of this client in the histories of messages, instead of the host's name. */
        public Builder name(String consumer) {
            name = consumer;
            return this;
        }

        /**
         * Repeats calls for at most so long while the broker is away, instead of for 30 s. From two minutes on a repeated send can
         * store twice.
         */
        public Builder retryLimit(Duration limit) {
            retryLimit = limit;
            return this;
        }

        /** Carries trace context by OpenTelemetry, for example, instead of passing on what came in. */
        public Builder propagator(TracePropagator tracePropagator) {
            propagator = tracePropagator;
            return this;
        }

        public AckwellClient build() {
            String target = Address.target(address == null ? Address.fromEnvironment() : address);
            return new AckwellClient(new Connection(target), new Settings(name, retryLimit, propagator));
        }
    }
}
