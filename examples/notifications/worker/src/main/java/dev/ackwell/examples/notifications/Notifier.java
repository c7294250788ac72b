package dev.ackwell.examples.notifications;

import com.google.gson.Gson;
import com.google.gson.JsonSyntaxException;
import com.google.protobuf.ByteString;
import dev.ackwell.v1.Ack;
import dev.ackwell.v1.Delivery;
import dev.ackwell.v1.Message;
import dev.ackwell.v1.Nack;
import dev.ackwell.v1.Reject;
import dev.ackwell.v1.Settlement;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;

/** Hands on one notification: here by printing it, elsewhere by mail or push. Safe to call from several threads. */
final class Notifier {
    private static final Gson JSON = new Gson();

    private final long workMillis;

    Notifier(long workMillis) {
        this.workMillis = workMillis;
    }

    /** Processes a delivery. The settlement says to the queue how that went. */
    Settlement process(Delivery delivery) {
        Settlement.Builder settlement = Settlement.newBuilder().setReceipt(delivery.getReceipt());
        try {
            handOn(delivery.getMessage());
            return settlement.setAck(Ack.getDefaultInstance()).build();
        } catch (JsonSyntaxException malformed) {
            // No retry can help.
            return settlement.setReject(Reject.newBuilder().setReason(malformed.getMessage())).build();
        } catch (Exception failure) {
            return settlement.setNack(Nack.newBuilder().setReason(failure.toString())).build();
        }
    }

    private void handOn(Message message) throws InterruptedException {
        Notification notification = JSON.fromJson(message.getBody().toStringUtf8(), Notification.class);
        if (notification == null || notification.text == null) {
            throw new JsonSyntaxException("a notification has a text");
        }
        Thread.sleep(workMillis);
        System.out.println(JSON.toJson(
                new Line(message.getId(), sha256(message.getBody()), message.getAttempts(), message.getDeliveries())));
    }

    private static String sha256(ByteString body) {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(body.toByteArray()));
        } catch (NoSuchAlgorithmException impossible) {
            throw new AssertionError("every Java platform has SHA-256", impossible);
        }
    }

    /** What is sent. */
    private static final class Notification {
        String text;
    }

    /** What is printed. */
    private record Line(String processed, String sha256, int attempts, int deliveries) {}
}
