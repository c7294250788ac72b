//! Which spans are recorded: `OTEL_TRACES_SAMPLER`.

/// Decides for a span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sampler {
    /// For spans whose callers and messages have decided nothing.
    root: Root,
    /// Whether callers and messages decide at all.
    is_parent_based: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Root {
    Always,
    Never,
    /// Traces whose id is below it.
    Ratio(f64),
}

impl Sampler {
    /// By the names of the specification; empty: its default.
    pub(super) fn parse(name: &str, argument: &str) -> Result<Self, String> {
        let (is_parent_based, name) = match name {
            "" => (true, "always_on"),
            name => name.strip_prefix("parentbased_").map_or((false, name), |root| (true, root)),
        };
        let root = match name {
            "always_on" => Root::Always,
            "always_off" => Root::Never,
            "traceidratio" => Root::Ratio(ratio(argument)?),
            other => {
                return Err(format!(
                    "OTEL_TRACES_SAMPLER {other:?} is not known: use always_on, always_off or traceidratio, each also with \
                     parentbased_ before it"
                ));
            }
        };
        Ok(Self { root, is_parent_based })
    }

    /// `decided`: what those before decided.
    pub(super) fn samples(&self, decided: Option<bool>, trace: &[u8; 16]) -> bool {
        match decided.filter(|_| self.is_parent_based) {
            Some(decided) => decided,
            None => self.root.samples(trace),
        }
    }
}

impl Root {
    fn samples(self, trace: &[u8; 16]) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Ratio(ratio) => place(trace) < ratio,
        }
    }
}

/// Where the trace lies between 0 and 1, by the bytes of its id that are random: everybody who asks finds the same.
fn place(trace: &[u8; 16]) -> f64 {
    let random = trace.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes) >> 12);
    #[expect(clippy::cast_precision_loss, reason = "52 bits fit")]
    let place = random as f64 / (1_u64 << 52) as f64;
    place
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = if text.is_empty() { Some(1.0) } else { text.parse().ok() };
    ratio.filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or_else(|| {
        format!("OTEL_TRACES_SAMPLER_ARG is {text:?}: a ratio between 0 and 1 is needed, such as 0.01")
    })
}

#[cfg(test)]
mod tests {
    use super::super::context::Context;
    use super::*;

    fn sampler(name: &str, argument: &str) -> Sampler {
        Sampler::parse(name, argument).unwrap()
    }

    /// Promise: who comes first decides, for all after it.
    #[test]
    fn decision_of_those_before_holds() {
        let trace = &Context::root().trace;
        for name in ["", "parentbased_always_off", "parentbased_traceidratio"] {
            assert!(sampler(name, "0.5").samples(Some(true), trace), "{name}");
            assert!(!sampler(name, "0.5").samples(Some(false), trace), "{name}");
        }
        assert!(sampler("always_on", "").samples(Some(false), trace));
        assert!(!sampler("always_off", "").samples(Some(true), trace));
        assert!(
            sampler("", "").samples(None, trace)
                && !sampler("parentbased_always_off", "").samples(None, trace)
        );
    }

    #[test]
    fn ratio_is_kept() {
        let sampler = sampler("parentbased_traceidratio", "0.25");
        let count = (0..10_000).filter(|_| sampler.samples(None, &Context::root().trace)).count();
        assert!((2200..2800).contains(&count), "{count} of 10 000");
    }

    #[test]
    fn unknown_sampler_and_ratio_are_refused() {
        for (name, argument) in
            [("jaeger_remote", ""), ("traceidratio", "1.5"), ("traceidratio", "x"), ("traceidratio", "NaN")]
        {
            Sampler::parse(name, argument).unwrap_err();
        }
    }
}
