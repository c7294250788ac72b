package dev.ackwell.client;

import java.time.Instant;
import java.time.OffsetDateTime;
import java.time.format.DateTimeParseException;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * An event of CloudEvents 1.0. As a message it is in binary mode: the data is the body, its type the content type, and each other
 * attribute a header {@code ce-NAME}. Texts are empty, and the time null, where they are not set.
 *
 * @param extensions other attributes: names of lower-case letters and digits
 */
public record CloudEvent(
        String id,
        String source,
        String type,
        String subject,
        Instant time,
        String dataContentType,
        String dataSchema,
        Map<String, String> extensions,
        byte[] data) {
    private static final String PREFIX = "ce-";
    private static final String VERSION = "1.0";
    private static final Set<String> NAMES = Set.of("id", "source", "type", "specversion", "subject", "time", "dataschema");

    public CloudEvent {
        if (id.isEmpty() || source.isEmpty() || type.isEmpty()) {
            throw new IllegalArgumentException("a CloudEvent needs an id, a source and a type");
        }
        for (String name : extensions.keySet()) {
            if (!name.matches("[a-z0-9]+") || NAMES.contains(name)) {
                throw new IllegalArgumentException("\"" + name + "\" is no name of a CloudEvents extension: lower-case letters and digits");
            }
        }
        extensions = Map.copyOf(extensions);
        data = data.clone();
    }

    /** An event with what every event has. */
    public static CloudEvent of(String id, String source, String type, String dataContentType, byte[] data) {
        return new CloudEvent(id, source, type, "", null, dataContentType, "", Map.of(), data);
    }

    /** A copy of the data. */
    @Override
    public byte[] data() {
        return data.clone();
    }

    /** The event as a message; {@link Message#toBuilder} adds what the queue needs, such as an ordering key. */
    public Message toMessage() {
        Message.Builder message = Message.builder().body(data).contentType(dataContentType);
        extensions.forEach((name, value) -> message.header(PREFIX + name, value));
        message.header(PREFIX + "specversion", VERSION)
                .header(PREFIX + "id", id)
                .header(PREFIX + "source", source)
                .header(PREFIX + "type", type);
        if (!subject.isEmpty()) {
            message.header(PREFIX + "subject", subject);
        }
        if (!dataSchema.isEmpty()) {
            message.header(PREFIX + "dataschema", dataSchema);
        }
        if (time != null) {
            message.header(PREFIX + "time", time.toString());
        }
        return message.build();
    }

    /** Reads a message as an event in binary mode. */
    public static CloudEvent from(Message message) {
        Map<String, String> attributes = new TreeMap<>();
        message.headers().forEach((name, value) -> {
            if (name.startsWith(PREFIX)) {
                attributes.put(name.substring(PREFIX.length()), value);
            }
        });
        if (!attributes.keySet().containsAll(Set.of("id", "source", "type", "specversion"))) {
            throw new IllegalArgumentException("the message is no CloudEvent: it lacks ce-id, ce-source, ce-type or ce-specversion");
        }
        Map<String, String> extensions = new TreeMap<>(attributes);
        extensions.keySet().removeAll(NAMES);
        return new CloudEvent(
                attributes.get("id"),
                attributes.get("source"),
                attributes.get("type"),
                attributes.getOrDefault("subject", ""),
                time(attributes.get("time")),
                message.contentType(),
                attributes.getOrDefault("dataschema", ""),
                extensions,
                message.body());
    }

    private static Instant time(String text) {
        try {
            return text == null ? null : OffsetDateTime.parse(text).toInstant();
        } catch (DateTimeParseException malformed) {
            throw new IllegalArgumentException("the header ce-time is no RFC 3339 time: " + malformed.getMessage());
        }
    }
}
