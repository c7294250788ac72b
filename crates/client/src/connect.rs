//! Where the broker or sidecar is, and how the connection to it behaves.

use std::time::Duration;

use tonic::transport::Endpoint;

use crate::Error;

/// Where a sidecar, or `ackwell dev`, listens.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:7400";

/// Enough for a handshake over any network; a host that drops packets must not hold the caller for minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a connection with calls on it is checked, and how long the answer may take: a peer that vanished without
/// a word is noticed within the sum.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The address that the environment names, or the default one.
#[expect(clippy::disallowed_methods, reason = "a client finds its sidecar by what the webhook set")]
pub(crate) fn address_of_environment() -> String {
    let named = std::env::var("ACKWELL_ADDRESS").ok().filter(|address| !address.is_empty());
    named.unwrap_or_else(|| DEFAULT_ADDRESS.to_owned())
}

/// Reads `host:port`, with or without `http://`, or `unix:PATH`.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, Error> {
    let invalid = || Error::InvalidAddress { address: address.to_owned() };
    if address.starts_with("unix:") {
        return Ok(tuned(Endpoint::from_shared(address.to_owned()).map_err(|_| invalid())?));
    }
    let authority = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':').ok_or_else(invalid)?;
    if host.is_empty() || host.contains('/') || port.parse::<u16>().map_or(true, |port| port == 0) {
        return Err(invalid());
    }
    Ok(tuned(Endpoint::from_shared(format!("http://{authority}")).map_err(|_| invalid())?))
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_needs_host_and_port() {
        for good in [
            "127.0.0.1:7400",
            "http://localhost:7400/",
            "[::1]:7400",
            "ackwell-orders.shop.svc:7400",
            "unix:/run/a.sock",
        ] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in
            ["", "localhost", ":7400", "localhost:", "localhost:0", "localhost:70000", "https://a:1", "a b:1"]
        {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }
}
