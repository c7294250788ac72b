//! The sidecar: the API on 127.0.0.1, routed to brokers.
