package dev.ackwell.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.ackwell.client.FakeServer.Stream;
import dev.ackwell.v1.GoAway;
import dev.ackwell.v1.ItemError;
import dev.ackwell.v1.ProduceBatch;
import dev.ackwell.v1.ProduceConfirm;
import dev.ackwell.v1.ProduceOpen;
import dev.ackwell.v1.ProduceRequest;
import dev.ackwell.v1.ProduceResponse;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class ProducerTest {
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

    private static ProduceOpen opened(Stream<ProduceRequest, ProduceResponse> stream, int window) throws InterruptedException {
        ProduceOpen open = stream.next().orElseThrow().getOpen();
        ProduceResponse.Builder answer = ProduceResponse.newBuilder();
        answer.getOpenedBuilder().setProducer("p").getWindowBuilder().setMaxMessages(window).setMaxBytes(1 << 20);
        stream.tell(answer.build());
        return open;
    }

    private static Optional<ProduceBatch> batch(Stream<ProduceRequest, ProduceResponse> stream) throws InterruptedException {
        return stream.next().map(ProduceRequest::getBatch);
    }

    private static void confirm(
            Stream<ProduceRequest, ProduceResponse> stream, ProduceBatch batch, Function<String, ItemError> refuse) {
        ProduceConfirm.Builder confirm = ProduceConfirm.newBuilder().setThroughSeq(batch.getSeq());
        for (int index = 0; index < batch.getMessagesCount(); index++) {
            String body = batch.getMessages(index).getBody().toStringUtf8();
            var result = confirm.addResultsBuilder().setSeq(batch.getSeq()).setIndex(index).getResultBuilder().setId(body);
            ItemError error = refuse.apply(body);
            if (error != null) {
                result.setError(error);
            }
        }
        stream.tell(ProduceResponse.newBuilder().setConfirm(confirm).build());
    }

    /** Confirms all batches, until the client ends the stream. */
    private static void serve(Stream<ProduceRequest, ProduceResponse> stream, java.util.function.Consumer<ProduceBatch> seen)
            throws InterruptedException {
        for (Optional<ProduceBatch> batch = batch(stream); batch.isPresent(); batch = batch(stream)) {
            seen.accept(batch.get());
            confirm(stream, batch.get(), body -> null);
        }
    }

    private static Sent sent(CompletableFuture<Sent> confirmation) throws Exception {
        return confirmation.get(FakeServer.SOON.toSeconds(), TimeUnit.SECONDS);
    }

    private static AckwellException refusal(CompletableFuture<Sent> confirmation) {
        return (AckwellException) assertThrows(ExecutionException.class, () -> sent(confirmation)).getCause();
    }

    /** Every message is confirmed with its id, and they arrive in the order in which they were sent. */
    @Test
    void confirmsInOrder() throws Exception {
        List<String> seen = Collections.synchronizedList(new ArrayList<>());
        server.produce = List.of(stream -> {
            opened(stream, 1000);
            serve(stream, batch -> batch.getMessagesList().forEach(message -> seen.add(message.getBody().toStringUtf8())));
        });
        List<CompletableFuture<Sent>> confirmations = new ArrayList<>();
        try (Producer producer = client.producer("orders")) {
            for (int number = 0; number < 5000; number++) {
                confirmations.add(producer.send(Message.of(String.valueOf(number))));
            }
        }
        for (int number = 0; number < 5000; number++) {
            assertEquals(String.valueOf(number), sent(confirmations.get(number)).id());
            assertEquals(String.valueOf(number), seen.get(number));
        }
        server.expectPlayed();
    }

    /** One refused message is told so, and the others of its batch are stored. */
    @Test
    void tellsWhichMessageWasRefused() throws Exception {
        ItemError tooLarge = ItemError.newBuilder().setReason("MESSAGE_TOO_LARGE").build();
        server.produce = List.of(stream -> {
            opened(stream, 1000);
            for (Optional<ProduceBatch> batch = batch(stream); batch.isPresent(); batch = batch(stream)) {
                confirm(stream, batch.get(), body -> body.equals("bad") ? tooLarge : null);
            }
        });
        try (Producer producer = client.producer("orders")) {
            List<CompletableFuture<Sent>> confirmations =
                    List.of(producer.send(Message.of("a")), producer.send(Message.of("bad")), producer.send(Message.of("b")));
            assertEquals("a", sent(confirmations.get(0)).id());
            assertTrue(refusal(confirmations.get(1)).is(Reason.MESSAGE_TOO_LARGE));
            assertEquals("b", sent(confirmations.get(2)).id());
        }
    }

    /** What was not confirmed when a stream broke is sent again as it was, so that it is known as a repetition. */
    @Test
    void sendsUnconfirmedBatchesAgain() throws Exception {
        BlockingQueue<ProduceBatch> batches = new LinkedBlockingQueue<>();
        server.produce = List.of(
                stream -> {
                    assertTrue(opened(stream, 1000).getProducer().isEmpty());
                    batches.add(batch(stream).orElseThrow());
                },
                stream -> {
                    ProduceOpen again = opened(stream, 1000);
                    assertEquals("p", again.getProducer());
                    assertTrue(again.getWantIds());
                    ProduceBatch batch = batch(stream).orElseThrow();
                    assertEquals(batches.take(), batch);
                    confirm(stream, batch, body -> null);
                    serve(stream, ignored -> { });
                });
        try (Producer producer = client.producer("orders")) {
            assertEquals("a", sent(producer.send(Message.of("a"))).id());
        }
        server.expectPlayed();
    }

    /** A message that is refused only for now is sent again, in a batch of its own number. */
    @Test
    void sendsAgainWhatIsRefusedForNow() throws Exception {
        ItemError busy = ItemError.newBuilder().setReason("BUSY").build();
        server.produce = List.of(stream -> {
            opened(stream, 1000);
            ProduceBatch first = batch(stream).orElseThrow();
            confirm(stream, first, body -> busy);
            ProduceBatch second = batch(stream).orElseThrow();
            assertTrue(second.getSeq() > first.getSeq());
            confirm(stream, second, body -> null);
            serve(stream, ignored -> { });
        });
        try (Producer producer = client.producer("orders")) {
            assertEquals("a", sent(producer.send(Message.of("a"))).id());
        }
        server.expectPlayed();
    }

    /** A send waits when as much is unconfirmed as there may be, and one that gave up stores nothing. */
    @Test
    void holdsBackWhenFull() throws Exception {
        CountDownLatch release = new CountDownLatch(1);
        List<ProduceBatch> seen = Collections.synchronizedList(new ArrayList<>());
        server.produce = List.of(stream -> {
            opened(stream, 1000);
            release.await();
            serve(stream, seen::add);
        });
        try (Producer producer = client.producer("orders", ProducerOptions.DEFAULT.withMaxOutstanding(2))) {
            producer.send(Message.of("a"));
            producer.send(Message.of("b"));
            CompletableFuture.delayedExecutor(300, TimeUnit.MILLISECONDS).execute(Thread.currentThread()::interrupt);
            assertThrows(AckwellException.class, () -> producer.send(Message.of("c")));
            assertTrue(Thread.interrupted());
            release.countDown();
            producer.send(Message.of("d"));
            producer.flush();
        }
        List<String> bodies = new ArrayList<>();
        seen.forEach(batch -> batch.getMessagesList().forEach(message -> bodies.add(message.getBody().toStringUtf8())));
        assertEquals(List.of("a", "b", "d"), bodies);
    }

    /** No more is on its way than the other side takes. */
    @Test
    void keepsToTheWindow() throws Exception {
        server.produce = List.of(stream -> {
            opened(stream, 2);
            serve(stream, batch -> assertTrue(batch.getMessagesCount() <= 2));
        });
        try (Producer producer = client.producer("orders")) {
            for (int number = 0; number < 20; number++) {
                producer.send(Message.of("m"));
            }
        }
        server.expectPlayed();
    }

    /** A stopping process is left with everything confirmed, and the next stream goes on. */
    @Test
    void leavesAStoppingProcess() throws Exception {
        CountDownLatch left = new CountDownLatch(1);
        server.produce = List.of(
                stream -> {
                    opened(stream, 1000);
                    confirm(stream, batch(stream).orElseThrow(), body -> null);
                    stream.tell(ProduceResponse.newBuilder().setGoAway(GoAway.getDefaultInstance()).build());
                    serve(stream, batch -> { });
                    left.countDown();
                },
                stream -> {
                    opened(stream, 1000);
                    serve(stream, batch -> { });
                });
        try (Producer producer = client.producer("orders")) {
            assertEquals("a", sent(producer.send(Message.of("a"))).id());
            left.await();
            assertEquals("b", sent(producer.send(Message.of("b"))).id());
        }
        server.expectPlayed();
    }

    /** A queue that does not exist is told to each message, and a closed producer takes none. */
    @Test
    void unknownQueueFailsEachMessage() {
        server.produce = List.of(stream -> {
            throw FakeServer.refusal(Reason.QUEUE_NOT_FOUND, null);
        });
        Producer producer = client.producer("nope");
        assertTrue(refusal(producer.send(Message.of("a"))).is(Reason.QUEUE_NOT_FOUND));
        producer.close();
        assertThrows(IllegalStateException.class, () -> producer.send(Message.of("b")));
    }

    /** Closing waits no longer than it may; what is left is told so. */
    @Test
    void closedInHasteTellsWhatIsLeft() throws Exception {
        server.produce = List.of(Stream::drained);
        Producer producer = client.producer("orders");
        CompletableFuture<Sent> confirmation = producer.send(Message.of("a"));
        producer.close(Duration.ofMillis(1));
        assertEquals("", refusal(confirmation).reason());
    }

    /** What hangs on a confirmation may send again, and wait for room, without stopping the producer. */
    @Test
    void confirmationsMaySendAgain() throws Exception {
        server.produce = List.of(stream -> {
            opened(stream, 1000);
            serve(stream, ignored -> { });
        });
        try (Producer producer = client.producer("orders", ProducerOptions.DEFAULT.withMaxOutstanding(1))) {
            CompletableFuture<Sent> second = producer.send(Message.of("a")).thenCompose(first -> {
                producer.send(Message.of("b"));
                return producer.send(Message.of("c"));
            });
            assertEquals("c", sent(second).id());
        }
    }

    /** Messages do not wait longer than calls do for a broker that does not answer. */
    @Test
    void givesUpOnSilence() {
        server.produce = List.of(stream -> {
            opened(stream, 1000);
            stream.drained();
        });
        try (AckwellClient impatient = server.client().retryLimit(Duration.ofSeconds(1)).build();
                Producer producer = impatient.producer("orders")) {
            assertEquals("", refusal(producer.send(Message.of("a"))).reason());
        }
    }
}
