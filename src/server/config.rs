//! Config: every setting of the broker, checked once, as one `Options` per module.
//!
//! Kafka's property names are the keys. A key that Kafka knows and we don't use is accepted with
//! one warning; a key neither knows is refused with the nearest name.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use super::config_file::{Given, Settings};
use crate::base::ids::NodeId;
use crate::catalog::broker_config::{self, BrokerConfig, BrokerSettings};
use crate::catalog::decide::CreationDefaults;
use crate::shard::host::HostKind;

/// Every broker setting that Apache Kafka 4.3 knows, one per line.
const KAFKA_SETTINGS: &str = include_str!("kafka_broker_settings.txt");

/// One broker setting that needs a restart; the others are in `catalog::broker_config`.
pub struct Field {
    pub name: &'static str,
    pub default: &'static str,
    /// Meaning with unit and bounds.
    pub documentation: &'static str,
}

const fn field(name: &'static str, default: &'static str, documentation: &'static str) -> Field {
    Field { name, default, documentation }
}

/// Sorted by name.
pub const FIELDS: &[Field] = &[
    field(
        "admin.listener",
        "127.0.0.1:9644",
        "Address of the admin port: health and metrics over HTTP. Empty switches it off; a port of 0 takes a free one.",
    ),
    field(
        "advertised.listeners",
        "",
        "Addresses given to clients, one per listener name; empty means those of listeners. A host of 0.0.0.0 can't be advertised.",
    ),
    field(
        "auto.create.topics.enable",
        "true",
        "Whether a topic is created when a client first asks for it. true or false.",
    ),
    field("broker.id", "-1", "Old name of node.id; used when node.id isn't given."),
    field(
        "connections.max.idle.ms",
        "600000",
        "A connection without traffic for this long is closed. Milliseconds, 1 or more.",
    ),
    field(
        "cores",
        "",
        "Cores that run shards, as numbers with commas. Empty: all cores this process may use. 'unpinned': one shard that isn't pinned.",
    ),
    field("default.replication.factor", "1", "Replicas of a topic created without a number. 1 or more."),
    field(
        "fetch.verify",
        "first",
        "When the checksums of what a fetch reads from disk are checked: first (once by each process, then it is sent from the page cache) or always. Corelane's own setting.",
    ),
    field(
        "group.initial.rebalance.delay.ms",
        "3000",
        "How long the first rebalance of an empty group waits for more members. Milliseconds, 0 or more.",
    ),
    field(
        "group.max.session.timeout.ms",
        "1800000",
        "Largest session timeout a member may ask for. Milliseconds, 1 or more.",
    ),
    field("group.max.size", "2147483647", "Members a group may have. 1 or more."),
    field(
        "group.min.session.timeout.ms",
        "6000",
        "Smallest session timeout a member may ask for. Milliseconds, 1 or more.",
    ),
    field(
        "host",
        "plain",
        "What runs a shard's loop and sleeps for it: plain (its thread), or glommio (an executor of glommio; not in every build, and it costs more CPU). Corelane's own setting.",
    ),
    field(
        "journal.bytes",
        "268435456",
        "Bytes of a lane's journal. 4194304 or more, and at least 8 times message.max.bytes.",
    ),
    field(
        "listeners",
        "PLAINTEXT://127.0.0.1:9092",
        "Addresses to listen on, NAME://host:port with commas. A host of 0.0.0.0 or none listens everywhere; a port of 0 takes a free one.",
    ),
    field(
        "log.cleaner.enable",
        "true",
        "Whether topics with cleanup.policy=compact are compacted. true or false.",
    ),
    field("log.dir", "", "Log directories; used when log.dirs isn't given."),
    field(
        "log.dir.free.bytes.min",
        "67108864",
        "Free bytes of a disk that producing leaves alone: below, it is refused until space is free. Bytes, 0 or more.",
    ),
    field(
        "log.dir.stall.ms",
        "10000",
        "A disk that hasn't ended an operation for so long hangs: producing to it is refused until it has. Milliseconds, 1 or more.",
    ),
    field(
        "log.dirs",
        "./corelane-data",
        "Log directories with commas, one per disk. The first holds the metadata, too. A new partition goes where the fewest are.",
    ),
    field(
        "log.retention.check.interval.ms",
        "300000",
        "How often segments over their time or size are looked for. Milliseconds, 1 or more.",
    ),
    field(
        "log.scrub.bytes.per.second",
        "10485760",
        "How fast sealed segments are read again and checked against their checksums, per lane. Bytes per second; 0: never. Corelane's own setting.",
    ),
    field(
        "log.scrub.interval.ms",
        "604800000",
        "How often every sealed segment is checked so; new ones are checked soon after they were sealed. Milliseconds, 60000 or more. Corelane's own setting.",
    ),
    field("node.id", "1", "Number of this broker in its cluster. 0 or more; can't change in a data folder."),
    field("num.partitions", "1", "Partitions of a topic created without a number. 1 or more."),
    field(
        "offsets.topic.num.partitions",
        "50",
        "Partitions of __consumer_offsets. 1 or more; read when the topic is created.",
    ),
    field("socket.request.max.bytes", "104857600", "Largest request. Bytes, 1048576 or more."),
    field(
        "tail.pool.bytes",
        "67108864",
        "Memory of a shard for records not yet read from disk again: newest records, shared by all readers. Bytes, 1048576 or more.",
    ),
];

