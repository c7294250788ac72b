package dev.ackwell.conformance;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import dev.ackwell.client.AckwellClient;
import dev.ackwell.client.AckwellException;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.locks.ReentrantLock;
import java.util.stream.Collectors;

/** The driver of the Java client for {@code tests/conformance}, whose README says what each command does. */
public final class Main {
    /** How long threads that were told to end may need for it. */
    private static final Duration LEAKS_AFTER = Duration.ofSeconds(5);
    private static final Duration WARM_UP = Duration.ofSeconds(5);
    /** Of the library, and of the gRPC below it. */
    private static final List<String> LIBRARY_THREADS = List.of("ackwell", "grpc");

    private final PrintStream out = System.out;
    private final ReentrantLock output = new ReentrantLock();
    private final ExecutorService commands = Executors.newCachedThreadPool();
    private final Map<Long, Call> calls = new ConcurrentHashMap<>();
    private final ReentrantLock closing = new ReentrantLock();
    private boolean isClosed;
    private volatile AckwellClient client = AckwellClient.create();
    private Streams streams = new Streams(this);

    /** A command that runs, and how to end it. */
    private static final class Call {
        private final ReentrantLock lock = new ReentrantLock();
        private Thread thread;
        private boolean isCancelled;

        void begin() {
            lock.lock();
            thread = Thread.currentThread();
            if (isCancelled) {
                thread.interrupt();
            }
            lock.unlock();
        }

        void end() {
            lock.lock();
            thread = null;
            Thread.interrupted();
            lock.unlock();
        }

        void cancel() {
            lock.lock();
            isCancelled = true;
            if (thread != null) {
                thread.interrupt();
            }
            lock.unlock();
        }
    }

    public static void main(String[] args) throws IOException {
        Main driver = new Main();
        Runtime.getRuntime().addShutdownHook(new Thread(driver::terminate));
        driver.warmUp();
        driver.say(Json.event("ready", "protocol", 1));
        driver.serve();
        driver.close();
        Runtime.getRuntime().halt(0);
    }

    /** Scenarios have limits of time; loading the classes of gRPC and connecting takes a JVM longer than some. */
    private void warmUp() {
        try {
            client.withTimeout(WARM_UP).stats("warm-up");
        } catch (AckwellException refusal) {
            // There is no such queue, and perhaps nobody who could say so.
            return;
        }
    }

    /** SIGTERM. The exit code would be 143. */
    private void terminate() {
        close();
        Runtime.getRuntime().halt(0);
    }

    AckwellClient client() {
        return client;
    }

    private void serve() throws IOException {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8), 1 << 20);
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            begin(JsonParser.parseString(line).getAsJsonObject());
        }
    }

    private void begin(JsonObject command) {
        switch (command.get("op").getAsString()) {
            case "close" -> commands.execute(() -> closeAndExit(command));
            case "finish" -> answer(command, streams.finish(command));
            case "cancel_call" -> {
                Call call = calls.get(command.get("call").getAsLong());
                if (call != null) {
                    call.cancel();
                }
                answer(command, new JsonObject());
            }
            case "options" -> answer(command, options(command));
            case "producer_open" -> answer(command, streams.openProducer(command));
            case "producer_send" -> streams.send(command);
            case "producer_flush" -> run(command, () -> streams.flush(command));
            case "producer_close" -> run(command, () -> streams.closeProducer(command));
            case "consume" -> answer(command, streams.consume(command));
            case "consume_stop" -> run(command, () -> streams.stopConsumer(command));
            default -> beginCall(command);
        }
    }

    /** What may wait is done beside the other commands. */
    private void run(JsonObject command, Operation operation) {
        commands.execute(() -> attempt(command, operation));
    }

    private void beginCall(JsonObject command) {
        Calls.Call operation = Calls.OF_OP.get(command.get("op").getAsString());
        if (operation == null) {
            JsonObject answer = new JsonObject();
            answer.add("id", command.get("id"));
            answer.addProperty("unsupported", true);
            say(answer);
            return;
        }
        Call call = new Call();
        calls.put(command.get("id").getAsLong(), call);
        AckwellClient used = command.has("timeout_ms") ? client.withTimeout(Json.duration(command, "timeout_ms")) : client;
        commands.execute(() -> {
            call.begin();
            attempt(command, () -> operation.run(used, command));
            call.end();
        });
    }

    private JsonObject options(JsonObject command) {
        client.close();
        client = AckwellClient.builder().retryLimit(Json.duration(command, "retry_limit_ms")).build();
        return new JsonObject();
    }

    /** Something that has an answer. */
    @FunctionalInterface
    interface Operation {
        JsonObject run() throws Exception;
    }

    private void attempt(JsonObject command, Operation operation) {
        try {
            answer(command, operation.run());
        } catch (Exception failure) {
            refuse(command, failure);
        }
    }

    void answer(JsonObject command, JsonObject ok) {
        JsonObject answer = new JsonObject();
        answer.add("id", command.get("id"));
        answer.add("ok", ok);
        say(answer);
    }

    void refuse(JsonObject command, Throwable failure) {
        JsonObject answer = new JsonObject();
        answer.add("id", command.get("id"));
        answer.add("error", Json.error(failure));
        say(answer);
    }

    void say(JsonObject line) {
        output.lock();
        try {
            out.writeBytes((Json.text(line) + "\n").getBytes(StandardCharsets.UTF_8));
            out.flush();
        } finally {
            output.unlock();
        }
    }

    private void close() {
        closing.lock();
        try {
            if (!isClosed) {
                isClosed = true;
                streams.close();
                client.close();
            }
        } finally {
            closing.unlock();
        }
    }

    private void closeAndExit(JsonObject command) {
        close();
        JsonObject ok = new JsonObject();
        ok.add("leaks", Json.GSON.toJsonTree(leaks()));
        answer(command, ok);
        Runtime.getRuntime().halt(0);
    }

    private static Set<String> leaks() {
        long end = System.nanoTime() + LEAKS_AFTER.toNanos();
        Set<String> left = libraryThreads();
        while (!left.isEmpty() && System.nanoTime() < end) {
            Thread.onSpinWait();
            left = libraryThreads();
        }
        return left;
    }

    private static Set<String> libraryThreads() {
        return Thread.getAllStackTraces().keySet().stream()
                .map(Thread::getName)
                .filter(name -> LIBRARY_THREADS.stream().anyMatch(name::startsWith))
                .collect(Collectors.toSet());
    }
}
