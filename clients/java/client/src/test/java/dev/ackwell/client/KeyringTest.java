package dev.ackwell.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.Gson;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class KeyringTest {
    private static final byte[] KEY = new byte[32];

    private Vectors vectors;

    private record Vectors(Map<String, String> keys, List<Sealed> sealed, List<Refused> refused) {
        Keyring keyring(String current) {
            Map<String, byte[]> parsed = new HashMap<>();
            keys.forEach((id, key) -> parsed.put(id, Keyring.parseKey(key)));
            return Keyring.of(current, parsed);
        }
    }

    private record Sealed(
            String name,
            String key_id,
            String queue,
            Map<String, String> headers,
            String content_type,
            String nonce,
            String body,
            String sealed) { }

    private record Refused(
            String name, String queue, String content_type, Map<String, String> headers, String body, String failure, String key_id) { }

    @BeforeEach
    void read() throws IOException {
        Path file = Path.of("../../../tests/conformance/sealing/vectors.json");
        Assumptions.assumeTrue(Files.exists(file), "outside of the repository");
        vectors = new Gson().fromJson(Files.readString(file), Vectors.class);
    }

    private static byte[] bytes(String base64) {
        return Base64.getDecoder().decode(base64);
    }

    /** Every language seals to the same bytes, and opens what another one sealed. */
    @Test
    void sealedBodiesAreThoseOfEveryLanguage() {
        assertFalse(vectors.sealed.isEmpty());
        for (Sealed vector : vectors.sealed) {
            Message plain = Message.builder().body(bytes(vector.body)).contentType(vector.content_type).header("a", "b").build();
            Message sealed = vectors.keyring(vector.key_id).seal(vector.queue, plain, bytes(vector.nonce));
            assertArrayEquals(bytes(vector.sealed), sealed.body(), vector.name);
            assertEquals(vector.headers, sealed.headers());
            Message opened = vectors.keyring("2026-q3").open(vector.queue, sealed);
            assertArrayEquals(bytes(vector.body), opened.body(), vector.name);
            assertEquals(Map.of("a", "b"), opened.headers());
        }
    }

    /** What was changed, or is for somebody else, is refused by a typed error that names the key and nothing else. */
    @Test
    void whatWasNotSealedSoIsRefused() {
        Keyring keyring = vectors.keyring("2026-q4");
        assertFalse(vectors.refused.isEmpty());
        for (Refused vector : vectors.refused) {
            Message message =
                    Message.builder().body(bytes(vector.body)).contentType(vector.content_type).headers(vector.headers).build();
            OpenException refusal = assertThrows(OpenException.class, () -> keyring.open(vector.queue, message), vector.name);
            assertEquals(vector.failure, refusal.failure().name(), vector.name);
            assertEquals(vector.key_id, refusal.keyId(), vector.name);
            assertTrue(refusal.getMessage().contains(vector.key_id), vector.name);
            assertFalse(refusal.getMessage().contains("two discs"), vector.name);
        }
    }

    /** Each seal has a nonce of its own and costs 29 bytes; the rest of the message stays. */
    @Test
    void noNonceComesTwice() {
        Keyring keyring = vectors.keyring("2026-q4");
        Message plain = Message.builder().body("two discs").orderingKey("k").build();
        Set<ByteBuffer> nonces = new HashSet<>();
        for (int i = 0; i < 100; i++) {
            Message sealed = keyring.seal("orders", plain);
            assertEquals(9 + 29, sealed.body().length);
            assertEquals("k", sealed.orderingKey());
            nonces.add(ByteBuffer.wrap(sealed.body(), 1, 12));
            assertEquals("two discs", keyring.open("orders", sealed).text());
        }
        assertEquals(100, nonces.size());
    }

    /** A migration lets through what is not sealed, and nothing that claims to be. */
    @Test
    void unsealedMessagesAreOpenedWhereThatIsAllowed() {
        Keyring keyring = vectors.keyring("2026-q4").allowingUnsealed();
        assertEquals("plain", keyring.open("orders", Message.of("plain")).text());
        Message claims = Message.builder().body("plain").header(Keyring.KEY_HEADER, "2026-q4").build();
        assertThrows(OpenException.class, () -> keyring.open("orders", claims));
    }

    /** A key that cannot be meant is refused where it is given. */
    @Test
    void badKeysAreRefused() {
        assertThrows(IllegalArgumentException.class, () -> Keyring.of("none", Map.of()));
        assertThrows(IllegalArgumentException.class, () -> Keyring.of("other", Map.of("a", KEY)));
        for (int length : List.of(0, 16, 31, 33)) {
            assertThrows(IllegalArgumentException.class, () -> Keyring.of("a", Map.of("a", new byte[length])));
        }
        for (String id : List.of("", "a b", "new\n", "größe", "x".repeat(65))) {
            assertThrows(IllegalArgumentException.class, () -> Keyring.of(id, Map.of(id, KEY)), id);
        }
        for (String text : List.of("", "AAAA", "no base64!")) {
            assertThrows(IllegalArgumentException.class, () -> Keyring.parseKey(text), text);
        }
        Keyring keyring = Keyring.of("a", Map.of("a", KEY));
        assertThrows(IllegalArgumentException.class, () -> keyring.seal("orders", keyring.seal("orders", Message.of("x"))));
    }
}
