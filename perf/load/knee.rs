//! Knee: the highest load whose p99 stays under a limit, by doubling and then halving the gap.
//!
//! Promises: each run is a whole measurement of `produce`, and all are in the result; a run that the
//!           generator or an error spoils ends the search, because it says nothing of the broker.

use crate::Failure;
use crate::options::{KneeOptions, ProduceOptions, Rate};
use crate::produce;
use crate::result::RunResult;
use crate::series::{LatencyReport, millis};
use serde::Serialize;

/// One run as it is printed and kept.
#[derive(Debug, Serialize)]
struct Row {
    /// Offered.
    rate: f64,
    records_per_second: f64,
    mib_per_second: f64,
    verdict: Verdict,
    valid: bool,
    invalid_because: Vec<String>,
    latency: LatencyReport,
    generator_lag: LatencyReport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// The rate was reached and p99 is under the limit.
    Under,
    Above,
    /// Decides nothing.
    Spoilt,
}

/// Runs `corelane-load knee`; true when the knee was found.
pub fn run(options: &KneeOptions) -> Result<bool, Failure> {
    if options.produce.rate != Rate::Max {
        return Err(Failure::new("--rate is what a knee finds out: leave it out, or say --from-rate"));
    }
    if !(options.p99_ms > 0.0 && options.from_rate >= 1.0 && options.precision > 0.0) {
        return Err(Failure::new("--p99-ms and --precision are above 0, --from-rate is at least 1"));
    }
    let mut search = Search::new(options.from_rate, options.precision);
    let mut rows: Vec<Row> = Vec::new();
    let ended_because = loop {
        let Some(rate) = search.next_rate() else {
            break search.under.is_none().then(|| "p99 is above the limit at every rate".to_string());
        };
        if rows.len() >= options.runs_max {
            break Some(format!("--runs-max: not decided after {} runs", rows.len()));
        }
        let mut one = options.produce.clone();
        one.rate = Rate::RecordsPerSecond(rate);
        let row = measure(&one, rate, options.p99_ms)?;
        print(&row);
        let verdict = row.verdict;
        rows.push(row);
        if verdict == Verdict::Spoilt {
            break Some(rows[rows.len() - 1].invalid_because.join("; "));
        }
        search.tell(rate, verdict == Verdict::Under);
    };
    let is_valid = ended_because.is_none();
    match (&ended_because, search.under) {
        (None, Some(rate)) => eprintln!("knee: {rate:.0} records/s at p99 under {} ms", options.p99_ms),
        (Some(why), _) => eprintln!("knee: NOT VALID: {why}"),
        (None, None) => {}
    }
    let report = serde_json::json!({
        "kind": "knee",
        "valid": is_valid,
        "invalid_because": ended_because.into_iter().collect::<Vec<_>>(),
        "version": env!("CARGO_PKG_VERSION"),
        "p99_ms": options.p99_ms,
        "precision": options.precision,
        "seconds": options.produce.common.seconds,
        "options": produce::describe(&options.produce),
        "records_per_second": search.under,
        "runs": rows,
    });
    println!("{report}");
    Ok(is_valid)
}

fn measure(options: &ProduceOptions, rate: f64, p99_ms: f64) -> Result<Row, Failure> {
    let result = produce::measure(options)?;
    let verdict = verdict(&result, p99_ms);
    let (Some(latency), Some(generator_lag)) = (result.latency, result.generator_lag) else {
        return Err(Failure::new("a run at a rate measures latency and lag"));
    };
    Ok(Row {
        rate,
        records_per_second: result.records_per_second,
        mib_per_second: result.mib_per_second,
        verdict,
        valid: result.valid,
        invalid_because: result.invalid_because,
        latency,
        generator_lag,
    })
}

fn verdict(result: &RunResult, p99_ms: f64) -> Verdict {
    let p99_us = result.latency.as_ref().map_or(u64::MAX, |latency| latency.p99_us);
    if produce::lag_p99_us(result).is_some() || !result.errors.is_empty() {
        return Verdict::Spoilt;
    }
    // Answers that are still missing then are late, not lost.
    if !produce::is_rate_reached(result) || p99_us as f64 > p99_ms * 1000.0 {
        return Verdict::Above;
    }
    if result.valid { Verdict::Under } else { Verdict::Spoilt }
}

fn print(row: &Row) {
    let latency = &row.latency;
    eprintln!(
        "rate {:>9.0}  reached {:>9.0}  p50 {}  p99 {}  p99.9 {}  {:?}{}{}",
        row.rate,
        row.records_per_second,
        millis(latency.p50_us),
        millis(latency.p99_us),
        millis(latency.p99_9_us),
        row.verdict,
        if row.valid { "" } else { ", not valid: " },
        row.invalid_because.join("; ")
    );
}

/// Where the knee can still be.
struct Search {
    from_rate: f64,
    precision: f64,
    /// The highest rate under the limit, and the lowest above it.
    under: Option<f64>,
    above: Option<f64>,
}

impl Search {
    fn new(from_rate: f64, precision: f64) -> Self {
        Self { from_rate, precision, under: None, above: None }
    }

    /// `None` when the knee is known, or lies below every rate.
    fn next_rate(&self) -> Option<f64> {
        match (self.under, self.above) {
            (None, None) => Some(self.from_rate),
            (Some(under), None) => Some(under * 2.0),
            (None, Some(above)) => (above >= 2.0).then_some(above / 2.0),
            (Some(under), Some(above)) => {
                (above > under * (1.0 + self.precision)).then_some((under + above) / 2.0)
            }
        }
    }

    fn tell(&mut self, rate: f64, is_under: bool) {
        *if is_under { &mut self.under } else { &mut self.above } = Some(rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The knee found, and the rates tried, where it is at `knee`.
    fn search(from_rate: f64, knee: f64) -> (Option<f64>, Vec<f64>) {
        let (mut search, mut tried) = (Search::new(from_rate, 0.05), Vec::new());
        while let Some(rate) = search.next_rate() {
            tried.push(rate);
            search.tell(rate, rate <= knee);
        }
        (search.under, tried)
    }

    #[test]
    fn the_knee_is_found_from_below_and_from_above() {
        for from_rate in [100.0, 20_000.0, 5_000_000.0] {
            for knee in [37.0, 20_000.0, 123_456.0, 9e6] {
                let (found, tried) = search(from_rate, knee);
                let found = found.expect("rates go down as far as needed");
                assert!(found <= knee && found * 1.06 > knee, "{from_rate} {knee}: {found}");
                assert!(tried.len() < 30, "{from_rate} {knee}: {tried:?}");
            }
        }
        assert_eq!(search(100.0, 400.0).1[..4], [100.0, 200.0, 400.0, 800.0]);
    }

    #[test]
    fn a_knee_below_every_rate_is_not_found() {
        assert_eq!(search(100.0, 0.0).0, None);
    }
}
