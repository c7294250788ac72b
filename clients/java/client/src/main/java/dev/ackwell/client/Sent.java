package dev.ackwell.client;

/**
 * A message that is on disk.
 *
 * @param id that of the message, or of the first one with its dedup id
 * @param duplicate the dedup id was known, nothing new was stored
 */
public record Sent(String id, boolean duplicate) { }
