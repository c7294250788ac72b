package dev.ackwell.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import dev.ackwell.client.AckwellClient;
import dev.ackwell.client.Commit;
import dev.ackwell.client.Message;
import dev.ackwell.client.ReceiveOptions;
import dev.ackwell.client.Receipt;
import dev.ackwell.client.SendResult;
import dev.ackwell.client.TraceContext;
import dev.ackwell.client.CloudEvent;
import dev.ackwell.v1.CancelRequest;
import dev.ackwell.v1.GetRequest;
import dev.ackwell.v1.PeekRequest;
import dev.ackwell.v1.StatsResponse;
import java.time.Duration;
import java.util.List;
import java.util.Map;

/** The commands that are one call. */
final class Calls {
    /** A call, on the client that has its timeout. */
    @FunctionalInterface
    interface Call {
        JsonObject run(AckwellClient client, JsonObject command);
    }

    static final Map<String, Call> OF_OP = Map.ofEntries(
            Map.entry("send", Calls::send),
            Map.entry("send_many", Calls::sendMany),
            Map.entry("receive", Calls::receive),
            Map.entry("settle", Calls::settle),
            Map.entry("extend", Calls::extend),
            Map.entry("commit", Calls::commit),
            Map.entry("stats", Calls::stats),
            Map.entry("peek", Calls::peek),
            Map.entry("get", Calls::get),
            Map.entry("cancel", Calls::cancel),
            Map.entry("to_message", (client, command) ->
                    Json.object("message", Json.message(Json.cloudEvent(command.getAsJsonObject("cloud_event")).toMessage()))),
            Map.entry("to_cloud_event", (client, command) ->
                    Json.object("cloud_event", Json.cloudEvent(CloudEvent.from(Json.message(command.getAsJsonObject("message")))))),
            Map.entry("seal", (client, command) ->
                    Json.object("message", Json.message(Json.keyring(command).seal(queue(command), message(command))))),
            Map.entry("open", (client, command) ->
                    Json.object("message", Json.message(Json.keyring(command).open(queue(command), message(command))))));

    private Calls() { }

    private static String queue(JsonObject command) {
        return command.get("queue").getAsString();
    }

    private static Message message(JsonObject command) {
        return Json.message(command.getAsJsonObject("message"));
    }

    private static JsonObject send(AckwellClient client, JsonObject command) {
        Message message = message(command);
        if (!command.has("traceparent")) {
            return Json.sent(client.send(queue(command), message));
        }
        try (var scope = new TraceContext(command.get("traceparent").getAsString(), "").makeCurrent()) {
            return Json.sent(client.send(queue(command), message));
        }
    }

    private static JsonObject sendMany(AckwellClient client, JsonObject command) {
        List<Message> messages = Json.list(command.getAsJsonArray("messages"), one -> Json.message(one.getAsJsonObject()));
        boolean isAtomic = command.has("atomic") && command.get("atomic").getAsBoolean();
        List<SendResult> results =
                isAtomic ? client.sendAtomic(queue(command), messages) : client.sendMany(queue(command), messages);
        return Json.object("results", Json.array(results, Json::sent));
    }

    private static JsonObject receive(AckwellClient client, JsonObject command) {
        ReceiveOptions options = ReceiveOptions.DEFAULT;
        if (command.has("max_messages")) {
            options = ReceiveOptions.upTo(command.get("max_messages").getAsInt());
        }
        if (command.has("wait_ms")) {
            options = options.withWait(Json.duration(command, "wait_ms"));
        }
        if (command.has("ack_timeout_ms")) {
            options = options.withAckTimeout(Json.duration(command, "ack_timeout_ms"));
        }
        if (command.has("consumer")) {
            options = options.withConsumer(command.get("consumer").getAsString());
        }
        return Json.object("deliveries", Json.array(client.receive(queue(command), options), Json::delivery));
    }

    private static JsonObject settle(AckwellClient client, JsonObject command) {
        var results = client.settle(queue(command), Json.list(command.getAsJsonArray("settlements"), Json::settlement));
        return Json.object("results", Json.array(results, Json::settled));
    }

    private static JsonObject extend(AckwellClient client, JsonObject command) {
        List<Receipt> receipts = Json.list(command.getAsJsonArray("receipts"), one -> Receipt.of(Json.bytes(one)));
        Duration ackTimeout = command.has("ack_timeout_ms") ? Json.duration(command, "ack_timeout_ms") : null;
        return Json.object("results", Json.array(client.extend(queue(command), receipts, ackTimeout), Json::extended));
    }

    private static JsonObject commit(AckwellClient client, JsonObject command) {
        Commit commit = new Commit();
        if (command.has("request_id")) {
            commit.requestId(command.get("request_id").getAsString());
        }
        for (JsonElement one : orEmpty(command, "settle")) {
            JsonObject settle = one.getAsJsonObject();
            commit.settle(queue(settle), Json.list(settle.getAsJsonArray("settlements"), Json::settlement));
        }
        for (JsonElement one : orEmpty(command, "send")) {
            JsonObject send = one.getAsJsonObject();
            commit.send(queue(send), Json.list(send.getAsJsonArray("messages"), item -> Json.message(item.getAsJsonObject())));
        }
        Commit.Result result = client.commit(commit);
        JsonObject ok = Json.object("settled", Json.array(result.settled(), list -> Json.array(list, Json::settled)));
        ok.add("sent", Json.array(result.sent(), list -> Json.array(list, Json::sent)));
        return ok;
    }

    private static JsonArray orEmpty(JsonObject command, String name) {
        return command.has(name) ? command.getAsJsonArray(name) : new JsonArray();
    }

    private static JsonObject stats(AckwellClient client, JsonObject command) {
        StatsResponse stats = client.stats(queue(command));
        JsonObject ok = new JsonObject();
        ok.addProperty("ready", stats.getReady());
        ok.addProperty("delayed", stats.getDelayed());
        ok.addProperty("in_flight", stats.getInFlight());
        ok.addProperty("dead", stats.getDead());
        ok.addProperty("consumers", stats.getConsumers());
        return ok;
    }

    private static JsonObject peek(AckwellClient client, JsonObject command) {
        PeekRequest.Builder request = PeekRequest.newBuilder().setQueue(queue(command));
        if (command.has("limit")) {
            request.setLimit(command.get("limit").getAsInt());
        }
        if (command.has("body_bytes")) {
            request.setBodyBytes(command.get("body_bytes").getAsInt());
        }
        var answer = client.admin(stub -> stub.peek(request.build()));
        return Json.object("messages", Json.array(answer.getMessagesList(), Json::stored));
    }

    private static JsonObject get(AckwellClient client, JsonObject command) {
        GetRequest request = GetRequest.newBuilder()
                .setQueue(queue(command))
                .setId(command.get("message_id").getAsString())
                .build();
        return Json.object("message", Json.stored(client.admin(stub -> stub.get(request)).getMessage()));
    }

    private static JsonObject cancel(AckwellClient client, JsonObject command) {
        CancelRequest request = CancelRequest.newBuilder()
                .setQueue(queue(command))
                .addAllIds(Json.list(command.getAsJsonArray("message_ids"), JsonElement::getAsString))
                .build();
        var answer = client.admin(stub -> stub.cancel(request));
        return Json.object("results", Json.array(answer.getResultsList(), Json::cancelled));
    }
}
