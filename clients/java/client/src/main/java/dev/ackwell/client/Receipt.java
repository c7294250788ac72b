package dev.ackwell.client;

import com.google.protobuf.ByteString;

/** The proof of holding a delivery. Can be stored, and used by another process. */
public final class Receipt {
    private final ByteString bytes;

    Receipt(ByteString bytes) {
        this.bytes = bytes;
    }

    /** What {@link #toByteArray} gave. */
    public static Receipt of(byte[] bytes) {
        return new Receipt(ByteString.copyFrom(bytes));
    }

    public byte[] toByteArray() {
        return bytes.toByteArray();
    }

    ByteString bytes() {
        return bytes;
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Receipt receipt && receipt.bytes.equals(bytes);
    }

    @Override
    public int hashCode() {
        return bytes.hashCode();
    }
}
