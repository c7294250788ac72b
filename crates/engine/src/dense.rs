//! Structures for numbers that are given out one after another, so that most of those in use are neighbours: [`Seq`] and
//! [`Epoch`].
//!
//! Neighbours share: a set keeps a bit of each, a table keeps their values in one page, timers keep those of one time together.

mod pages;
mod set;
mod timers;

pub(crate) use pages::{Fetch, Page, PageNo, Pages, number_at, page_of};
pub(crate) use set::NumberSet;
pub(crate) use timers::Timers;

use crate::message::{Epoch, Seq};

/// A number with a meaning.
pub(crate) trait Number: Copy + Ord {
    fn number(self) -> u64;
    fn of(number: u64) -> Self;
}

impl Number for Seq {
    fn number(self) -> u64 {
        self.0
    }

    fn of(number: u64) -> Self {
        Self(number)
    }
}

impl Number for Epoch {
    fn number(self) -> u64 {
        self.0
    }

    fn of(number: u64) -> Self {
        Self(number)
    }
}
