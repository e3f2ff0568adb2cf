//! Bounds: the most that a row's events may cost, by the names of what is tallied, and of `all` together.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;

use crate::cost::Cost;

/// What isn't named may cost nothing worth mentioning.
const UNNAMED_CALLS_MAX: f64 = 1.0;
const UNNAMED_COPIES_MAX: f64 = 0.02;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    calls: BTreeMap<String, f64>,
    copies: BTreeMap<String, f64>,
}

/// Holds a row's cost against its bounds; panics with all that is above them.
pub fn check(row: &str, cost: &Cost) {
    let mut rows: BTreeMap<String, Row> =
        toml::from_str(include_str!("bounds.toml")).expect("bounds.toml has rows of calls and copies");
    let bounds = rows.remove(row).unwrap_or_else(|| panic!("bounds.toml has no row {row}"));
    let calls = compare("calls of 1,000 events", &cost.calls, &bounds.calls, UNNAMED_CALLS_MAX);
    let copies = compare("bytes copied of a byte", &cost.copies, &bounds.copies, UNNAMED_COPIES_MAX);
    println!("{row}\n{}{}", calls.table, copies.table);
    let findings = [calls.findings, copies.findings].concat();
    assert!(
        findings.is_empty(),
        "{row} costs more than tests/guards/bounds.toml allows:\n{}",
        findings.join("\n")
    );
}

struct Comparison {
    table: String,
    findings: Vec<String>,
}

fn compare(
    what: &str,
    cost: &BTreeMap<String, f64>,
    bounds: &BTreeMap<String, f64>,
    unnamed_max: f64,
) -> Comparison {
    let mut comparison = Comparison { table: String::new(), findings: Vec::new() };
    let unknown = bounds.keys().filter(|name| !cost.contains_key(*name));
    comparison.findings.extend(unknown.map(|name| format!("{what}: nothing tallies {name}")));
    for (name, value) in cost {
        let bound = match bounds.get(name) {
            Some(bound) => *bound,
            None if name == "all" => f64::INFINITY,
            None => unnamed_max,
        };
        if *value > 0.0 || bounds.contains_key(name) {
            writeln!(comparison.table, "  {what}, {name}: {value:.3} (at most {bound})")
                .expect("text takes all");
        }
        if *value > bound {
            comparison.findings.push(format!("{what}, {name}: {value:.3}, at most {bound}"));
        }
    }
    comparison
}

#[test]
fn what_is_above_a_bound_or_without_one_is_found() {
    let costs = |pairs: &[(&str, f64)]| -> BTreeMap<String, f64> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    };
    let bounds = costs(&[("tail", 1.01), ("frame", 1.0)]);
    let findings = |cost: &[(&str, f64)]| compare("bytes", &costs(cost), &bounds, 0.02).findings.len();
    assert_eq!(findings(&[("tail", 1.0), ("frame", 0.3), ("kept", 0.01)]), 0);
    assert_eq!(findings(&[("tail", 1.02), ("frame", 0.3)]), 1);
    assert_eq!(findings(&[("tail", 1.0), ("frame", 0.3), ("kept", 0.5)]), 1);
    assert_eq!(findings(&[("tail", 1.0)]), 1);
}
