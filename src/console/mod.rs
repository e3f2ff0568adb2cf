//! Console: the admin port. Health, the metrics page and that of slow requests over HTTP, on the control
//! thread.
//!
//! Owns:     the pages' text.
//! Promises: read-only; nothing here waits for a shard.
//! Never:    runs on a shard's thread.
//! Called by `server`.

mod slow;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::metrics::Cells;
use crate::metrics::directory::DirectoryCells;
use crate::metrics::inventory::{Kind, METRICS};
use crate::metrics::stages::{BOUNDS_US, HistogramRead, STAGE_HELP, Stage, StageCells, TracedApi};
use crate::metrics::tally::FAMILIES;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Reads every shard's cells when the page is asked for.
struct Shards(Vec<&'static Cells>);

impl std::fmt::Debug for Shards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} shards", self.0.len())
    }
}

impl Collector for Shards {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for described in METRICS {
            let help = described.help.trim_end_matches('.');
            let kind = match described.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut family = encoder.encode_descriptor(described.name, help, None, kind)?;
            for (shard, cells) in self.0.iter().enumerate() {
                let value = cells.get(described.metric);
                let label = [("shard", shard.to_string())];
                let family = family.encode_family(&label)?;
                match described.kind {
                    Kind::Counter => ConstCounter::new(value).encode(family)?,
                    Kind::Gauge => ConstGauge::new(value as i64).encode(family)?,
                }
            }
        }
        for tallied in &FAMILIES {
            let mut family =
                encoder.encode_descriptor(tallied.name, tallied.help, None, MetricType::Counter)?;
            for (shard, cells) in self.0.iter().enumerate() {
                for (tally, name) in tallied.tallies {
                    let labels = [("shard", shard.to_string()), (tallied.label, (*name).to_owned())];
                    ConstCounter::new(cells.tallied(*tally)).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

/// Reads where requests spent their time when the page is asked for.
struct Stages(Vec<&'static Cells>);

impl std::fmt::Debug for Stages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stages of {} shards", self.0.len())
    }
}

/// Name, meaning and value of each number about the requests of one API.
type RequestNumber = (&'static str, &'static str, fn(&StageCells, TracedApi) -> u64);

const REQUEST_NUMBERS: [RequestNumber; 2] = [
    ("corelane_requests", "Requests answered. Kafka: RequestsPerSec", |cells, api| cells.total(api).count()),
    (
        "corelane_request_hops",
        "Times that a request asked another shard; by corelane_requests_total it's hops per request",
        StageCells::hops,
    ),
];

const BUSY_HELP: &str = "Time that the shard worked, without sleeping. Kafka: the part of a second that its \
    RequestHandlerAvgIdlePercent isn't";

const SLOW_HELP: &str =
    "Produce and Fetch requests that took request.slow.ms or longer; the page /slow has the last ones";

const TOTAL_HELP: &str = "Time of a request from its first byte to the last of its response, without the wait of a fetch \
    for data. Kafka: TotalTimeMs";

const SECOND_NS: f64 = 1e9;

fn encode_histogram(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    series: impl Iterator<Item = (Vec<(&'static str, String)>, HistogramRead)>,
) -> Result<(), std::fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, read) in series {
        let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(read.buckets).collect();
        let (sum, count) = (read.sum_ns as f64 / SECOND_NS, read.count());
        family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
    }
    Ok(())
}

impl Stages {
    /// Every shard with each API.
    fn of_apis(&self) -> impl Iterator<Item = (usize, &'static StageCells, TracedApi)> {
        let shards = self.0.iter().enumerate();
        shards.flat_map(|(shard, cells)| TracedApi::ALL.map(|api| (shard, &cells.stages, api)))
    }
}

impl Collector for Stages {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let labels = |shard: usize, api: TracedApi| {
            vec![("shard", shard.to_string()), ("api", api.name().to_string())]
        };
        for (name, help, value) in REQUEST_NUMBERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (shard, cells, api) in self.of_apis() {
                let labels = labels(shard, api);
                ConstCounter::new(value(cells, api)).encode(family.encode_family(&labels)?)?;
            }
        }
        let totals = self.of_apis().map(|(shard, cells, api)| (labels(shard, api), cells.total(api)));
        encode_histogram(&mut encoder, ("corelane_request_seconds", TOTAL_HELP), totals)?;
        let stages = self.of_apis().flat_map(|(shard, cells, api)| {
            let stages = Stage::ALL.into_iter().filter(move |stage| stage.is_of(api));
            stages.map(move |stage| {
                let mut labels = labels(shard, api);
                labels.push(("stage", stage.name().to_string()));
                (labels, cells.stage(api, stage))
            })
        });
        encode_histogram(&mut encoder, ("corelane_request_stage_seconds", STAGE_HELP), stages)?;
        let mut family =
            encoder.encode_descriptor("corelane_shard_busy_seconds", BUSY_HELP, None, MetricType::Counter)?;
        for (shard, cells) in self.0.iter().enumerate() {
            let seconds = cells.stages.busy_ns() as f64 / SECOND_NS;
            ConstCounter::new(seconds).encode(family.encode_family(&[("shard", shard.to_string())])?)?;
        }
        let mut family =
            encoder.encode_descriptor("corelane_requests_slow", SLOW_HELP, None, MetricType::Counter)?;
        for (shard, cells) in self.0.iter().enumerate() {
            let count = ConstCounter::new(cells.stages.slow.count());
            count.encode(family.encode_family(&[("shard", shard.to_string())])?)?;
        }
        Ok(())
    }
}

/// Reads every log directory's cells when the page is asked for.
struct LogDirectories(Vec<&'static DirectoryCells>);

/// Name, meaning and value of each number about a log directory.
type Number = (&'static str, &'static str, fn(&DirectoryCells) -> u64);

const DIRECTORY_NUMBERS: [Number; 4] = [
    (
        "corelane_log_dir_state_number",
        "0: in use, 1: short of space, 2: its disk hangs, 3: failed",
        DirectoryCells::state,
    ),
    (
        "corelane_log_dir_oldest_operation_ms",
        "Age of the oldest operation in flight on the disk",
        DirectoryCells::oldest_operation_ms,
    ),
    ("corelane_log_dir_usable_bytes", "Free space of the file system", |cells| {
        cells.space().map_or(0, |space| space.usable_bytes)
    }),
    (
        "corelane_log_dir_claimed_bytes",
        "Free space that records in memory will take",
        DirectoryCells::claimed_bytes,
    ),
];

impl std::fmt::Debug for LogDirectories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} log directories", self.0.len())
    }
}

