//! Cost: what a broker has tallied on its metrics page, before and after, per event and byte.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::broker::Broker;

const COPIES: &str = "corelane_copied_bytes_total";
const CALLS: &str = "corelane_system_calls_total";

/// What the generator has seen done since the broker started.
#[derive(Debug, Default)]
pub struct Done {
    pub written_bytes: f64,
    pub read_bytes: f64,
}

/// The metrics page, by series, all shards together.
pub struct Page(BTreeMap<String, f64>);

impl Page {
    fn read(broker: &Broker) -> Self {
        let mut stream = TcpStream::connect(&broker.admin).expect("the admin port listens");
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", broker.admin);
        stream.write_all(request.as_bytes()).expect("a request fits the socket");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the page is text");
        let mut series: BTreeMap<String, f64> = BTreeMap::new();
        for (name, value) in text.lines().filter_map(|line| line.rsplit_once(' ')) {
            let Ok(value) = value.parse::<f64>() else { continue };
            *series.entry(without_shard(name)).or_default() += value;
        }
        Self(series)
    }

    /// Once the broker has tallied what was done so far: a shard tells of it every some turns and when it goes
    /// to sleep, and the journal gets what is appended to relaxed topics a little later.
    pub fn settled(broker: &Broker, done: &Done) -> Self {
        let asked = Instant::now();
        loop {
            let page = Self::read(broker);
            let copies = page.family(COPIES);
            let is_told = copies["tail"] >= done.written_bytes && copies["journal"] >= copies["tail"];
            if is_told && page.0["corelane_sent_bytes_total"] >= done.read_bytes {
                // The page before may have been read while the shard was telling.
                return Self::read(broker);
            }
            assert!(asked.elapsed() < Duration::from_secs(60), "{done:?} gets on the page: {copies:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// By the one label of a family.
    fn family(&self, name: &str) -> BTreeMap<String, f64> {
        let of_family = |(series, value): (&String, &f64)| {
            let label = series.strip_prefix(name)?.split('"').nth(1)?;
            Some((label.to_owned(), *value))
        };
        self.0.iter().filter_map(of_family).collect()
    }
}

fn without_shard(series: &str) -> String {
    let Some((name, labels)) = series.split_once('{') else { return series.to_owned() };
    let others: Vec<&str> =
        labels.trim_end_matches('}').split(',').filter(|label| !label.starts_with("shard=")).collect();
    if others.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", others.join(",")) }
}

/// What went on between two looks.
pub struct Cost {
    /// System calls of a thousand events, by name.
    pub calls: BTreeMap<String, f64>,
    /// Bytes copied of each byte of records, by where to.
    pub copies: BTreeMap<String, f64>,
}

impl Cost {
    pub fn between(before: &Page, after: &Page, events: f64, bytes: f64) -> Self {
        assert!(events > 0.0 && bytes > 0.0, "{events} events, {bytes} bytes");
        let grown = |family: &str, per: f64| -> BTreeMap<String, f64> {
            let before = before.family(family);
            let after = after.family(family).into_iter();
            let mut grown: BTreeMap<String, f64> =
                after.map(|(name, value)| (name.clone(), (value - before[&name]) / per)).collect();
            grown.insert("all".to_owned(), grown.values().sum());
            grown
        };
        Self { calls: grown(CALLS, events / 1000.0), copies: grown(COPIES, bytes) }
    }
}
