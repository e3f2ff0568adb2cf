//! Slow: the page of the last slow requests, as a table to be read.

use std::fmt::Write;

use crate::metrics::Cells;
use crate::metrics::slow::{SLOW_COUNT, SlowRequest};
use crate::metrics::stages::Stage;

/// The text of the page.
pub fn page(cells: &[&'static Cells]) -> String {
    let limit_ms = cells.first().map_or(0, |cells| cells.stages.slow.limit_ms());
    let count: u64 = cells.iter().map(|cells| cells.stages.slow.count()).sum();
    let mut found: Vec<(usize, SlowRequest)> = Vec::new();
    for (shard, cells) in cells.iter().enumerate() {
        found.extend(cells.stages.slow.requests().into_iter().map(|request| (shard, request)));
    }
    found.sort_by_key(|(_, request)| std::cmp::Reverse(request.wall_ms));
    let mut text = format!(
        "Requests that took {limit_ms} ms or more (request.slow.ms), newest first, the last {SLOW_COUNT} of each shard; \
         {count} since the start. Times in milliseconds; a fetch's wait for data isn't counted.\n\n"
    );
    let mut head: Vec<String> =
        ["done (UTC)", "shard", "api", "version", "bytes", "hops", "total"].map(String::from).into();
    head.extend(Stage::ALL.map(|stage| stage.name().to_string()));
    head.extend(["partition", "client"].map(String::from));
    let rows: Vec<Vec<String>> =
        std::iter::once(head).chain(found.iter().map(|(shard, request)| row(*shard, request))).collect();
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    // Numbers stand at the right of their columns, names at the left.
    let numbers = 3..7 + Stage::COUNT;
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let written = if numbers.contains(&column) || column == 1 {
                write!(line, "{cell:>width$}  ")
            } else {
                write!(line, "{cell:<width$}  ")
            };
            written.expect("a string takes everything");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(shard: usize, request: &SlowRequest) -> Vec<String> {
    let mut row = vec![
        utc(request.wall_ms),
        shard.to_string(),
        request.api.name().to_string(),
        request.version.to_string(),
        request.bytes.to_string(),
        request.hops.to_string(),
        in_ms(request.total_ns),
    ];
    let stage = |stage: Stage| {
        if stage.is_of(request.api) { in_ms(request.stages_ns[stage as usize]) } else { "-".to_string() }
    };
    row.extend(Stage::ALL.map(stage));
    row.push(request.partition.as_ref().map_or("-".to_string(), |(topic, index)| format!("{topic}-{index}")));
    // What a client calls itself mustn't break the table.
    row.push(request.client_id.replace(char::is_control, "?"));
    row
}

fn in_ms(ns: u64) -> String {
    format!("{:.1}", ns as f64 / 1e6)
}

/// As in `2023-11-14 22:13:20.000`.
fn utc(wall_ms: i64) -> String {
    const DAY_MS: i64 = 86_400_000;
    let (days, ms) = (wall_ms.div_euclid(DAY_MS), wall_ms.rem_euclid(DAY_MS));
    // Counted from 1 March of the year 0, where a leap day is the last of its year: eras of 400 years.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{ms:03}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::stages::TracedApi;

    #[test]
    fn times_are_told_as_the_calendar_has_them() {
        for (wall_ms, told) in [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_399_999, "2000-02-28 23:59:59.999"),
            (951_868_799_001, "2000-02-29 23:59:59.001"),
            (1_700_000_000_000, "2023-11-14 22:13:20.000"),
            (4_107_542_399_000, "2100-02-28 23:59:59.000"),
            (4_107_542_400_000, "2100-03-01 00:00:00.000"),
            (-1, "1969-12-31 23:59:59.999"),
        ] {
            assert_eq!(utc(wall_ms), told);
        }
    }

    #[test]
    fn the_newest_of_all_shards_comes_first_and_columns_are_aligned() {
        let cells = [Cells::leaked(), Cells::leaked()];
        cells.iter().for_each(|cells| cells.stages.slow.set_limit_ms(70));
        let mut stages_ns = [0; Stage::COUNT];
        stages_ns[Stage::Flush as usize] = 123_456_789;
        let request = |number: usize| SlowRequest {
            wall_ms: number as i64,
            api: if number == 1 { TracedApi::Fetch } else { TracedApi::Produce },
            version: 9,
            client_id: format!("client\n{number}"),
            partition: (number != 1).then(|| ("orders".to_string(), 7)),
            bytes: 10u64.pow(number as u32),
            hops: 0,
            total_ns: 123_456_789,
            stages_ns,
        };
        for (shard, number) in [(0, 1), (1, 2), (0, 3)] {
            cells[shard].stages.slow.record(&request(number));
        }
        let text = page(&cells);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("70 ms or more") && lines[0].contains("; 3 since the start"), "{text}");
        let clients: Vec<&str> =
            lines[3..].iter().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(clients, ["client?3", "client?2", "client?1"]);
        let at = |line: &str, word: &str| line.find(word).map(|at| at + word.len());
        let flush = at(lines[2], "flush").expect("it is a column");
        assert!(lines[3][..flush].ends_with("123.5"), "{text}");
        for line in &lines[3..5] {
            assert!(line.contains("orders-7") && line.contains("123.5"), "{text}");
        }
        assert_eq!(at(lines[2], "bytes"), at(lines[3], " 1000"));
        assert_eq!(lines[2].find("client"), lines[5].find("client?"));
    }
}
