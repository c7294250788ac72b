package dev.ackwell.client;

import java.util.ArrayList;
import java.util.List;

/** Messages for one call, within the limits of a call. */
final class Batches {
    private static final int MAX_MESSAGES = 1000;
    /** Below the 4 MiB that gRPC servers accept by default. A single larger message goes alone. */
    private static final int MAX_BYTES = 3 << 20;

    private Batches() { }

    /** Whether a batch of so many messages and bytes takes one more. */
    static boolean fits(int messages, long bytes, int size) {
        return messages == 0 || messages < MAX_MESSAGES && bytes + size <= MAX_BYTES;
    }

    static List<List<Message>> of(List<Message> messages) {
        List<List<Message>> batches = new ArrayList<>();
        int start = 0;
        long bytes = 0;
        for (int index = 0; index < messages.size(); index++) {
            int size = messages.get(index).wire().getSerializedSize();
            if (!fits(index - start, bytes, size)) {
                batches.add(messages.subList(start, index));
                start = index;
                bytes = 0;
            }
            bytes += size;
        }
        if (start < messages.size()) {
            batches.add(messages.subList(start, messages.size()));
        }
        return batches;
    }
}
