//! A real cluster: the one that `KUBECONFIG` names.
//!
//! - [`Kubectl`]: the one way to speak to it.
//! - [`Namespace`]: a test's own, with diagnostics when the test fails.
//! - [`installed`]: the chart, once for all tests.
//! - [`PortForward`], [`Followed`]: ways into pods.

mod chart;
mod diagnostics;
mod kubectl;
mod logs;
mod namespace;
mod node;
mod port_forward;

pub use chart::{installed, rendered};
pub use kubectl::Kubectl;
pub use logs::Followed;
pub use namespace::Namespace;
pub use node::{Signal, Usage, crash_node, kill_process, signal_process, usage};
pub use port_forward::PortForward;

/// A setting of the run: from the environment, which `cargo xtask test` fills, or the default.
fn setting(name: &str, default: &str) -> String {
    std::env::var_os(name).map_or_else(|| default.to_owned(), |value| value.to_string_lossy().into_owned())
}

/// An image of this repository as the chart names it.
pub fn image(name: &str) -> String {
    format!("localhost/ackwell/{name}:{}", setting("ACKWELL_IMAGE_TAG", env!("CARGO_PKG_VERSION")))
}
