//! The queue: which message goes to whom, when, how often, and what is on disk.
//!
//! [`Engine`] is a state machine with one entrance, [`Engine::apply`]: a batch of [`Command`]s at a time `now` becomes
//! one durable commit and one [`Reply`] each. The same commands on the same state give the same replies.
//!
//! Reading order: [`message`] (what is stored, and the states), [`settings`] (the rules of a queue), [`command`] (what can
//! be asked), `engine` and its operations, [`store`] (how it lies on disk).
//!
//! It reads no clock, no environment and no randomness but to seal with, and knows nothing of gRPC, threads or Kubernetes.

pub mod command;
mod dense;
mod engine;
pub mod kept;
mod memory;
pub mod message;
mod messages;
pub mod moving;
pub mod receipt;
pub mod settings;
pub mod slots;
pub mod store;
pub mod task;
pub mod time;

#[cfg(fuzzing)]
pub mod fuzzing {
    //! What the fuzzer may reach that nobody else may.

    pub use crate::store::codec::fuzz_record as record;
    pub use crate::store::record::fuzz_log as log;
}

pub use command::{Applied, Command, Refusal, Reply};
pub use engine::{Engine, Stats, Totals};
pub use message::{Message, MessageId, State};
pub use messages::Counts;
pub use settings::Settings;
pub use store::{Damage, Store, StoreError, Usage};
pub use time::Timestamp;