/// A batch is at most a quarter of the tail pool, and that at most half of the journal.
const JOURNAL_PER_BATCH: u64 = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub name: String,
    pub address: SocketAddr,
}

/// What clients are told to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    pub host: String,
    /// 0 means the port that the listener was given by the kernel.
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    All,
    List(Vec<usize>),
    Unpinned,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub node: NodeId,
    /// Never empty; the first holds the metadata.
    pub log_dirs: Vec<PathBuf>,
    pub listeners: Vec<Listener>,
    /// One per listener, in its order.
    pub advertised: Vec<Advertised>,
    pub admin: Option<SocketAddr>,
    pub cores: Cores,
    pub host: HostKind,
    pub journal_bytes: u64,
    pub tail_pool_bytes: u64,
    pub request_bytes_max: usize,
    pub idle_ms_max: u64,
    /// Between two looks.
    pub retention_check_ms: u64,
    pub verify_always: bool,
    pub scrub_bytes_per_second: u64,
    pub scrub_interval_ms: u64,
    pub is_cleaning: bool,
    pub free_bytes_min: u64,
    pub stall_ms: u64,
    pub auto_create_topics: bool,
    pub offsets_partitions_count: i32,
    pub creation: CreationDefaults,
    /// What may change while the broker runs.
    pub broker: BrokerConfig,
    pub group_initial_rebalance_delay_ms: u64,
    pub group_session_timeout_min_ms: u64,
    pub group_session_timeout_max_ms: u64,
    pub group_size_max: usize,
    /// The settings that were given, by the broker's names, for DescribeConfigs.
    pub given: BTreeMap<String, String>,
    /// Said once at start.
    pub warnings: Vec<String>,
}

/// What is wrong with the configuration, for the operator.
pub type ConfigError = String;

struct Reader {
    settings: Settings,
}

impl Reader {
    fn text(&self, name: &str) -> String {
        self.given(name).map_or_else(|| default_of(name).to_string(), |given| given.value.clone())
    }

    fn given(&self, name: &str) -> Option<&Given> {
        self.settings.get(name)
    }

    fn wrong(&self, name: &str, why: &str) -> ConfigError {
        let origin = self.given(name).map_or("default", |given| given.origin.as_str());
        format!("{name} = {:?} ({origin}): {why}", self.text(name))
    }

    fn number(&self, name: &str, min: i64, max: i64) -> Result<i64, ConfigError> {
        let number: i64 =
            self.text(name).trim().parse().map_err(|_| self.wrong(name, "not a whole number"))?;
        if (min..=max).contains(&number) {
            Ok(number)
        } else {
            Err(self.wrong(name, &format!("must be between {min} and {max}")))
        }
    }

