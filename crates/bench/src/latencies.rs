//! Latencies in a fixed amount of memory: the benchmark's own must not grow with what it measures.

use std::time::Duration;

/// Of each power of two: a bucket is at most 1/64 wide, which is the error of what is read.
const STEPS_LOG2: u32 = 6;
const STEPS: usize = 1 << STEPS_LOG2;
/// Nanoseconds are u64.
const POWERS: usize = 64;

/// How long things took.
#[derive(Clone, Debug)]
pub struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: vec![0; STEPS * POWERS], count: 0, max: 0 }
    }
}

impl Latencies {
    /// One more.
    pub fn record(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The same, to divide by.
    #[expect(clippy::cast_precision_loss, reason = "nobody counts 2^52 latencies")]
    pub fn count_f64(&self) -> f64 {
        self.count as f64
    }

    /// Microseconds that this share of them, in thousandths, did not exceed; 0 for none.
    pub fn quantile_us(&self, thousandths: u64) -> f64 {
        let wanted = (self.count * thousandths).div_ceil(1000);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return micros(ceiling(index).min(self.max));
            }
        }
        0.0
    }

    /// The longest, in microseconds.
    pub fn max_us(&self) -> f64 {
        micros(self.max)
    }
}

fn bucket(nanos: u64) -> usize {
    let power = nanos.checked_ilog2().unwrap_or(0).saturating_sub(STEPS_LOG2);
    // Below 2 * STEPS by choice of the power; below that power the steps start at STEPS, but for the first.
    let step = usize::try_from(nanos >> power).expect("a step is small");
    power as usize * STEPS + step
}

/// The largest that falls into the bucket.
fn ceiling(index: usize) -> u64 {
    let power = (index / STEPS).saturating_sub(1);
    let step = (index - power * STEPS) as u64;
    // The last bucket ends where the numbers end.
    ((step + 1) << power).wrapping_sub(1)
}

#[expect(clippy::cast_precision_loss, reason = "a latency of 100 days is not measured to the nanosecond")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: every latency falls into a bucket whose ceiling is at most a 1/64 above it.
    #[test]
    fn bucket_any_latency_is_close() {
        for nanos in
            (0..64).map(|power| 1u64 << power).flat_map(|power| [power - 1, power, power + power / 3])
        {
            let ceiling = ceiling(bucket(nanos));
            assert!(ceiling >= nanos && ceiling - nanos <= nanos / 64, "{nanos} {ceiling}");
        }
    }

    /// Promise: a quantile is the latency that so many did not exceed.
    #[test]
    fn quantile_of_a_thousand_is_that_one() {
        let mut latencies = Latencies::default();
        (1..=1000).for_each(|us| latencies.record(Duration::from_micros(us)));
        for thousandths in [1, 500, 990, 999] {
            let exact = f64::from(u32::try_from(thousandths).unwrap());
            let quantile = latencies.quantile_us(thousandths);
            assert!((exact..exact * 1.02).contains(&quantile), "{thousandths}: {quantile}");
        }
        assert!((latencies.max_us() - 1000.0).abs() < f64::EPSILON);
    }
}
