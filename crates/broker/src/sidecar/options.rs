//! How a sidecar runs.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ackwell_proto::QueueName;

/// Where the brokers of a queue are, unless told otherwise: the Service of its ready shards.
pub const DEFAULT_BROKER_ADDRESS: &str = "ackwell-{queue}.{namespace}.svc:7400";

/// How a sidecar runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// gRPC for the application.
    pub listen: SocketAddr,
    /// The same on a UNIX socket; `None`: not served.
    pub unix_socket: Option<PathBuf>,
    /// Health and metrics over HTTP; `None`: not served.
    pub http: Option<SocketAddr>,
    /// For queue names without a namespace.
    pub namespace: String,
    /// The queues that may be used; empty: any queue whose brokers have an address.
    pub queues: Vec<QueueName>,
    /// `host:port` of a queue's brokers; `{queue}` and `{namespace}` are replaced.
    pub broker_address: String,
    /// The same for single queues, where it is another.
    pub entries: HashMap<QueueName, String>,
    /// Authorities that brokers have to show a certificate of; `None`: connections are plain, for one machine only.
    pub broker_ca: Option<PathBuf>,
    /// Shown to brokers to say who calls; `None`: they are told nothing.
    pub token: Option<PathBuf>,
}

impl Options {
    /// Where to ask first for the shards of `queue`.
    pub(crate) fn entry_address(&self, queue: &QueueName) -> String {
        if let Some(own) = self.entries.get(queue) {
            return own.clone();
        }
        self.broker_address.replace("{queue}", queue.name()).replace("{namespace}", queue.namespace())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a flag the sidecar finds the Service that the operator made; a queue whose broker is beside it is asked there.
    #[test]
    fn entry_address_of_queue_is_its_service_or_its_own() {
        let options = Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            unix_socket: None,
            http: None,
            namespace: "shop".to_owned(),
            queues: Vec::new(),
            broker_address: DEFAULT_BROKER_ADDRESS.to_owned(),
            entries: [(QueueName::parse("own", "shop").unwrap(), "here:7400".to_owned())].into(),
            broker_ca: None,
            token: None,
        };
        let entry = |queue| options.entry_address(&QueueName::parse(queue, "shop").unwrap());
        assert_eq!(entry("orders"), "ackwell-orders.shop.svc:7400");
        assert_eq!(entry("own"), "here:7400");
    }
}
