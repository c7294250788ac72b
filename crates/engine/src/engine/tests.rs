//! The rules of `docs/delivery.md`. Most are told as short stories with virtual time: `stories/*.txt`, in the language of
//! [`story`].

mod batches;
mod memory;
mod moving;
mod rules;
mod snapshots;
mod stories;
mod story;
mod tasks;
