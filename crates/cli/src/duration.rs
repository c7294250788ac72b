//! Durations as people write them: `100ms`, `5s`, `2m`, `1h30m`, `7d`.

use std::time::Duration;

/// Milliseconds of each unit. `ms` is before `m`, which begins it.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// The text is not a duration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("use whole numbers with units, like 100ms, 5s, 2m, 1h30m or 7d")]
pub(crate) struct InvalidDuration;

/// Reads one or more numbers with their units; the parts are added.
pub(crate) fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    if text.is_empty() {
        return Err(InvalidDuration);
    }
    let (mut millis, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let (part, after) = first_part(rest).ok_or(InvalidDuration)?;
        millis = millis.checked_add(part).ok_or(InvalidDuration)?;
        rest = after;
    }
    Ok(Duration::from_millis(millis))
}

/// Writes the two largest units: `1h30m`, `5s`, `250ms`.
pub(crate) fn show(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut parts = Vec::new();
    for (unit, size) in [UNITS[4], UNITS[3], UNITS[2], UNITS[1], UNITS[0]] {
        if millis >= size && parts.len() < 2 {
            parts.push(format!("{}{unit}", millis / size));
        }
        millis %= size;
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.concat() }
}

/// The milliseconds of the first number and its unit, and what follows.
fn first_part(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = text.split_at(digits);
    let (unit, size) = UNITS.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
    Some((number.parse::<u64>().ok()?.checked_mul(size)?, &rest[unit.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let cases = [
            ("0s", 0),
            ("100ms", 100),
            ("5s", 5000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("1m1ms", 60_001),
            ("7d", 604_800_000),
        ];
        for (text, millis) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    /// A number without a unit would mean seconds to some and milliseconds to others.
    #[test]
    fn what_is_no_duration_is_refused() {
        let too_long = format!("{}d", u64::MAX);
        for text in ["", "5", "s", "-5s", "1.5s", "5 s", "5S", "5sec", "5s3", "1w", "é", &too_long] {
            assert_eq!(parse(text), Err(InvalidDuration), "{text:?}");
        }
    }

    #[test]
    fn durations_are_shown_in_two_units() {
        for (millis, text) in
            [(0, "0s"), (250, "250ms"), (5000, "5s"), (5_400_000, "1h30m"), (90_061_001, "1d1h")]
        {
            assert_eq!(show(Duration::from_millis(millis)), text);
        }
    }
}
