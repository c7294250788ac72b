package dev.ackwell.client;

/** A message could not be opened by a {@link Keyring}. Says which key it names, and nothing of what it contains. */
public final class OpenException extends RuntimeException {
    /** Why a message was not opened. */
    public enum Failure {
        NOT_SEALED("the message is not sealed: it has no header " + Keyring.KEY_HEADER),
        UNKNOWN_KEY("the keyring does not have the key that the message was sealed with"),
        UNKNOWN_FORMAT("the message was sealed in a format that this version does not know"),
        /** It is not what was sealed for this queue: changed, cut off, of another queue, or by another key of the same id. */
        CHANGED("the message is not what was sealed for this queue with this key");

        private final String words;

        Failure(String words) {
            this.words = words;
        }
    }

    private final Failure failure;
    private final String keyId;

    OpenException(Failure failure, String keyId) {
        super(keyId.isEmpty() ? "%s [%s]".formatted(failure.words, failure) : "%s [%s, key %s]".formatted(failure.words, failure, keyId));
        this.failure = failure;
        this.keyId = keyId;
    }

    public Failure failure() {
        return failure;
    }

    /** Empty where the message names none that could be one. */
    public String keyId() {
        return keyId;
    }
}
