//! Numbers of bytes, as Kubernetes writes them.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const UNITS: [(&str, u128); 12] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];

const BINARY: [(&str, u64); 6] =
    [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("Ti", 1 << 40), ("Pi", 1 << 50), ("Ei", 1 << 60)];

/// The text is not a number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a number of bytes: use digits and k, M, G, T, Ki, Mi, Gi or Ti, like 10Gi")]
pub struct InvalidBytes(String);

/// Reads an integer or a quantity like `10Gi` or `1.5G`; fractions of a byte are rounded up, and what
/// does not fit is the largest number, as in Kubernetes.
pub fn parse_bytes(quantity: &Quantity) -> Result<u64, InvalidBytes> {
    parse(&quantity.0).ok_or_else(|| InvalidBytes(quantity.0.chars().take(64).collect()))
}

/// Writes a number of bytes with the largest binary unit that it is a multiple of.
pub fn format_bytes(bytes: u64) -> Quantity {
    let (suffix, unit) = BINARY
        .into_iter()
        .rev()
        .find(|(_, unit)| bytes != 0 && bytes.is_multiple_of(*unit))
        .unwrap_or(("", 1));
    Quantity(format!("{}{suffix}", bytes / unit))
}

fn parse(text: &str) -> Option<u64> {
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
        .unwrap_or((text, 1));
    let (whole, fraction) =
        number.split_once('.').map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    let whole = digits(whole, 15)? * unit;
    let fraction =
        fraction.map_or(Some(0), |text| thousandths(text).map(|part| (part * unit).div_ceil(1000)))?;
    Some(u64::try_from(whole + fraction).unwrap_or(u64::MAX))
}

fn thousandths(text: &str) -> Option<u128> {
    Some(digits(text, 3)? * [100, 10, 1].get(text.len() - 1)?)
}

/// 15 digits times the largest unit are far from overflowing 128 bits.
fn digits(text: &str, max_chars: usize) -> Option<u128> {
    let valid = (1..=max_chars).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Option<u64> {
        parse_bytes(&Quantity(text.to_owned())).ok()
    }

    /// Sizes mean here what they mean to Kubernetes.
    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let cases =
            [("0", 0), ("1048576", 1 << 20), ("1Mi", 1 << 20), ("10Gi", 10 << 30), ("1.5Gi", 3 << 29)];
        for (text, expected) in cases {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        assert_eq!(bytes("1k"), Some(1000));
        assert_eq!(bytes("999999999999999Ei"), Some(u64::MAX));
        assert_eq!(bytes("0.0"), Some(0));
        assert_eq!(bytes("0.001"), Some(1));
        assert_eq!(bytes("0.25k"), Some(250));
    }

    #[test]
    fn what_is_no_number_of_bytes_is_refused() {
        for text in ["", "Gi", "-1", "1Zi", "1.5.5", ".5", "5.", "1e3", "100m", "+1", "1 Gi"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn written_bytes_are_read_back() {
        for (number, text) in [
            (0, "0"),
            (1, "1"),
            (1 << 30, "1Gi"),
            (3 << 29, "1536Mi"),
            (1_000_000, "1000000"),
            (1 << 60, "1Ei"),
        ] {
            assert_eq!(format_bytes(number).0, text);
            assert_eq!(bytes(text), Some(number));
        }
    }
}
