package dev.ackwell.client;

import dev.ackwell.v1.CommitRequest;
import dev.ackwell.v1.CommitResponse;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.function.UnaryOperator;

/**
 * Settles and sends in one step: all of it is done, or nothing. It is one commit of one shard; {@code docs/delivery.md} says what
 * that allows.
 */
public final class Commit {
    private record Settle(String queue, List<Settlement> settlements) { }

    private record Send(String queue, List<Message> messages) { }

    /**
     * The results, in the order of the commit, none of them with an error.
     *
     * @param settled one list for each {@link #settle}
     * @param sent one list for each {@link #send}
     */
    public record Result(List<List<SettleResult>> settled, List<List<SendResult>> sent) { }

    private final List<Settle> settles = new ArrayList<>();
    private final List<Send> sends = new ArrayList<>();
    private String requestId = UUID.randomUUID().toString();

    /** Settles deliveries of a queue. */
    public Commit settle(String queue, List<Settlement> settlements) {
        settles.add(new Settle(queue, List.copyOf(settlements)));
        return this;
    }

    /** Sends messages to a queue. */
    public Commit send(String queue, List<Message> messages) {
        sends.add(new Send(queue, List.copyOf(messages)));
        return this;
    }

    /** Makes a later commit with the same id a repetition; without it each commit has one of its own. */
    public Commit requestId(String id) {
        requestId = id;
        return this;
    }

    CommitRequest request(UnaryOperator<Message> outgoing) {
        CommitRequest.Builder request = CommitRequest.newBuilder().setRequestId(requestId);
        for (Settle settle : settles) {
            request.addSettleBuilder()
                    .setQueue(settle.queue)
                    .addAllSettlements(settle.settlements.stream().map(Settlement::wire).toList());
        }
        for (Send send : sends) {
            request.addSendBuilder()
                    .setQueue(send.queue)
                    .addAllMessages(send.messages.stream().map(outgoing).map(Message::wire).toList());
        }
        return request.build();
    }

    static Result result(CommitResponse answer) {
        return new Result(
                answer.getSettledList().stream().map(one -> one.getResultsList().stream().map(SettleResult::of).toList()).toList(),
                answer.getSentList().stream().map(one -> one.getResultsList().stream().map(SendResult::of).toList()).toList());
    }
}
