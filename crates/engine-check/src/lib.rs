//! The engine against a model that is obviously right.
//!
//! [`check`] makes a random history out of a seed and plays it, through the engine's public API only, to the engine, to the
//! [`model`] and to the [`observer`]; then once more to a fresh engine. `soak` does that for as long as it is told to.
//!
//! No library that ships depends on this one.

mod dice;
pub mod disk;
mod history;
mod minimize;
pub mod model;
pub mod observer;
mod play;
mod violation;

pub use minimize::{Failed, check};

pub use violation::Violation;
