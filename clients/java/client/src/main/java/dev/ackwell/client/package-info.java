/**
 * Java client for Ackwell queues.
 *
 * <pre>{@code
 * try (AckwellClient client = AckwellClient.create()) {
 *     Sent sent = client.send("orders", Message.of("two discs"));
 *     try (Consumer consumer = client.consume("orders", delivery -> book(delivery.message()))) {
 *         consumer.join();
 *     }
 * }
 * }</pre>
 *
 * <p>Calls block, and are made for virtual threads: no lock is held while they wait, and an interrupt ends them.
 */
package dev.ackwell.client;
