package dev.ackwell.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.ackwell.v1.SendRequest;
import io.grpc.Status.Code;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class AckwellClientTest {
    private FakeServer server;

    @BeforeEach
    void start() throws IOException {
        server = new FakeServer();
    }

    @AfterEach
    void stop() {
        server.close();
    }

    /** An address that cannot be meant is refused where it is given, not by calls that fail later. */
    @Test
    void addressNeedsHostAndPort() {
        for (String good : List.of("127.0.0.1:7400", "http://localhost:7400/", "[::1]:7400", "orders.shop.svc:7400")) {
            assertTrue(Address.target(good).startsWith("dns:///"), good);
        }
        for (String bad : List.of("", "localhost", ":7400", "localhost:", "localhost:0", "localhost:70000", "https://a:1", "a b:1", "::1:7400")) {
            assertThrows(IllegalArgumentException.class, () -> Address.target(bad), bad);
        }
    }

    /** Every documented reason is there, with the documented code. */
    @Test
    void reasonsAreThoseOfTheReference() throws IOException {
        Path reference = Path.of("../../../docs/reference/errors.md");
        Assumptions.assumeTrue(Files.exists(reference), "outside of the repository");
        Matcher row = Pattern.compile("(?m)^\\| `([A-Z_]+)` \\| `([A-Z_]+)` \\|").matcher(Files.readString(reference));
        List<String> documented = new ArrayList<>();
        while (row.find()) {
            documented.add(row.group(1));
            assertEquals(row.group(2), Reason.valueOf(row.group(1)).code().name());
        }
        assertEquals(Reason.values().length, documented.size());
    }

    /** A broker that restarts is a pause, and the repeated call is recognised by its request id. */
    @Test
    void unavailableBrokerIsWaitedFor() {
        List<String> ids = Collections.synchronizedList(new ArrayList<>());
        server.send = request -> {
            ids.add(request.getRequestId());
            return switch (ids.size()) {
                case 1 -> throw FakeServer.refusal(Reason.BROKER_UNAVAILABLE, Duration.ofMillis(1));
                case 2 -> throw FakeServer.broken();
                default -> FakeServer.stored(request);
            };
        };
        try (AckwellClient client = server.client().build()) {
            assertEquals("a", client.send("orders", Message.of("a")).id());
        }
        assertEquals(3, ids.size());
        assertEquals(1, ids.stream().distinct().count());
        assertFalse(ids.get(0).isEmpty());
    }

    /** A refusal reaches the caller with its reason and its hint, and is not repeated. */
    @Test
    void refusalHasReasonAndHint() {
        List<SendRequest> calls = new ArrayList<>();
        server.send = request -> {
            calls.add(request);
            throw FakeServer.refusal(Reason.QUEUE_FULL, Duration.ofMillis(1500));
        };
        try (AckwellClient client = server.client().build()) {
            AckwellException refusal = assertThrows(AckwellException.class, () -> client.send("orders", Message.of("a")));
            assertTrue(refusal.is(Reason.QUEUE_FULL));
            assertEquals(Optional.of(Duration.ofMillis(1500)), refusal.retryAfter());
            assertEquals(Code.RESOURCE_EXHAUSTED, refusal.code());
        }
        assertEquals(1, calls.size());
    }

    /** Who waits no longer learns why there was no answer, not only that there was none. */
    @Test
    void limitReportsTheLastReason() {
        server.send = FakeServer::stored;
        try (AckwellClient client = server.client().build()) {
            client.send("orders", Message.of("connects"));
            server.send = request -> {
                throw FakeServer.refusal(Reason.BROKER_UNAVAILABLE, null);
            };
            AckwellClient impatient = client.withTimeout(Duration.ofSeconds(2));
            AckwellException refusal = assertThrows(AckwellException.class, () -> impatient.send("orders", Message.of("a")));
            assertTrue(refusal.is(Reason.BROKER_UNAVAILABLE), refusal.getMessage());
        }
    }

    /** The same, where the last call got no answer at all. */
    @Test
    void silenceReportsTheLastReason() {
        CountDownLatch end = new CountDownLatch(1);
        AtomicInteger calls = new AtomicInteger();
        server.send = request -> switch (calls.incrementAndGet()) {
            case 1 -> FakeServer.stored(request);
            case 2 -> throw FakeServer.refusal(Reason.BROKER_UNAVAILABLE, null);
            default -> {
                await(end);
                throw FakeServer.broken();
            }
        };
        try (AckwellClient client = server.client().build()) {
            client.send("orders", Message.of("connects"));
            AckwellClient impatient = client.withTimeout(Duration.ofSeconds(2));
            AckwellException refusal = assertThrows(AckwellException.class, () -> impatient.send("orders", Message.of("a")));
            assertTrue(refusal.is(Reason.BROKER_UNAVAILABLE), refusal.getMessage());
        } finally {
            end.countDown();
        }
        assertEquals(3, calls.get());
    }

    private static void await(CountDownLatch latch) {
        try {
            latch.await();
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
    }

    /** An interrupt ends the wait before a call is repeated, and is not swallowed. */
    @Test
    void interruptEndsAPause() {
        Thread caller = Thread.currentThread();
        Executor soon = CompletableFuture.delayedExecutor(300, TimeUnit.MILLISECONDS);
        server.send = request -> {
            soon.execute(caller::interrupt);
            throw FakeServer.refusal(Reason.BROKER_UNAVAILABLE, Duration.ofSeconds(20));
        };
        try (AckwellClient client = server.client().build()) {
            AckwellException end = assertThrows(AckwellException.class, () -> client.send("orders", Message.of("a")));
            assertEquals(Code.CANCELLED, end.code());
            assertTrue(Thread.interrupted());
        }
    }

    /** An interrupt ends a call, and is not swallowed. */
    @Test
    void interruptEndsACall() throws InterruptedException {
        Thread caller = Thread.currentThread();
        server.send = request -> {
            caller.interrupt();
            throw FakeServer.refusal(Reason.BROKER_UNAVAILABLE, null);
        };
        try (AckwellClient client = server.client().build()) {
            AckwellException end = assertThrows(AckwellException.class, () -> client.send("orders", Message.of("a")));
            assertEquals(Code.CANCELLED, end.code());
            assertTrue(Thread.interrupted());
        }
    }

    /** Calls stay below the limits of brokers, and a refused message does not keep others from being stored. */
    @Test
    void manyMessagesGoInBatches() {
        List<Integer> sizes = Collections.synchronizedList(new ArrayList<>());
        server.send = request -> {
            sizes.add(request.getMessagesCount());
            if (request.getMessagesCount() == 1 && request.getMessages(0).getBody().size() > 3 << 20) {
                throw FakeServer.refusal(Reason.MESSAGE_TOO_LARGE, null);
            }
            return FakeServer.stored(request);
        };
        List<Message> messages = new ArrayList<>(Collections.nCopies(2502, Message.of("")));
        messages.set(2500, Message.of(new byte[(4 << 20) - 100]));
        try (AckwellClient client = server.client().build()) {
            List<SendResult> results = client.sendMany("orders", messages);
            for (int index = 0; index < results.size(); index++) {
                assertEquals(index == 2500, results.get(index).error().isPresent(), "message " + index);
            }
            assertEquals(2502, results.size());
        }
        assertEquals(List.of(1000, 1000, 500, 1, 1), sizes);
    }

    /** What a sender sets is what a consumer sees. */
    @Test
    void messageSurvivesTheWire() {
        Message message = Message.builder()
                .body(new byte[] {0, -1})
                .header("ключ", "значение")
                .contentType("a/b")
                .orderingKey("o")
                .fairnessKey("f")
                .priority(0)
                .dedupId("d")
                .delay(Duration.ofMillis(1500))
                .ttl(Duration.ofMinutes(1))
                .maxAttempts(3)
                .build();
        Message back = Message.received(message.wire());
        assertEquals(message.wire(), back.wire());
        assertEquals(0, back.priority().getAsInt());
        assertEquals(Optional.of(Duration.ofMillis(1500)), back.delay());
        assertEquals(Optional.of("значение"), back.header("ключ"));
    }

    /** The trace of this thread goes into what it sends, and a trace that a message has stays. */
    @Test
    void traceIsPassedOn() {
        try (AckwellClient client = server.client().build();
                TracePropagator.Scope scope = new TraceContext("00-aa-bb-01", "a=b").makeCurrent()) {
            Map<String, String> headers = client.outgoing(Message.builder().header("k", "v").build()).headers();
            assertEquals(Map.of("k", "v", "traceparent", "00-aa-bb-01", "tracestate", "a=b"), headers);
            Message own = Message.builder().header("traceparent", "mine").build();
            assertEquals(Map.of("traceparent", "mine"), client.outgoing(own).headers());
        }
        assertTrue(TraceContext.current().isEmpty());
    }

    /** An event survives being a message, and what is none is refused. */
    @Test
    void cloudEventSurvivesBeingAMessage() {
        CloudEvent event = new CloudEvent(
                "1", "/shop", "order.placed", "ключ", Instant.parse("2026-01-02T03:04:05.000006Z"),
                "application/json", "urn:x", Map.of("tenant", "a"), "{}".getBytes());
        Message message = event.toMessage();
        assertEquals(Optional.of("1.0"), message.header("ce-specversion"));
        CloudEvent back = CloudEvent.from(message);
        assertEquals(event.time(), back.time());
        assertEquals(event.subject(), back.subject());
        assertEquals(event.extensions(), back.extensions());
        assertEquals(event.dataContentType(), back.dataContentType());
        assertThrows(IllegalArgumentException.class, () -> CloudEvent.from(Message.of("")));
        assertThrows(IllegalArgumentException.class, () -> CloudEvent.of("", "s", "t", "", new byte[0]));
    }
}
