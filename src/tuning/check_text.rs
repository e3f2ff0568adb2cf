//! Check text: a report as a person reads it, or a program.

use std::fmt::Write;
use std::io::{self, Write as _};

use super::check::{Line, Report, Verdict};
use super::flush::Flush;

const WIDTH: usize = 110;
const NAME_WIDTH: usize = 16;
const VERDICT_WIDTH: usize = 9;
const BAR_WIDTH: usize = 50;

/// `text` in lines of at most the terminal's usual width, with `title` left of the first.
pub fn wrapped(title: &str, title_width: usize, text: &str) -> String {
    let mut out = String::new();
    let mut line = format!("{title:title_width$}");
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out += line.trim_end();
            out.push('\n');
            line = " ".repeat(title_width);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    out += line.trim_end();
    out.push('\n');
    out
}

/// Prints; a reader that has seen enough may close the pipe.
pub fn say(text: &str) -> Result<(), String> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("writing: {error}")),
        _ => Ok(()),
    }
}

pub fn print(report: &Report, is_json: bool) -> Result<(), String> {
    match is_json {
        true => say(&(serde_json::to_string_pretty(report).map_err(|error| error.to_string())? + "\n")),
        false => say(&text(report)),
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for line in &report.lines {
        out += &of_line(line);
    }
    for flush in &report.flushes {
        out += &of_flush(flush);
    }
    let count = |verdict| report.lines.iter().filter(|line| line.verdict == verdict).count();
    let (missing, off) = (count(Verdict::Missing), count(Verdict::Off));
    out += &match missing {
        0 => format!("\nNothing essential is missing; {off} could be better.\n"),
        _ => format!("\nEssential and missing: {missing}; {off} could be better.\n"),
    };
    out
}

fn of_line(line: &Line) -> String {
    let verdict = match line.verdict {
        Verdict::Ok => "ok",
        Verdict::Off => "off",
        Verdict::Absent => "absent",
        Verdict::Missing => "MISSING",
    };
    let indent = NAME_WIDTH + VERDICT_WIDTH;
    let title = format!("{:NAME_WIDTH$}{verdict:VERDICT_WIDTH$}", line.name);
    let mut out = wrapped(&title, indent, &line.found);
    for (what, text) in [("costs: ", &line.cost), ("fix:   ", &line.fix)] {
        if !text.is_empty() {
            let title = format!("{:indent$}{what}", "");
            out += &wrapped(&title, title.len(), text);
        }
    }
    out
}

fn of_flush(flush: &Flush) -> String {
    let mut out = format!(
        "\n{} writes of {} KiB in {}, each durable before the next:\n",
        flush.count,
        flush.group_bytes >> 10,
        flush.dir.display()
    );
    let most = flush.histogram.iter().map(|bucket| bucket.count).max().unwrap_or(0).max(1);
    for bucket in &flush.histogram {
        // The least of them shows, too.
        let bar = "#".repeat((bucket.count * BAR_WIDTH).div_ceil(most));
        writeln!(out, "  below {:>9} us {:>5}  {bar}", bucket.below_us, bucket.count)
            .expect("a string takes everything");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::flush::Bucket;
    use super::*;

    #[test]
    fn long_text_is_wrapped_beside_its_title() {
        let text = wrapped("name", 6, &"word ".repeat(40));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("name  word word") && lines[1].starts_with("      word"));
        assert!(lines.iter().all(|line| line.len() <= WIDTH));
        assert_eq!(text.matches("word").count(), 40);
        assert_eq!(wrapped("a", 2, ""), "a\n");
    }

    #[test]
    fn bars_are_as_long_as_counts_and_never_empty() {
        let histogram = vec![
            Bucket { below_us: 128, count: 1 },
            Bucket { below_us: 192, count: 0 },
            Bucket { below_us: 256, count: 200 },
        ];
        let flush = Flush {
            dir: "/d".into(),
            group_bytes: 4096,
            count: 201,
            p50_us: 200,
            p99_us: 200,
            max_us: 200,
            histogram,
        };
        let bars: Vec<usize> =
            of_flush(&flush).lines().skip(2).map(|line| line.matches('#').count()).collect();
        assert_eq!(bars, [1, 0, BAR_WIDTH]);
    }
}
