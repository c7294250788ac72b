package dev.ackwell.client;

import com.google.protobuf.ByteString;
import dev.ackwell.client.OpenException.Failure;
import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.SecureRandom;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import javax.crypto.AEADBadTagException;
import javax.crypto.Cipher;
import javax.crypto.SecretKey;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;

/**
 * Seals bodies end to end: brokers, sidecars and volumes only ever have AES-256-GCM ciphertext. It seals with its current key, and
 * opens with every key that it has. docs/reference/sealing.md has the format, the same in every language. Safe for use by many threads.
 */
public final class Keyring {
    /** The header that says that a body is sealed, and with the key of which id. */
    public static final String KEY_HEADER = "sealed-key";
    /** The header that says for which queue it was sealed: for those to which messages of other queues are moved. */
    public static final String QUEUE_HEADER = "sealed-queue";

    private static final byte VERSION = 1;
    private static final int KEY_BYTES = 32;
    private static final int NONCE_BYTES = 12;
    private static final int TAG_BYTES = 16;
    private static final Pattern KEY_ID = Pattern.compile("[A-Za-z0-9._-]{1,64}");
    private static final SecureRandom RANDOM = new SecureRandom();

    private final String current;
    private final Map<String, SecretKey> keys;
    private final boolean allowsUnsealed;

    private Keyring(String current, Map<String, SecretKey> keys, boolean allowsUnsealed) {
        this.current = current;
        this.keys = keys;
        this.allowsUnsealed = allowsUnsealed;
    }

    /**
     * A keyring.
     *
     * @param current the id of the key to seal with
     * @param keys 32 bytes each, by their ids: 1 to 64 of {@code A-Z a-z 0-9 . _ -}
     */
    public static Keyring of(String current, Map<String, byte[]> keys) {
        Map<String, SecretKey> checked = new HashMap<>();
        keys.forEach((id, key) -> checked.put(id, checked(id, key)));
        if (!checked.containsKey(current)) {
            throw new IllegalArgumentException("the keyring does not have its current key \"" + current + "\"");
        }
        return new Keyring(current, checked, false);
    }

    /** Reads a key of 32 bytes that is written as base64. */
    public static byte[] parseKey(String text) {
        byte[] key;
        try {
            key = Base64.getDecoder().decode(text.strip());
        } catch (IllegalArgumentException malformed) {
            throw new IllegalArgumentException("the key is no base64");
        }
        return ofLength("the key", key);
    }

    private static SecretKey checked(String id, byte[] key) {
        if (!KEY_ID.matcher(id).matches()) {
            throw new IllegalArgumentException("\"" + id + "\" is no id of a key: 1 to 64 letters, digits, '.', '_' and '-'");
        }
        return new SecretKeySpec(ofLength("key " + id, key), "AES");
    }

    private static byte[] ofLength(String what, byte[] key) {
        if (key.length != KEY_BYTES) {
            throw new IllegalArgumentException("%s has %d bytes: it needs %d, as `openssl rand -base64 32` makes them"
                    .formatted(what, key.length, KEY_BYTES));
        }
        return key;
    }

    /** The same keyring, which opens messages that are not sealed as they are: only while senders change over to sealing. */
    public Keyring allowingUnsealed() {
        return new Keyring(current, keys, true);
    }

    /** The message with its body sealed, to be sent to this queue. */
    public Message seal(String queue, Message message) {
        byte[] nonce = new byte[NONCE_BYTES];
        RANDOM.nextBytes(nonce);
        return seal(queue, message, nonce);
    }

    /** With a nonce that may not come twice with the key. */
    Message seal(String queue, Message message, byte[] nonce) {
        if (message.header(KEY_HEADER).isPresent()) {
            throw new IllegalArgumentException("the message has a header " + KEY_HEADER + ": it is sealed already");
        }
        byte[] bound = bound(current, queue, message.contentType());
        try {
            byte[] ciphertext = cipher(Cipher.ENCRYPT_MODE, keys.get(current), nonce, bound).doFinal(message.body());
            byte[] sealed = ByteBuffer.allocate(1 + NONCE_BYTES + ciphertext.length).put(VERSION).put(nonce).put(ciphertext).array();
            return message.toBuilder().body(sealed).header(KEY_HEADER, current).header(QUEUE_HEADER, name(queue)).build();
        } catch (GeneralSecurityException failure) {
            throw new IllegalStateException("this Java has no AES-256-GCM", failure);
        }
    }

    /**
     * The message that was sealed for this queue.
     *
     * @throws OpenException when it cannot be opened
     */
    public Message open(String queue, Message message) {
        String id = message.header(KEY_HEADER).orElse(null);
        if (id == null && allowsUnsealed) {
            return message;
        }
        if (id == null) {
            throw new OpenException(Failure.NOT_SEALED, "");
        }
        if (!KEY_ID.matcher(id).matches()) {
            throw new OpenException(Failure.UNKNOWN_KEY, "");
        }
        byte[] body = opened(id, message.body(), bound(id, queue, message.contentType()));
        return new Message(message.wire().toBuilder()
                .setBody(ByteString.copyFrom(body))
                .removeHeaders(KEY_HEADER)
                .removeHeaders(QUEUE_HEADER)
                .build());
    }

    private byte[] opened(String id, byte[] sealed, byte[] bound) {
        SecretKey key = keys.get(id);
        if (key == null) {
            throw new OpenException(Failure.UNKNOWN_KEY, id);
        }
        if (sealed.length > 0 && sealed[0] != VERSION) {
            throw new OpenException(Failure.UNKNOWN_FORMAT, id);
        }
        if (sealed.length < 1 + NONCE_BYTES + TAG_BYTES) {
            throw new OpenException(Failure.CHANGED, id);
        }
        byte[] nonce = new byte[NONCE_BYTES];
        System.arraycopy(sealed, 1, nonce, 0, NONCE_BYTES);
        int start = 1 + NONCE_BYTES;
        try {
            return cipher(Cipher.DECRYPT_MODE, key, nonce, bound).doFinal(sealed, start, sealed.length - start);
        } catch (AEADBadTagException changed) {
            throw new OpenException(Failure.CHANGED, id);
        } catch (GeneralSecurityException failure) {
            throw new IllegalStateException("this Java has no AES-256-GCM", failure);
        }
    }

    private static Cipher cipher(int mode, SecretKey key, byte[] nonce, byte[] bound) throws GeneralSecurityException {
        Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
        cipher.init(mode, key, new GCMParameterSpec(TAG_BYTES * Byte.SIZE, nonce));
        cipher.updateAAD(bound);
        return cipher;
    }

    /** Who sends from another namespace writes it before the queue's name. */
    private static String name(String queue) {
        return queue.substring(queue.lastIndexOf('/') + 1);
    }

    /** What is authenticated besides the body. */
    private static byte[] bound(String id, String queue, String contentType) {
        ByteArrayOutputStream bound = new ByteArrayOutputStream();
        bound.write(VERSION);
        for (String text : List.of(id, name(queue), contentType)) {
            byte[] encoded = text.getBytes(StandardCharsets.UTF_8);
            bound.writeBytes(ByteBuffer.allocate(Integer.BYTES).putInt(encoded.length).array());
            bound.writeBytes(encoded);
        }
        return bound.toByteArray();
    }
}
