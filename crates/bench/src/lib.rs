//! What the benchmarks share: clock, latencies, figures and what the system says of a process.
//!
//! `store` measures the engine on its store, `broker` a broker behind gRPC, with and without a sidecar between: both check what
//! comes back, since a benchmark that loses messages would be fast. `sidecar` measures what a sidecar costs: when nothing
//! happens, and each call.

pub mod body;
pub mod clock;
pub mod console;
pub mod figures;
pub mod latencies;
pub mod ledger;
pub mod limit;
pub mod process;
pub mod server;
