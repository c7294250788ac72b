//! What the benchmarks share: clock, latencies, figures and what the system says of a process.
//!
//! `store` measures the engine on its store, `broker` a broker behind gRPC. Both check what comes back: a benchmark that
//! loses messages would be fast.

pub mod body;
pub mod clock;
pub mod console;
pub mod figures;
pub mod latencies;
pub mod ledger;
pub mod limit;
pub mod process;
