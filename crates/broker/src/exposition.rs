//! The Prometheus text format.

use std::fmt::{Display, Write};

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How many observations there were below each bound.
    Histogram,
}

/// A metric: its name, kind and help. `docs/reference/metrics.md` lists them all; the unit is the end of the name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family(pub(crate) &'static str, pub(crate) Kind, pub(crate) &'static str);

/// Names and values, of which there is a bounded number.
pub(crate) type Labels<'a, const N: usize> = [(&'a str, &'a str); N];

/// What `/metrics` answers.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    /// Adds a metric with all its samples.
    pub(crate) fn add<'a, const N: usize>(
        &mut self,
        family: Family,
        samples: impl IntoIterator<Item = (Labels<'a, N>, impl Display)>,
    ) {
        self.head(family);
        for (labels, value) in samples {
            self.sample(family.0, &labels, value);
        }
    }

    /// Adds a metric of the process.
    pub(crate) fn add_one(&mut self, family: Family, value: impl Display) {
        self.add(family, [([], value)]);
    }

    /// Adds a histogram of the process, from counts that are not cumulative: one for each bound, and one above.
    pub(crate) fn add_histogram(&mut self, family: Family, bounds: &[f64], counts: &[u64], sum: f64) {
        self.head(family);
        let Family(name, ..) = family;
        let bounds = bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        let mut total = 0;
        for (bound, count) in bounds.zip(counts) {
            total += count;
            self.sample(&format!("{name}_bucket"), &[("le", &bound)], total);
        }
        self.sample(&format!("{name}_sum"), &[], sum);
        self.sample(&format!("{name}_count"), &[], total);
    }

    /// The text.
    pub(crate) fn into_text(self) -> String {
        self.0
    }

    fn head(&mut self, Family(name, kind, help): Family) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        // Rust quotes what labels may hold as Prometheus does.
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        _ = match &labels[..] {
            [] => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: Prometheus reads it, and quantiles of a histogram are right.
    #[test]
    fn text_is_what_prometheus_reads() {
        let mut page = Page::default();
        page.add(Family("a_total", Kind::Counter, "Help."), [([("x", "1"), ("y", "q\"")], 7)]);
        page.add_one(Family("b", Kind::Gauge, "More."), 0.5);
        page.add_histogram(Family("c_seconds", Kind::Histogram, "Time."), &[0.001, 2.0], &[3, 0, 1], 9.25);
        let expected = "# HELP a_total Help.\n# TYPE a_total counter\na_total{x=\"1\",y=\"q\\\"\"} 7\n\
             # HELP b More.\n# TYPE b gauge\nb 0.5\n\
             # HELP c_seconds Time.\n# TYPE c_seconds histogram\n\
             c_seconds_bucket{le=\"0.001\"} 3\nc_seconds_bucket{le=\"2\"} 3\nc_seconds_bucket{le=\"+Inf\"} 4\n\
             c_seconds_sum 9.25\nc_seconds_count 4\n";
        assert_eq!(page.into_text(), expected);
    }
}
