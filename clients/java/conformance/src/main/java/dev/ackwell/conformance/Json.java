package dev.ackwell.conformance;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import dev.ackwell.client.AckwellException;
import dev.ackwell.client.Attempt;
import dev.ackwell.client.CloudEvent;
import dev.ackwell.client.Delivery;
import dev.ackwell.client.ExtendResult;
import dev.ackwell.client.Keyring;
import dev.ackwell.client.Message;
import dev.ackwell.client.Receipt;
import dev.ackwell.client.SendResult;
import dev.ackwell.client.Sent;
import dev.ackwell.client.SettleResult;
import dev.ackwell.client.Settlement;
import dev.ackwell.v1.CancelResult;
import java.time.Duration;
import java.time.Instant;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;

/** The protocol's values, from and to those of the library. */
final class Json {
    static final Gson GSON = new GsonBuilder().disableHtmlEscaping().create();

    private Json() { }

    static String text(JsonObject line) {
        return GSON.toJson(line);
    }

    static JsonObject object(String name, JsonElement value) {
        JsonObject object = new JsonObject();
        object.add(name, value);
        return object;
    }

    static JsonObject event(String event, String name, Object value) {
        JsonObject object = new JsonObject();
        object.addProperty("event", event);
        object.add(name, GSON.toJsonTree(value));
        return object;
    }

    static <T> List<T> list(JsonArray array, Function<JsonElement, T> each) {
        List<T> list = new ArrayList<>();
        array.forEach(one -> list.add(each.apply(one)));
        return list;
    }

    static <T> JsonArray array(List<T> list, Function<T, JsonElement> each) {
        JsonArray array = new JsonArray();
        list.forEach(one -> array.add(each.apply(one)));
        return array;
    }

    static byte[] bytes(JsonElement base64) {
        return Base64.getDecoder().decode(base64.getAsString());
    }

    static String base64(byte[] bytes) {
        return Base64.getEncoder().encodeToString(bytes);
    }

    static Duration duration(JsonObject command, String name) {
        return Duration.ofMillis(command.get(name).getAsLong());
    }

    private static String text(JsonObject object, String name) {
        return object.has(name) ? object.get(name).getAsString() : "";
    }

    private static Map<String, String> texts(JsonObject object, String name) {
        Map<String, String> texts = new HashMap<>();
        if (object.has(name)) {
            object.getAsJsonObject(name).entrySet().forEach(entry -> texts.put(entry.getKey(), entry.getValue().getAsString()));
        }
        return texts;
    }

    /** What is empty is left out. */
    private static void put(JsonObject object, String name, String value) {
        if (!value.isEmpty()) {
            object.addProperty(name, value);
        }
    }

    // Into the library

    static Message message(JsonObject json) {
        Message.Builder message = Message.builder()
                .body(json.has("body") ? bytes(json.get("body")) : new byte[0])
                .headers(texts(json, "headers"))
                .contentType(text(json, "content_type"))
                .orderingKey(text(json, "ordering_key"))
                .fairnessKey(text(json, "fairness_key"))
                .dedupId(text(json, "dedup_id"));
        if (json.has("priority")) {
            message.priority(json.get("priority").getAsInt());
        }
        if (json.has("delay_ms")) {
            message.delay(duration(json, "delay_ms"));
        }
        if (json.has("deliver_at_ms")) {
            message.deliverAt(Instant.ofEpochMilli(json.get("deliver_at_ms").getAsLong()));
        }
        if (json.has("ttl_ms")) {
            message.ttl(duration(json, "ttl_ms"));
        }
        if (json.has("max_attempts")) {
            message.maxAttempts(json.get("max_attempts").getAsInt());
        }
        return message.build();
    }

    static Settlement settlement(JsonElement element) {
        JsonObject json = element.getAsJsonObject();
        Receipt receipt = Receipt.of(bytes(json.get("receipt")));
        String reason = text(json, "reason");
        return switch (json.get("outcome").getAsString()) {
            case "ack" -> Settlement.ack(receipt);
            case "release" -> Settlement.release(receipt);
            case "reject" -> Settlement.reject(receipt, reason);
            default -> json.has("delay_ms")
                    ? Settlement.nack(receipt, reason, duration(json, "delay_ms"))
                    : Settlement.nack(receipt, reason);
        };
    }

    static CloudEvent cloudEvent(JsonObject json) {
        return new CloudEvent(
                text(json, "id"),
                text(json, "source"),
                text(json, "type"),
                text(json, "subject"),
                json.has("time") ? OffsetDateTime.parse(text(json, "time")).toInstant() : null,
                text(json, "datacontenttype"),
                text(json, "dataschema"),
                texts(json, "extensions"),
                bytes(json.get("data")));
    }

    static Keyring keyring(JsonObject json) {
        Map<String, byte[]> keys = new HashMap<>();
        texts(json, "keys").forEach((id, key) -> keys.put(id, Keyring.parseKey(key)));
        Keyring keyring = Keyring.of(text(json, "current"), keys);
        return json.has("allow_unsealed") && json.get("allow_unsealed").getAsBoolean() ? keyring.allowingUnsealed() : keyring;
    }

    // Out of the library

    static JsonObject cloudEvent(CloudEvent event) {
        JsonObject json = new JsonObject();
        json.addProperty("id", event.id());
        json.addProperty("source", event.source());
        json.addProperty("type", event.type());
        json.addProperty("data", base64(event.data()));
        put(json, "subject", event.subject());
        put(json, "datacontenttype", event.dataContentType());
        put(json, "dataschema", event.dataSchema());
        if (event.time() != null) {
            json.addProperty("time", event.time().toString());
        }
        if (!event.extensions().isEmpty()) {
            json.add("extensions", GSON.toJsonTree(event.extensions()));
        }
        return json;
    }

