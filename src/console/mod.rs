//! Console: the admin port. Health and the metrics page over HTTP, on the control thread.
//!
//! Owns:     the page's text.
//! Promises: read-only; nothing here waits for a shard.
//! Never:    runs on a shard's thread.
//! Called by `server`.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::metrics::Cells;
use crate::metrics::directory::DirectoryCells;
use crate::metrics::inventory::{Kind, METRICS};
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
    let page = move || {
        let (cells, directories) = (cells.clone(), directories.clone());
        async move {
            let mut registry = Registry::default();
            registry.register_collector(Box::new(Shards(cells)));
            registry.register_collector(Box::new(LogDirectories(directories)));
            let mut text = String::new();
            match prometheus_client::encoding::text::encode(&mut text, &registry) {
                Ok(()) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
                Err(_) => axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }
    };
    let router = Router::new().route("/health", get(|| async { "ok\n" })).route("/metrics", get(page));
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
        registry.register_collector(Box::new(Shards(vec![Cells::leaked(), Cells::leaked()])));
        registry.register_collector(Box::new(LogDirectories(directories)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text takes everything");
        let mut described: Vec<&str> = text.lines().filter(|line| line.starts_with("# HELP")).collect();
        let expected = METRICS.len() + FAMILIES.len() + DIRECTORY_NUMBERS.len();
        assert_eq!(described.len(), expected);
        described.dedup();
        assert_eq!(described.len(), expected);
        for line in [
            r#"corelane_shard_turns_total{shard="1"} 0"#,
            r#"corelane_copied_bytes_total{shard="1",copy="tail"} 0"#,
            r#"corelane_log_dir_oldest_operation_ms{directory="/a"} 7"#,
            r#"corelane_log_dir_state_number{directory="/b"} 3"#,
        ] {
            assert!(text.lines().any(|told| told == line), "{line}\n{text}");
        }
    }
}
