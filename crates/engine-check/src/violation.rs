//! What was found.

use std::any::Any;

/// Something is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which check found it.
    pub property: &'static str,
    /// What it saw.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(property: &'static str, what: String) -> Self {
        Self { property, what }
    }

    /// What a thread panicked with.
    pub(crate) fn of(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Self::new("panic", text.unwrap_or_default())
    }
}

/// `what` is not asked when all is well: it is expensive.
pub(crate) fn ensure(
    is_so: bool,
    property: &'static str,
    what: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if is_so { Ok(()) } else { Err(Violation::new(property, what())) }
}