    static JsonObject sent(Sent sent) {
        JsonObject json = new JsonObject();
        json.addProperty("id", sent.id());
        json.addProperty("duplicate", sent.duplicate());
        return json;
    }

    static JsonObject sent(SendResult result) {
        return result.error().map(error -> object("error", error(error))).orElseGet(() -> sent(result.get()));
    }

    static JsonObject settled(SettleResult result) {
        JsonObject json = new JsonObject();
        result.error().ifPresent(error -> json.add("error", error(error)));
        result.state().ifPresent(state -> json.addProperty("state", name(state)));
        result.nextAttemptAt().ifPresent(at -> json.addProperty("next_attempt_at_ms", at.toEpochMilli()));
        return json;
    }

    static JsonObject extended(ExtendResult result) {
        JsonObject json = new JsonObject();
        result.error().ifPresent(error -> json.add("error", error(error)));
        result.ackDeadline().ifPresent(deadline -> json.addProperty("ack_deadline_at_ms", deadline.toEpochMilli()));
        return json;
    }

    static JsonObject cancelled(CancelResult result) {
        JsonObject json = new JsonObject();
        if (result.hasError()) {
            JsonObject error = new JsonObject();
            error.addProperty("reason", result.getError().getReason());
            error.addProperty("message", result.getError().getMessage());
            json.add("error", error);
        }
        return json;
    }

    static JsonObject delivery(Delivery delivery) {
        JsonObject json = object("message", delivered(delivery));
        json.addProperty("receipt", base64(delivery.receipt().toByteArray()));
        json.addProperty("ack_deadline_at_ms", delivery.ackDeadline().toEpochMilli());
        json.addProperty("fencing_token", delivery.fencingToken());
        return json;
    }

    static JsonObject delivered(Delivery delivery) {
        JsonObject json = message(delivery.message());
        json.addProperty("id", delivery.id());
        json.addProperty("stored_at_ms", delivery.storedAt().toEpochMilli());
        json.addProperty("attempts", delivery.attempts());
        json.addProperty("deliveries", delivery.deliveries());
        json.add("history", array(delivery.history(), Json::attempt));
        return json;
    }

    private static JsonObject attempt(Attempt attempt) {
        JsonObject json = new JsonObject();
        json.addProperty("outcome", attempt.outcome());
        json.addProperty("reason", attempt.reason());
        json.addProperty("consumer", attempt.consumer());
        return json;
    }

    static JsonObject message(Message message) {
        JsonObject json = new JsonObject();
        json.addProperty("body", base64(message.body()));
        json.add("headers", GSON.toJsonTree(message.headers()));
        put(json, "content_type", message.contentType());
        put(json, "ordering_key", message.orderingKey());
        put(json, "fairness_key", message.fairnessKey());
        put(json, "dedup_id", message.dedupId());
        message.priority().ifPresent(priority -> json.addProperty("priority", priority));
        message.maxAttempts().ifPresent(attempts -> json.addProperty("max_attempts", attempts));
        message.delay().ifPresent(delay -> json.addProperty("delay_ms", delay.toMillis()));
        message.ttl().ifPresent(ttl -> json.addProperty("ttl_ms", ttl.toMillis()));
        message.deliverAt().ifPresent(at -> json.addProperty("deliver_at_ms", at.toEpochMilli()));
        return json;
    }

    /** A message as the generated stubs have it. */
    static JsonObject stored(dev.ackwell.v1.Message message) {
        JsonObject json = new JsonObject();
        json.addProperty("body", base64(message.getBody().toByteArray()));
        json.addProperty("id", message.getId());
        json.addProperty("state", name(message.getState()));
        json.addProperty("attempts", message.getAttempts());
        json.addProperty("deliveries", message.getDeliveries());
        json.addProperty("stored_at_ms", millis(message.getStoredAt()));
        if (message.getHeadersCount() > 0) {
            json.add("headers", GSON.toJsonTree(message.getHeadersMap()));
        }
        put(json, "content_type", message.getContentType());
        put(json, "ordering_key", message.getOrderingKey());
        put(json, "fairness_key", message.getFairnessKey());
        put(json, "dedup_id", message.getDedupId());
        put(json, "dead_reason", message.getDeadReason());
        if (message.hasNextAttemptAt()) {
            json.addProperty("next_attempt_at_ms", millis(message.getNextAttemptAt()));
        }
        json.add("history", array(message.getHistoryList(), attempt -> {
            JsonObject one = new JsonObject();
            one.addProperty("outcome", attempt.getOutcome());
            one.addProperty("reason", attempt.getReason());
            one.addProperty("consumer", attempt.getConsumer());
            return one;
        }));
        return json;
    }

    private static long millis(com.google.protobuf.Timestamp time) {
        return Instant.ofEpochSecond(time.getSeconds(), time.getNanos()).toEpochMilli();
    }

    private static String name(dev.ackwell.v1.State state) {
        return state.name().substring("STATE_".length());
    }

    static JsonObject error(Throwable failure) {
        JsonObject json = new JsonObject();
        json.addProperty("message", String.valueOf(failure.getMessage()));
        if (failure instanceof AckwellException refusal) {
            put(json, "reason", refusal.reason());
            json.addProperty("code", refusal.code().name());
            refusal.retryAfter().ifPresent(after -> json.addProperty("retry_after_ms", after.toMillis()));
        } else {
            json.addProperty("code", "CLIENT");
        }
        return json;
    }
}
