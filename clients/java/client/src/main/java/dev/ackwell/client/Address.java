package dev.ackwell.client;

/** Where the sidecar or broker is. */
final class Address {
    static final String DEFAULT = "127.0.0.1:7400";
    private static final String VARIABLE = "ACKWELL_ADDRESS";

    private Address() { }

    /** What the environment says, else where a sidecar listens. */
    static String fromEnvironment() {
        String address = System.getenv(VARIABLE);
        return address == null || address.isEmpty() ? DEFAULT : address;
    }

    /** Reads "host:port", with or without "http://", or "unix:PATH". */
    static String target(String address) {
        if (isSocket(address)) {
            return address;
        }
        String authority = address.startsWith("http://") ? address.substring("http://".length()) : address;
        if (authority.endsWith("/")) {
            authority = authority.substring(0, authority.length() - 1);
        }
        int colon = authority.lastIndexOf(':');
        boolean isValid = colon > 0
                && authority.substring(0, colon).matches("\\[[0-9a-fA-F:.%]+]|[^:/\\s]+")
                && isPort(authority.substring(colon + 1));
        if (!isValid) {
            throw new IllegalArgumentException("address \"" + address + "\" is not valid: use host:port, like " + DEFAULT
                    + ", or unix:PATH");
        }
        return "dns:///" + authority;
    }

    static boolean isSocket(String target) {
        return target.startsWith("unix:");
    }

    private static boolean isPort(String text) {
        return text.matches("[0-9]{1,5}") && Integer.parseInt(text) > 0 && Integer.parseInt(text) < 65536;
    }
}
