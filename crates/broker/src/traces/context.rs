//! Which span of which trace: the W3C `traceparent`. The `tracestate` beside it is left to those who wrote it.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The header, of gRPC calls as of messages.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// Of version 00; later ones may go on behind it.
const LEN: usize = 55;
const SAMPLED: u8 = 1;

/// A span, here or elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) trace: [u8; 16],
    pub(crate) span: [u8; 8],
    /// Whether those before us record it.
    pub(crate) is_sampled: bool,
}

impl Context {
    /// Nothing where the text is no context: then there is none, as the specification has it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (head, rest) = text.as_bytes().split_at_checked(LEN)?;
        let is_whole = rest.is_empty() || (rest[0] == b'-' && !head.starts_with(b"00"));
        let are_dashes = [2, 35, 52].iter().all(|at| head[*at] == b'-');
        let [version] = hex(&head[..2])?;
        let (trace, span) = (hex(&head[3..35])?, hex(&head[36..52])?);
        let [flags] = hex(&head[53..])?;
        let is_valid = is_whole && are_dashes && version != 0xff && trace != [0; 16] && span != [0; 8];
        is_valid.then_some(Self { trace, span, is_sampled: flags & SAMPLED != 0 })
    }

    /// The first span of a new trace.
    pub(crate) fn root() -> Self {
        let mut trace = [0; 16];
        trace[..8].copy_from_slice(&random());
        trace[8..].copy_from_slice(&random());
        Self { trace, span: random(), is_sampled: false }
    }

    /// A new span of the same trace.
    pub(crate) fn child(self) -> Self {
        Self { span: random(), ..self }
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, span, is_sampled } = self;
        let (trace, span) = (u128::from_be_bytes(*trace), u64::from_be_bytes(*span));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", u8::from(*is_sampled))
    }
}

/// Lower case only, as the specification has it.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Eight bytes that nobody else has, and that are never all zero. Ids need no secrecy, and there may be many: one question to
/// the kernel, then `SplitMix64`.
fn random() -> [u8; 8] {
    static SEED: OnceLock<u64> = OnceLock::new();
    static STEPS: AtomicU64 = AtomicU64::new(1);
    let step = STEPS.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = mix(SEED.get_or_init(seed).wrapping_add(step));
    mixed.max(1).to_be_bytes()
}

fn seed() -> u64 {
    let (seed, _) = uuid::Uuid::new_v4().as_u64_pair();
    seed
}

fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// What the specification's example says is understood, and said again.
    #[test]
    fn context_goes_there_and_back() {
        let context = Context::parse(EXAMPLE).unwrap();
        assert!(context.is_sampled && context.to_string() == EXAMPLE);
        assert!(!Context::parse(&EXAMPLE.replace("-01", "-00")).unwrap().is_sampled);
        assert!(Context::parse(&EXAMPLE.replace("00-4", "cc-4").replace("-01", "-01-more")).is_some());
    }

    /// Whatever an application writes into the header, nothing worse comes of it than no parent.
    #[test]
    fn malformed_context_is_none() {
        for text in [
            "",
            "00",
            &EXAMPLE[..54],
            &format!("{EXAMPLE}-more"),
            &EXAMPLE.replace("00-4", "ff-4"),
            &EXAMPLE.to_uppercase(),
            &EXAMPLE.replace("00f067aa0ba902b7", "0000000000000000"),
            &EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &EXAMPLE.replace("-00f0", "x00f0"),
            &"ä".repeat(40),
        ] {
            assert_eq!(Context::parse(text), None, "{text}");
        }
    }

    #[test]
    fn children_share_the_trace_and_nothing_else() {
        let root = Context::root();
        let (one, other) = (root.child(), root.child());
        assert!(one.trace == root.trace && one.span != other.span && one.span != root.span);
        assert_ne!(Context::root().trace, root.trace);
    }
}
