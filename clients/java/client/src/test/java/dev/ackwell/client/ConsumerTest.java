package dev.ackwell.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import dev.ackwell.client.FakeServer.Stream;
import dev.ackwell.v1.ConsumeRequest;
import dev.ackwell.v1.ConsumeResponse;
import dev.ackwell.v1.Deliveries;
import dev.ackwell.v1.Delivery;
import dev.ackwell.v1.ItemError;
import dev.ackwell.v1.Open;
import dev.ackwell.v1.Opened;
import dev.ackwell.v1.Revoked;
import dev.ackwell.v1.SettleFrame;
import dev.ackwell.v1.SettleResponse;
import dev.ackwell.v1.SettleResult;
import dev.ackwell.v1.SettledFrame;
import dev.ackwell.v1.Settlement;
import java.io.IOException;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Flow;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class ConsumerTest {
    private FakeServer server;
    private AckwellClient client;

    @BeforeEach
    void start() throws IOException {
        server = new FakeServer();
        client = server.client().build();
    }

    @AfterEach
    void stop() {
        client.close();
        server.close();
    }

    private static Open opened(Stream<ConsumeRequest, ConsumeResponse> stream) throws InterruptedException {
        Open open = stream.next().orElseThrow().getOpen();
        stream.tell(ConsumeResponse.newBuilder().setOpened(Opened.getDefaultInstance()).build());
        return open;
    }

    private static void deliver(Stream<ConsumeRequest, ConsumeResponse> stream, String... bodies) {
        Deliveries.Builder frame = Deliveries.newBuilder();
        for (String body : bodies) {
            ByteString bytes = ByteString.copyFromUtf8(body);
            frame.addDeliveries(Delivery.newBuilder().setReceipt(bytes).setMessage(dev.ackwell.v1.Message.newBuilder().setId(body).setBody(bytes)));
        }
        stream.tell(ConsumeResponse.newBuilder().setDeliveries(frame).build());
    }

    private static SettleFrame settle(Stream<ConsumeRequest, ConsumeResponse> stream) throws InterruptedException {
        Optional<ConsumeRequest> frame = stream.next();
        while (frame.isPresent() && !frame.get().hasSettle()) {
            frame = stream.next();
        }
        return frame.orElseThrow().getSettle();
    }

    private static void confirm(Stream<ConsumeRequest, ConsumeResponse> stream, SettleFrame settle, SettleResult result) {
        SettledFrame.Builder settled = SettledFrame.newBuilder().setSeq(settle.getSeq());
        settle.getSettlementsList().forEach(one -> settled.addResults(result));
        stream.tell(ConsumeResponse.newBuilder().setSettled(settled).build());
    }

    /** Confirms settlements until there are so many. */
    private static Map<String, Settlement> settled(Stream<ConsumeRequest, ConsumeResponse> stream, int count) throws InterruptedException {
        Map<String, Settlement> all = new HashMap<>();
        while (all.size() < count) {
            SettleFrame settle = settle(stream);
            confirm(stream, settle, SettleResult.getDefaultInstance());
            settle.getSettlementsList().forEach(one -> all.put(one.getReceipt().toStringUtf8(), one));
        }
        return all;
    }

    /** What a handler does decides what becomes of the message. */
    @Test
    void outcomeFollowsTheHandler() throws Exception {
        AtomicReference<Map<String, Settlement>> got = new AtomicReference<>();
        CountDownLatch done = new CountDownLatch(1);
        server.consume = List.of(stream -> {
            opened(stream);
            deliver(stream, "ack", "nack", "error", "reject", "retry", "release");
            got.set(settled(stream, 6));
            done.countDown();
            stream.drained();
        });
        try (Consumer consumer = client.consume("orders", delivery -> {
            switch (delivery.message().text()) {
                case "nack" -> throw new IOException("no stock");
                case "error" -> throw new StackOverflowError("too deep");
                case "reject" -> throw new RejectException("malformed");
                case "retry" -> throw new RetryException(Duration.ZERO, "busy");
                case "release" -> throw new ReleaseException();
                default -> { }
            }
        })) {
            done.await();
        }
        server.expectPlayed();
        assertTrue(got.get().get("ack").hasAck());
        assertEquals("java.io.IOException: no stock", got.get().get("nack").getNack().getReason());
        assertFalse(got.get().get("nack").getNack().hasDelay());
        assertTrue(got.get().get("error").getNack().getReason().contains("too deep"));
        assertEquals("malformed", got.get().get("reject").getReject().getReason());
        assertTrue(got.get().get("retry").getNack().hasDelay());
        assertEquals("busy", got.get().get("retry").getNack().getReason());
        assertTrue(got.get().get("release").hasRelease());
    }

    /** A stream that broke goes on with the receipts that are held, and with settlements that got no answer. */
    @Test
    void brokenStreamIsResumedWithWhatIsHeld() throws Exception {
        CountDownLatch resumed = new CountDownLatch(1);
        CountDownLatch done = new CountDownLatch(1);
        server.consume = List.of(
                stream -> {
                    opened(stream);
                    deliver(stream, "slow", "done");
                    settle(stream);
                },
                stream -> {
                    assertEquals(2, opened(stream).getHeldCount());
                    assertTrue(settled(stream, 1).get("done").hasAck());
                    resumed.countDown();
                    assertTrue(settled(stream, 1).get("slow").hasAck());
                    done.countDown();
                    stream.drained();
                });
        try (Consumer consumer = client.consume("orders", delivery -> {
            if (delivery.message().text().equals("slow")) {
                resumed.await();
            }
        })) {
            done.await();
        }
        server.expectPlayed();
    }

    /** A settlement that cannot be stored now is repeated, not lost. */
    @Test
    void temporaryRefusalOfASettlementIsRepeated() throws Exception {
        CountDownLatch done = new CountDownLatch(1);
        server.consume = List.of(stream -> {
            opened(stream);
            deliver(stream, "a");
            ItemError busy = ItemError.newBuilder().setReason("STORAGE_UNAVAILABLE").build();
            confirm(stream, settle(stream), SettleResult.newBuilder().setError(busy).build());
            assertTrue(settled(stream, 1).get("a").hasAck());
            done.countDown();
            stream.drained();
        });
        try (Consumer consumer = client.consume("orders", delivery -> { })) {
            done.await();
        }
        server.expectPlayed();
    }

    /** A handler whose message is somebody else's now is interrupted, and its result is not sent. */
    @Test
    void revokedDeliveryInterruptsTheHandler() throws Exception {
        CountDownLatch begun = new CountDownLatch(1);
        CountDownLatch interrupted = new CountDownLatch(1);
        CountDownLatch done = new CountDownLatch(1);
        server.consume = List.of(stream -> {
            opened(stream);
            deliver(stream, "a");
            begun.await();
            Revoked revoked = Revoked.newBuilder().addReceipts(ByteString.copyFromUtf8("a")).build();
            stream.tell(ConsumeResponse.newBuilder().setRevoked(revoked).build());
            interrupted.await();
            deliver(stream, "next");
            assertEquals(List.of("next"), List.copyOf(settled(stream, 1).keySet()));
            done.countDown();
            stream.drained();
        });
        try (Consumer consumer = client.consume("orders", delivery -> {
            if (delivery.message().text().equals("next")) {
                return;
            }
            begun.countDown();
            try {
                new CountDownLatch(1).await();
            } catch (InterruptedException stopped) {
                interrupted.countDown();
            }
        })) {
            done.await();
        }
        server.expectPlayed();
    }

    /** A stopping consumer drains: what runs may end, what was not begun is released, and the stream is closed after that. */
    @Test
    void stopFinishesWhatRunsAndReleasesTheRest() throws Exception {
        CountDownLatch begun = new CountDownLatch(1);
        CountDownLatch finish = new CountDownLatch(1);
        server.consume = List.of(stream -> {
            opened(stream);
            deliver(stream, "running", "waiting");
            assertTrue(stream.next().orElseThrow().hasDrain());
            assertTrue(settled(stream, 1).get("waiting").hasRelease());
            finish.countDown();
            assertTrue(settled(stream, 1).get("running").hasAck());
            stream.drained();
        });
        Consumer consumer = client.consume("orders", delivery -> {
            begun.countDown();
            finish.await();
        }, ConsumerOptions.DEFAULT.withConcurrency(1));
        begun.await();
        consumer.close();
        consumer.join();
        server.expectPlayed();
    }

    /** When the grace is over handlers are interrupted, and what fails by that is released without blame. */
    @Test
    void stopThatTakesTooLongReleases() throws Exception {
        CountDownLatch begun = new CountDownLatch(1);
        server.consume = List.of(stream -> {
            opened(stream);
            deliver(stream, "endless");
            assertTrue(settled(stream, 1).get("endless").hasRelease());
            stream.drained();
        });
        Consumer consumer = client.consume("orders", delivery -> {
            begun.countDown();
            new CountDownLatch(1).await();
        });
        begun.await();
        consumer.stop(Duration.ofMillis(1));
        consumer.join();
        server.expectPlayed();
    }

    /** A queue that does not exist is an error, not an endless repetition. */
    @Test
    void permanentRefusalEndsTheConsumer() {
        server.consume = List.of(stream -> {
            throw FakeServer.refusal(Reason.QUEUE_NOT_FOUND, null);
        });
        try (Consumer consumer = client.consume("nope", delivery -> { })) {
            AckwellException refusal = assertThrows(AckwellException.class, consumer::join);
            assertTrue(refusal.is(Reason.QUEUE_NOT_FOUND));
        }
    }

    /** No more handlers run at once than were asked for, and the window says so to the other side. */
    @Test
    void concurrencyIsBounded() throws Exception {
        Semaphore running = new Semaphore(0);
        CountDownLatch finish = new CountDownLatch(1);
        CountDownLatch done = new CountDownLatch(1);
        server.consume = List.of(stream -> {
            Open open = opened(stream);
            assertEquals(4, open.getWindow().getMaxMessages());
            assertEquals("test", open.getConsumer());
            deliver(stream, "a", "b", "c", "d");
            running.acquire(2);
            assertEquals(0, running.availablePermits());
            finish.countDown();
            settled(stream, 4);
            done.countDown();
            stream.drained();
        });
        try (Consumer consumer = client.consume("orders", delivery -> {
            running.release();
            finish.await();
        }, ConsumerOptions.DEFAULT.withConcurrency(2).withPrefetch(2))) {
            done.await();
        }
        server.expectPlayed();
    }

    /** A message that its handler settled itself is left alone. */
    @Test
    void handlerMaySettleItself() throws Exception {
        CountDownLatch handled = new CountDownLatch(1);
        server.settle = request -> SettleResponse.newBuilder().addResults(SettleResult.getDefaultInstance()).build();
        server.consume = List.of(stream -> {
            opened(stream);
            deliver(stream, "a");
            for (Optional<ConsumeRequest> frame = stream.next(); frame.isPresent(); frame = stream.next()) {
                assertFalse(frame.get().hasSettle(), "settled twice");
            }
        });
        try (Consumer consumer = client.consume("orders", delivery -> {
            delivery.reject("malformed");
            handled.countDown();
        })) {
            handled.await();
        }
        server.expectPlayed();
    }

    /** A closed client ends its consumers, rather than leaving them to try for ever, and its threads. */
    @Test
    void closedClientEndsConsumersAndThreads() throws Exception {
        CountDownLatch begun = new CountDownLatch(1);
        server.consume = List.of(stream -> {
            opened(stream);
            begun.countDown();
            stream.drained();
        });
        Consumer consumer = client.consume("orders", delivery -> { });
        begun.await();
        client.close();
        assertThrows(AckwellException.class, consumer::join);
        for (Thread thread : Thread.getAllStackTraces().keySet()) {
            if (thread.getName().startsWith("ackwell")) {
                thread.join(FakeServer.SOON.toMillis());
                assertFalse(thread.isAlive(), thread.getName());
            }
        }
    }

    /** A subscriber gets no more than it requests, and settles when it likes; what it has not settled goes back at the end. */
    @Test
    void subscriberGetsWhatItRequests() throws Exception {
        BlockingQueue<dev.ackwell.client.Delivery> got = new LinkedBlockingQueue<>();
        AtomicReference<Flow.Subscription> subscription = new AtomicReference<>();
        CountDownLatch subscribed = new CountDownLatch(1);
        CountDownLatch released = new CountDownLatch(1);
        server.settle = request -> SettleResponse.newBuilder().addResults(SettleResult.getDefaultInstance()).build();
        server.consume = List.of(stream -> {
            opened(stream);
            deliver(stream, "a", "b", "c");
            Map<String, Settlement> last = settled(stream, 2);
            assertTrue(last.get("b").hasRelease());
            assertTrue(last.get("c").hasRelease());
            released.countDown();
            stream.drained();
        });
        client.publisher("orders", ConsumerOptions.DEFAULT.withGrace(Duration.ofMillis(1))).subscribe(new Flow.Subscriber<>() {
            @Override
            public void onSubscribe(Flow.Subscription begun) {
                subscription.set(begun);
                subscribed.countDown();
            }

            @Override
            public void onNext(dev.ackwell.client.Delivery delivery) {
                got.add(delivery);
            }

            @Override
            public void onError(Throwable failure) { }

            @Override
            public void onComplete() { }
        });
        subscribed.await();
        subscription.get().request(1);
        dev.ackwell.client.Delivery first = got.take();
        assertEquals("a", first.message().text());
        first.ack();
        subscription.get().request(1);
        assertEquals("b", got.take().message().text());
        assertTrue(got.isEmpty());
        subscription.get().cancel();
        released.await();
        server.expectPlayed();
    }
}