    fn truth(&self, name: &str) -> Result<bool, ConfigError> {
        match self.text(name).trim().to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.wrong(name, "must be true or false")),
        }
    }

    /// Name, host and port of each entry of a listener list.
    fn endpoints(&self, name: &str) -> Result<Vec<(String, String, u16)>, ConfigError> {
        let text = self.text(name);
        text.split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(|entry| {
                let (listener, address) = entry
                    .split_once("://")
                    .ok_or_else(|| self.wrong(name, "each entry is NAME://host:port"))?;
                let (host, port) =
                    address.rsplit_once(':').ok_or_else(|| self.wrong(name, "each entry ends in :port"))?;
                let port =
                    port.parse().map_err(|_| self.wrong(name, "a port is a number from 0 to 65535"))?;
                let host = host.trim_start_matches('[').trim_end_matches(']');
                Ok((listener.to_ascii_uppercase(), host.to_string(), port))
            })
            .collect()
    }
}

fn default_of(name: &str) -> &'static str {
    FIELDS.iter().find(|field| field.name == name).map_or("", |field| field.default)
}

impl Config {
    pub fn read(mut settings: Settings) -> Result<Self, ConfigError> {
        let mut warnings = Vec::new();
        if let Some(old) = settings.remove("broker.id") {
            settings.entry("node.id".to_string()).or_insert(old);
        }
        if let Some(old) = settings.remove("log.dir") {
            settings.entry("log.dirs".to_string()).or_insert(old);
        }
        let (broker, mut given) = broker_config(&mut settings)?;
        check_names(&settings, &mut warnings)?;
        let reader = Reader { settings };
        let (listeners, advertised) = listeners(&reader)?;
        let admin = reader.text("admin.listener");
        let journal_bytes = reader.number("journal.bytes", 4 << 20, 1 << 40)? as u64;
        let batch_bytes = u64::from(broker.topic_defaults.max_message_bytes);
        if journal_bytes < JOURNAL_PER_BATCH * batch_bytes {
            let least = JOURNAL_PER_BATCH * batch_bytes;
            let why = format!("a batch of message.max.bytes = {batch_bytes} needs at least {least}");
            return Err(reader.wrong("journal.bytes", &why));
        }
        Ok(Self {
            node: NodeId(reader.number("node.id", 0, i64::from(i32::MAX))? as i32),
            log_dirs: log_dirs(&reader)?,
            listeners,
            advertised,
            admin: match admin.trim() {
                "" => None,
                address => Some(resolve(address).map_err(|why| reader.wrong("admin.listener", &why))?),
            },
            cores: cores(&reader)?,
            host: host(&reader)?,
            journal_bytes,
            tail_pool_bytes: reader.number("tail.pool.bytes", 1 << 20, 1 << 40)? as u64,
            request_bytes_max: reader.number("socket.request.max.bytes", 1 << 20, i64::from(i32::MAX))?
                as usize,
            idle_ms_max: reader.number("connections.max.idle.ms", 1, i64::MAX)? as u64,
            verify_always: match reader.text("fetch.verify").trim() {
                "first" => false,
                "always" => true,
                _ => return Err(reader.wrong("fetch.verify", "must be first or always")),
            },
            scrub_bytes_per_second: reader.number("log.scrub.bytes.per.second", 0, i64::MAX)? as u64,
            scrub_interval_ms: reader.number("log.scrub.interval.ms", 60_000, i64::MAX / 2_000_000)? as u64,
            retention_check_ms: reader.number("log.retention.check.interval.ms", 1, i64::MAX)? as u64,
            is_cleaning: reader.truth("log.cleaner.enable")?,
            free_bytes_min: reader.number("log.dir.free.bytes.min", 0, i64::MAX)? as u64,
            stall_ms: reader.number("log.dir.stall.ms", 1, i64::MAX)? as u64,
            auto_create_topics: reader.truth("auto.create.topics.enable")?,
            offsets_partitions_count: reader.number("offsets.topic.num.partitions", 1, 10_000)? as i32,
            creation: CreationDefaults {
                partitions_count: reader.number("num.partitions", 1, 100_000)? as i32,
                replication_factor: reader.number("default.replication.factor", 1, i64::from(i16::MAX))?
                    as i16,
            },
            broker,
            group_initial_rebalance_delay_ms: reader.number(
                "group.initial.rebalance.delay.ms",
                0,
                i64::from(i32::MAX),
            )? as u64,
            group_session_timeout_min_ms: reader.number(
                "group.min.session.timeout.ms",
                1,
                i64::from(i32::MAX),
            )? as u64,
            group_session_timeout_max_ms: reader.number(
                "group.max.session.timeout.ms",
                1,
                i64::from(i32::MAX),
            )? as u64,
            group_size_max: reader.number("group.max.size", 1, i64::from(i32::MAX))? as usize,
            given: {
                given.extend(reader.settings.iter().map(|(name, given)| (name.clone(), given.value.clone())));
                given
            },
            warnings,
        })
    }

