//! Rows that cannot be read in the middle of a decision.
//!
//! Decisions ask for rows as if all were in memory, and nearly all are. The few times that one has to be read and cannot
//! be, there is no answer that would be right, nor one to go on with: what is being decided ends there, by unwinding to
//! who asked for the decision. Nothing of it is confirmed, and the store is opened anew.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::StoreError;

/// Ends what [`catching`] began. No panic: nothing is wrong with the program.
pub(super) fn end_with(error: StoreError) -> ! {
    resume_unwind(Box::new(error))
}

/// Decides something.
pub(crate) fn catching<T>(decide: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    // Whatever was half changed is not looked at again.
    let ended = match catch_unwind(AssertUnwindSafe(decide)) {
        Ok(result) => return result,
        Err(ended) => ended,
    };
    match ended.downcast::<StoreError>() {
        Ok(error) => Err(*error),
        Err(panic) => resume_unwind(panic),
    }
}
