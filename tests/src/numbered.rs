//! Bodies that their number determines.

/// 8 bytes to 2 KiB.
pub fn body(number: u64) -> Vec<u8> {
    let filler =
        (0..number % 2048).map(|index| u8::try_from((number ^ index.wrapping_mul(31)) % 251).unwrap_or(0));
    number.to_be_bytes().into_iter().chain(filler).collect()
}

/// The number of a body that is whole.
pub fn number(whole: &[u8]) -> Option<u64> {
    let number = u64::from_be_bytes(*whole.first_chunk()?);
    (whole == body(number)).then_some(number)
}