    /// What may change, as the catalog begins with it.
    pub fn broker_settings(&self) -> BrokerSettings {
        BrokerSettings::new(self.broker.clone(), self.given.clone())
    }
}

fn host(reader: &Reader) -> Result<HostKind, ConfigError> {
    match reader.text("host").trim() {
        "plain" => Ok(HostKind::Plain),
        #[cfg(feature = "glommio")]
        "glommio" => Ok(HostKind::Glommio),
        #[cfg(not(feature = "glommio"))]
        "glommio" => Err(reader.wrong(
            "host",
            "this build is without it; `cargo build --release --features glommio` makes one with it",
        )),
        _ => Err(reader.wrong("host", "must be plain or glommio")),
    }
}

fn log_dirs(reader: &Reader) -> Result<Vec<PathBuf>, ConfigError> {
    let text = reader.text("log.dirs");
    let mut dirs: Vec<PathBuf> = Vec::new();
    for dir in text.split(',').map(str::trim).filter(|dir| !dir.is_empty()).map(PathBuf::from) {
        if dirs.contains(&dir) {
            return Err(reader.wrong("log.dirs", &format!("{} is given twice", dir.display())));
        }
        dirs.push(dir);
    }
    if dirs.is_empty() {
        return Err(reader.wrong("log.dirs", "at least one log directory is needed"));
    }
    Ok(dirs)
}

/// Takes the settings that may change later out of `settings`, and says which were given.
fn broker_config(settings: &mut Settings) -> Result<(BrokerConfig, BTreeMap<String, String>), ConfigError> {
    let mut config = BrokerConfig::default();
    let mut taken = BTreeMap::new();
    // Kafka lets the finest unit given win.
    let coarser: [(&str, &[(&str, i64)]); 2] = [
        ("log.retention.ms", &[("log.retention.minutes", 60_000), ("log.retention.hours", 3_600_000)]),
        ("log.roll.ms", &[("log.roll.hours", 3_600_000)]),
    ];
    for (target, units) in coarser {
        for (name, ms) in units {
            let Some(given) = settings.remove(*name) else { continue };
            let count: i64 =
                given.value.trim().parse().map_err(|_| format!("{name} ({}): not a number", given.origin))?;
            let value = if count < 0 { -1 } else { count.saturating_mul(*ms) };
            let in_ms = Given { value: value.to_string(), origin: given.origin };
            settings.entry(target.to_string()).or_insert(in_ms);
        }
    }
    for setting in broker_config::settings() {
        let name = setting.broker_name;
        if let Some(given) = settings.remove(name) {
            config
                .set(setting, &given.value)
                .map_err(|error| format!("{name} ({}): {}", given.origin, error.0))?;
            taken.insert(name.to_string(), given.value);
        }
    }
    Ok((config, taken))
}

