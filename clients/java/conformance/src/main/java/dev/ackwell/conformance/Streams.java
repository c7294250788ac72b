package dev.ackwell.conformance;

import com.google.gson.JsonObject;
import dev.ackwell.client.Consumer;
import dev.ackwell.client.ConsumerOptions;
import dev.ackwell.client.Delivery;
import dev.ackwell.client.Producer;
import dev.ackwell.client.ProducerOptions;
import dev.ackwell.client.ReleaseException;
import dev.ackwell.client.RejectException;
import dev.ackwell.client.RetryException;
import dev.ackwell.client.TraceContext;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.atomic.AtomicLong;

/** Producers and consumers, by the names that the runner gave them. */
final class Streams {
    /** Longer than any scenario. */
    private static final Duration FOR_EVER = Duration.ofMinutes(10);

    /** Hands messages to the library one after the other. */
    private record Sender(Producer library, ExecutorService line) { }

    private final Main driver;
    private final Map<String, Sender> producers = new ConcurrentHashMap<>();
    private final Map<String, Consumer> consumers = new ConcurrentHashMap<>();
    private final Map<String, BlockingQueue<JsonObject>> handled = new ConcurrentHashMap<>();
    private final AtomicLong names = new AtomicLong();

    Streams(Main driver) {
        this.driver = driver;
    }

    JsonObject openProducer(JsonObject command) {
        ProducerOptions options = ProducerOptions.DEFAULT;
        if (command.has("max_outstanding")) {
            options = options.withMaxOutstanding(command.get("max_outstanding").getAsInt());
        }
        Producer library = driver.client().producer(command.get("queue").getAsString(), options);
        producers.put(command.get("producer").getAsString(), new Sender(library, Executors.newSingleThreadExecutor()));
        return new JsonObject();
    }

    void send(JsonObject command) {
        Sender sender = producer(command);
        sender.line.execute(() -> {
            try {
                var confirmation = sender.library.send(Json.message(command.getAsJsonObject("message")));
                driver.say(Json.event("accepted", "call", command.get("id").getAsLong()));
                confirmation.whenComplete((sent, failure) -> {
                    if (failure == null) {
                        driver.answer(command, Json.sent(sent));
                    } else {
                        driver.refuse(command, failure);
                    }
                });
            } catch (RuntimeException failure) {
                driver.refuse(command, failure);
            }
        });
    }

    JsonObject flush(JsonObject command) {
        producer(command).library.flush();
        return new JsonObject();
    }

    JsonObject closeProducer(JsonObject command) {
        producer(command).library.close();
        return new JsonObject();
    }

    private Sender producer(JsonObject command) {
        return producers.get(command.get("producer").getAsString());
    }

    JsonObject consume(JsonObject command) {
        String name = command.get("consumer").getAsString();
        ConsumerOptions options = ConsumerOptions.DEFAULT.withName(name).withGrace(FOR_EVER);
        if (command.has("prefetch")) {
            options = options.withPrefetch(command.get("prefetch").getAsInt());
        }
        if (command.has("concurrency")) {
            options = options.withConcurrency(command.get("concurrency").getAsInt());
        }
        Consumer consumer = driver.client().consume(command.get("queue").getAsString(), delivery -> handle(name, delivery), options);
        consumers.put(name, consumer);
        consumer.completion().whenComplete((nothing, failure) -> {
            JsonObject event = Json.event("consumer_ended", "consumer", name);
            if (failure != null) {
                event.add("error", Json.error(failure instanceof CompletionException ? failure.getCause() : failure));
            }
            driver.say(event);
        });
        return new JsonObject();
    }

    JsonObject stopConsumer(JsonObject command) {
        Consumer consumer = consumers.get(command.get("consumer").getAsString());
        consumer.stop(command.has("grace_ms") ? Json.duration(command, "grace_ms") : FOR_EVER);
        return new JsonObject();
    }

    /** Tells the runner, and does what it says. */
    private void handle(String consumer, Delivery delivery) throws Exception {
        String name = "d" + names.incrementAndGet();
        BlockingQueue<JsonObject> finish = new LinkedBlockingQueue<>();
        handled.put(name, finish);
        JsonObject event = Json.event("handle", "consumer", consumer);
        event.addProperty("delivery", name);
        event.add("message", Json.delivered(delivery));
        TraceContext.current().ifPresent(trace -> event.addProperty("traceparent", trace.traceparent()));
        driver.say(event);
        JsonObject how;
        try {
            how = finish.take();
        } catch (InterruptedException cancelled) {
            driver.say(Json.event("cancelled", "delivery", name));
            throw cancelled;
        }
        end(how);
    }

    private static void end(JsonObject how) {
        String reason = how.has("reason") ? how.get("reason").getAsString() : "";
        switch (how.get("outcome").getAsString()) {
            case "raise" -> throw new IllegalStateException(reason);
            case "retry" -> throw new RetryException(Json.duration(how, "delay_ms"), reason);
            case "reject" -> throw new RejectException(reason);
            case "release" -> throw new ReleaseException();
            default -> { }
        }
    }

    JsonObject finish(JsonObject command) {
        BlockingQueue<JsonObject> finish = handled.remove(command.get("delivery").getAsString());
        if (finish != null) {
            finish.add(command);
        }
        return new JsonObject();
    }

    /** Drains consumers, then producers. */
    void close() {
        consumers.values().parallelStream().forEach(Consumer::close);
        producers.values().forEach(sender -> {
            sender.library.close();
            sender.line.shutdown();
        });
    }
}
