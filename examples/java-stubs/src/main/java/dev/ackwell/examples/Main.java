package dev.ackwell.examples;

import com.google.protobuf.ByteString;
import dev.ackwell.v1.Ack;
import dev.ackwell.v1.ConsumeRequest;
import dev.ackwell.v1.ConsumeResponse;
import dev.ackwell.v1.Delivery;
import dev.ackwell.v1.Drain;
import dev.ackwell.v1.Message;
import dev.ackwell.v1.Open;
import dev.ackwell.v1.QueuesGrpc;
import dev.ackwell.v1.SendRequest;
import dev.ackwell.v1.SendResponse;
import dev.ackwell.v1.SettleFrame;
import dev.ackwell.v1.Settlement;
import dev.ackwell.v1.Window;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;

/**
 * Sends a message and consumes it with nothing but the generated stubs: what the client library does without the library. Needs a
 * queue "orders" at ACKWELL_ADDRESS or 127.0.0.1:7400.
 *
 * <p>It goes without what a program that runs for long needs, and the library has: waiting for a broker that is away, resuming a
 * stream that broke with what it held, draining when it is told to stop.
 */
public final class Main {
    private static final String QUEUE = "orders";

    public static void main(String[] args) {
        String address = System.getenv().getOrDefault("ACKWELL_ADDRESS", "127.0.0.1:7400");
        ManagedChannel channel = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
        try {
            send(QueuesGrpc.newBlockingStub(channel));
            OneMessage first = new OneMessage();
            QueuesGrpc.newStub(channel).consume(first);
            first.open();
            first.ended.join();
        } finally {
            channel.shutdownNow();
        }
    }

    private static void send(QueuesGrpc.QueuesBlockingStub queues) {
        SendResponse sent = queues.send(SendRequest.newBuilder()
                .setQueue(QUEUE)
                .addMessages(Message.newBuilder().setBody(ByteString.copyFromUtf8("two discs")).setContentType("text/plain"))
                // The same call again, with the same id, stores nothing twice.
                .setRequestId(UUID.randomUUID().toString())
                .build());
        System.out.println("on disk as " + sent.getResults(0).getId());
    }

    /** Acks the first message, and ends the stream in the way that costs nobody an attempt. */
    private static final class OneMessage implements ClientResponseObserver<ConsumeRequest, ConsumeResponse> {
        final CompletableFuture<Void> ended = new CompletableFuture<>();
        private ClientCallStreamObserver<ConsumeRequest> requests;

        @Override
        public void beforeStart(ClientCallStreamObserver<ConsumeRequest> stream) {
            requests = stream;
        }

        private void open() {
            Open open = Open.newBuilder()
                    .setQueue(QUEUE)
                    .setConsumer("java-stubs")
                    .setWindow(Window.newBuilder().setMaxMessages(1))
                    .build();
            requests.onNext(ConsumeRequest.newBuilder().setOpen(open).build());
        }

        @Override
        public void onNext(ConsumeResponse frame) {
            switch (frame.getFrameCase()) {
                case DELIVERIES -> ack(frame.getDeliveries().getDeliveries(0));
                case SETTLED -> {
                    System.out.println(frame.getSettled().getResults(0).hasError() ? "not acked" : "acked");
                    requests.onCompleted();
                }
                case REVOKED -> System.out.println("revoked: " + frame.getRevoked().getReason());
                default -> { }
            }
        }

        private void ack(Delivery delivery) {
            System.out.println("received " + delivery.getMessage().getBody().toStringUtf8());
            requests.onNext(ConsumeRequest.newBuilder().setDrain(Drain.getDefaultInstance()).build());
            SettleFrame settle = SettleFrame.newBuilder()
                    .setSeq(1)
                    .addSettlements(Settlement.newBuilder().setReceipt(delivery.getReceipt()).setAck(Ack.getDefaultInstance()))
                    .build();
            requests.onNext(ConsumeRequest.newBuilder().setSettle(settle).build());
        }

        @Override
        public void onError(Throwable failure) {
            ended.completeExceptionally(failure);
        }

        @Override
        public void onCompleted() {
            ended.complete(null);
        }
    }
}