fn check_names(settings: &Settings, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    for (name, given) in settings {
        if FIELDS.iter().any(|field| field.name == name) {
            continue;
        }
        let known = KAFKA_SETTINGS.lines().any(|kafka| kafka == name)
            || name.starts_with("listener.name.")
            || name == "process.roles"
            || name.starts_with("controller.");
        if known {
            warnings.push(format!("{name} ({}) is a setting of Kafka that has no effect here", given.origin));
            continue;
        }
        let names = FIELDS.iter().map(|field| field.name);
        let names = names.chain(broker_config::settings().map(|setting| setting.broker_name));
        let names = names.chain(KAFKA_SETTINGS.lines());
        let nearest = names.min_by_key(|candidate| distance(candidate, name)).unwrap_or("listeners");
        return Err(format!("{name} ({}) is no setting; did you mean {nearest}?", given.origin));
    }
    Ok(())
}

fn listeners(reader: &Reader) -> Result<(Vec<Listener>, Vec<Advertised>), ConfigError> {
    let endpoints = reader.endpoints("listeners")?;
    // A file written for a combined Kafka node also lists its controller listener: not served here.
    let controllers = reader.text("controller.listener.names");
    let is_controller =
        |name: &str| controllers.split(',').any(|other| other.trim().eq_ignore_ascii_case(name));
    let mut listeners = Vec::new();
    let mut advertised = Vec::new();
    let told = reader.endpoints("advertised.listeners")?;
    for (name, host, port) in endpoints.into_iter().filter(|(name, _, _)| !is_controller(name)) {
        let host_to_bind = if host.is_empty() { "0.0.0.0" } else { host.as_str() };
        let address = resolve_host(host_to_bind, port).map_err(|why| reader.wrong("listeners", &why))?;
        if listeners.iter().any(|other: &Listener| other.name == name) {
            return Err(reader.wrong("listeners", &format!("the name {name} is given twice")));
        }
        let told = told.iter().find(|(other, _, _)| *other == name);
        advertised.push(match told {
            Some((_, host, _)) if host == "0.0.0.0" || host.is_empty() => {
                return Err(reader.wrong(
                    "advertised.listeners",
                    "clients can't connect to 0.0.0.0; give a name or address",
                ));
            }
            Some((_, host, port)) => Advertised { host: host.clone(), port: *port },
            None if address.ip().is_unspecified() => Advertised { host: host_name(), port },
            None => Advertised { host, port },
        });
        listeners.push(Listener { name, address });
    }
    if let Some((name, _, _)) =
        told.iter().find(|(name, _, _)| listeners.iter().all(|listener| listener.name != *name))
    {
        return Err(reader.wrong("advertised.listeners", &format!("{name} is no listener")));
    }
    if listeners.is_empty() {
        return Err(reader.wrong("listeners", "at least one listener is needed"));
    }
    Ok((listeners, advertised))
}

/// The machine's own name, which Kafka advertises for a listener on all addresses.
fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".into())
}

fn resolve(address: &str) -> Result<SocketAddr, String> {
    let (host, port) = address.rsplit_once(':').ok_or("an address is host:port")?;
    resolve_host(host, port.parse().map_err(|_| "a port is a number from 0 to 65535")?)
}

fn resolve_host(host: &str, port: u16) -> Result<SocketAddr, String> {
    (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("{host} doesn't resolve: {error}"))?
        .next()
        .ok_or_else(|| format!("{host} has no address"))
}

fn cores(reader: &Reader) -> Result<Cores, ConfigError> {
    match reader.text("cores").trim() {
        "" => Ok(Cores::All),
        "unpinned" => Ok(Cores::Unpinned),
        list => list
            .split(',')
            .map(|core| {
                core.trim()
                    .parse()
                    .map_err(|_| reader.wrong("cores", "core numbers with commas, or 'unpinned'"))
            })
            .collect::<Result<_, _>>()
            .map(Cores::List),
    }
}

