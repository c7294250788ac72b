//! The rules of `docs/delivery.md`, each as a short story. Time is virtual; a story's language is in [`story`].

mod dead;
mod histories;
mod memory;
mod model;
mod receive;
mod restart;
mod rules;
mod send;
mod settle;
mod story;
mod time;