impl Collector for LogDirectories {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (name, help, value) in DIRECTORY_NUMBERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for cells in &self.0 {
                let gauge = ConstGauge::new(value(cells) as i64);
                gauge.encode(family.encode_family(&[("directory", cells.path.as_str())])?)?;
            }
        }
        Ok(())
    }
}

/// Serves until the process ends. The listener was bound by the server.
pub async fn serve(
    listener: std::net::TcpListener,
    cells: Vec<&'static Cells>,
    directories: Vec<&'static DirectoryCells>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let slow = {
        let cells = cells.clone();
        move || async move { slow::page(&cells) }
    };
    let page = move || {
        let (cells, directories) = (cells.clone(), directories.clone());
        async move {
            let mut registry = Registry::default();
            registry.register_collector(Box::new(Shards(cells.clone())));
            registry.register_collector(Box::new(Stages(cells)));
            registry.register_collector(Box::new(LogDirectories(directories)));
            let mut text = String::new();
            match prometheus_client::encoding::text::encode(&mut text, &registry) {
                Ok(()) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
                Err(_) => axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }
    };
    let health = || async { "ok\n" };
    let router =
        Router::new().route("/health", get(health)).route("/metrics", get(page)).route("/slow", get(slow));
    axum::serve(listener, router).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_described_once_and_told_of_every_shard_and_directory() {
        let directory = |path: &str| DirectoryCells::leaked(None, path.to_owned(), 1);
        let directories = vec![directory("/a"), directory("/b")];
        directories[0].set_oldest_operation(0, 7);
        directories[1].set_failed(0);
        let mut registry = Registry::default();
        let cells = vec![Cells::leaked(), Cells::leaked()];
        let stages = &cells[1].stages;
        stages.observe(TracedApi::Produce, Stage::Flush, 4_000_000);
        stages.observe_total(TracedApi::Produce, 9_000_000, 2);
        stages.add_busy(1_500_000_000);
        registry.register_collector(Box::new(Shards(cells.clone())));
        registry.register_collector(Box::new(Stages(cells)));
        registry.register_collector(Box::new(LogDirectories(directories)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text takes everything");
        // And of stages, total, busy time and slow requests.
        let families = METRICS.len() + FAMILIES.len() + DIRECTORY_NUMBERS.len() + REQUEST_NUMBERS.len() + 4;
        let mut described: Vec<&str> = text.lines().filter(|line| line.starts_with("# HELP")).collect();
        assert_eq!(described.len(), families);
        described.dedup();
        assert_eq!(described.len(), families);
        for line in [
            r#"corelane_shard_turns_total{shard="1"} 0"#,
            r#"corelane_copied_bytes_total{shard="1",copy="tail"} 0"#,
            r#"corelane_log_dir_oldest_operation_ms{directory="/a"} 7"#,
            r#"corelane_log_dir_state_number{directory="/b"} 3"#,
            r#"corelane_requests_total{shard="1",api="Produce"} 1"#,
            r#"corelane_request_hops_total{shard="1",api="Produce"} 2"#,
            r#"corelane_request_seconds_sum{shard="1",api="Produce"} 0.009"#,
            r#"corelane_request_stage_seconds_bucket{le="0.003072",shard="1",api="Produce",stage="flush"} 0"#,
            r#"corelane_request_stage_seconds_bucket{le="0.004096",shard="1",api="Produce",stage="flush"} 1"#,
            r#"corelane_request_stage_seconds_count{shard="1",api="Produce",stage="flush"} 1"#,
            r#"corelane_request_stage_seconds_bucket{le="+Inf",shard="0",api="Fetch",stage="read"} 0"#,
            r#"corelane_shard_busy_seconds_total{shard="1"} 1.5"#,
            r#"corelane_requests_slow_total{shard="0"} 0"#,
        ] {
            assert!(text.lines().any(|told| told == line), "{line}\n{text}");
        }
    }
}