/// Edits that make one name the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let given = |value: &&str| Given { value: value.to_string(), origin: "test".into() };
        Config::read(pairs.iter().map(|(name, value)| (name.to_string(), given(value))).collect())
    }

    #[test]
    fn fields_are_sorted_and_their_defaults_make_a_config() {
        assert!(FIELDS.is_sorted_by_key(|field| field.name));
        let config = read(&[]).expect("defaults are valid");
        assert_eq!(config.advertised, [Advertised { host: "127.0.0.1".into(), port: 9092 }]);
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest() {
        let error = read(&[("log.retention.mss", "1")]).expect_err("unknown");
        assert!(error.contains("did you mean log.retention.ms?"), "{error}");
    }

    #[test]
    fn a_name_of_kafka_without_effect_warns_once() {
        let config = read(&[("num.io.threads", "8")]).expect("accepted");
        assert_eq!(config.warnings.len(), 1);
    }

    #[test]
    fn topic_defaults_come_from_brokers_names() {
        let config = read(&[("log.retention.hours", "2"), ("message.max.bytes", "5")]).expect("valid");
        assert_eq!(config.broker.topic_defaults.retention_ms, 7_200_000);
        assert_eq!(config.broker.topic_defaults.max_message_bytes, 5);
        let config = read(&[("log.retention.hours", "2"), ("log.retention.ms", "5")]).expect("valid");
        assert_eq!(config.broker.topic_defaults.retention_ms, 5, "the finer unit wins");
    }

    #[test]
    fn wrong_values_name_the_setting_and_where_it_was_given() {
        let cases = [
            ("node.id", "-1"),
            ("listeners", "127.0.0.1:9092"),
            ("listeners", "A://127.0.0.1:1,A://127.0.0.1:2"),
            ("advertised.listeners", "PLAINTEXT://0.0.0.0:9092"),
            ("advertised.listeners", "OTHER://h:1"),
            ("cores", "a"),
            ("host", "tokio"),
            ("auto.create.topics.enable", "yes"),
            ("log.cleaner.io.max.bytes.per.second", "0"),
            ("log.cleaner.enable", "perhaps"),
            ("log.dirs", "/a,/b, /a"),
            ("log.dirs", " ,"),
            ("segment.bytes", "1"),
            ("log.segment.bytes", "1"),
        ];
        for (name, value) in cases {
            let error = read(&[(name, value)]).expect_err(name);
            assert!(error.contains(name) && error.contains("test"), "{error}");
        }
    }

    #[test]
    fn a_host_that_this_build_lacks_is_refused_with_how_to_build_it() {
        assert_eq!(read(&[]).expect("valid").host, HostKind::Plain);
        let asked = read(&[("host", "glommio")]);
        #[cfg(feature = "glommio")]
        assert_eq!(asked.expect("built in").host, HostKind::Glommio);
        #[cfg(not(feature = "glommio"))]
        assert!(asked.expect_err("not built in").contains("--features glommio"));
    }

    #[test]
    fn several_log_directories() {
        let dirs = |pairs: &[(&str, &str)]| read(pairs).expect("valid").log_dirs;
        assert_eq!(dirs(&[]), [PathBuf::from("./corelane-data")]);
        assert_eq!(dirs(&[("log.dirs", "/a, /b,")]), [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(dirs(&[("log.dir", "/a,/b")]).len(), 2);
        assert_eq!(dirs(&[("log.dir", "/a,/b"), ("log.dirs", "/c")]), [PathBuf::from("/c")]);
    }

    #[test]
    fn several_listeners_with_names_and_all_addresses() {
        let config = read(&[
            ("listeners", "INSIDE://:9094,OUTSIDE://127.0.0.1:0,CONTROLLER://:9093"),
            ("advertised.listeners", "INSIDE://broker.example:19094"),
            ("controller.listener.names", "CONTROLLER"),
        ])
        .expect("valid");
        assert_eq!(config.listeners.len(), 2);
        assert!(config.listeners[0].address.ip().is_unspecified());
        assert_eq!(config.advertised[0], Advertised { host: "broker.example".into(), port: 19094 });
        assert_eq!(config.advertised[1], Advertised { host: "127.0.0.1".into(), port: 0 });
    }
}
