//! The engine against a model that is obviously right.
//!
//! [`check`] makes a random history out of a seed and plays it, through the engine's public API only, to the engine, to the
//! [`model`] and to the [`observer`]; then once more to a fresh engine. [`crash::survive`] lets an engine and its store live
//! through power cuts on a simulated [`disk`]. `soak` and `crash` do that for as long as they are told to.
//!
//! No library that ships depends on this one.

pub mod crash;
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
