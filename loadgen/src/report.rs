//! The results of a run, for readers and for `--json`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// The longest latency recorded, in nanoseconds: an hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// A histogram of nanoseconds to three digits: percentiles are exact to a thousandth.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, 3).expect("the bounds are in the crate's range")
}

/// Percentiles in microseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Latency {
    pub count: u64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(nanoseconds: &Histogram<u64>) -> Self {
        let at = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            count: nanoseconds.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: nanoseconds.max() as f64 / 1_000.0,
        }
    }
}

impl std::fmt::Display for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { p50_us, p90_us, p99_us, p999_us, max_us, .. } = self;
        write!(f, "p50 {p50_us:.0}  p90 {p90_us:.0}  p99 {p99_us:.0}  p99.9 {p999_us:.0}  max {max_us:.0} us")
    }
}

/// Lists why connections ended, and how often.
pub fn describe_reasons(reasons: &BTreeMap<Box<str>, u64>) -> String {
    reasons.iter().map(|(why, count)| format!("{count} x {why}")).collect::<Vec<_>>().join("; ")
}

/// The median and the extremes of a few measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted.get((sorted.len() - 1) / 2)?, sorted.get(sorted.len() / 2)?);
        Some(Self { median: f64::midpoint(*low, *high), min, max })
    }
}

/// A progress bar on a terminal, nothing elsewhere.
pub fn progress(total: u64, what: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total).with_message(what);
    match ProgressStyle::with_template("{msg} [{bar:40}] {human_pos}/{human_len}  {per_sec}  {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Appends one line of JSON.
///
/// # Errors
/// When the file cannot be written.
pub fn append_json(path: &Path, value: &impl Serialize) -> Result<(), String> {
    let mut line = simd_json::to_vec(value).map_err(|error| format!("cannot write JSON: {error}"))?;
    line.push(b'\n');
    let open = OpenOptions::new().create(true).append(true).open(path);
    open.and_then(|mut file| file.write_all(&line)).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        let check = |values: &[f64], expect| assert_eq!(Spread::of(values).map(|spread| spread.median), expect);
        check(&[], None);
        check(&[3.0], Some(3.0));
        check(&[9.0, 1.0, 2.0], Some(2.0));
        check(&[4.0, 1.0, 2.0, 9.0], Some(3.0));
    }

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut nanoseconds = histogram();
        for value in 1..=1_000 {
            nanoseconds.saturating_record(value * 1_000);
        }
        let latency = Latency::from(&nanoseconds);
        assert!((latency.p50_us - 500.0).abs() < 2.0 && (latency.p99_us - 990.0).abs() < 2.0);
    }
}
