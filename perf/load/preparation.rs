//! Preparation: the connections of a load with everything they send, before anything is connected.

use crate::Failure;
use crate::client::Client;
use crate::frames::ProduceFrame;
use crate::keys::Keys;
use crate::options::{Acks, Partitioner, ProduceOptions, Rate};
use crate::partitioning::{KeyDistribution, Partitioning};
use crate::producer::{Producer, shares};
use crate::stamp::STAMP_BYTES;
use crate::template::{BatchSize, Content, RecordKeys, Template};
use corelane::protocol::compression::{Codec, Codecs};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Refuses what can't be, or can't be together.
pub fn check(options: &ProduceOptions) -> Result<(), Failure> {
    let is_keyed = options.partitioner == Some(Partitioner::Keyed);
    let is_compressed = options.compression.codec() != Codec::None;
    let refusals = [
        (options.record_bytes < STAMP_BYTES, format!("--record-bytes: at least {STAMP_BYTES}")),
        (options.keys == Some(0), "--keys: at least 1".to_string()),
        (is_keyed && options.keys.is_none(), "--partitioner keyed needs --keys".to_string()),
        (
            options.partitioner == Some(Partitioner::Sticky) && options.keys.is_some(),
            "--partitioner sticky is for records without keys: leave --keys out".to_string(),
        ),
        (
            !is_keyed && options.key_distribution != KeyDistribution::Uniform,
            "--key-distribution needs --partitioner keyed".to_string(),
        ),
        (
            options.partitioner.is_some() && options.partitions_per_request > 1,
            "--partitioner chooses one partition a request: leave --partitions-per-request out".to_string(),
        ),
        (
            options.requests.is_some() && options.rate != Rate::Max,
            "--requests needs --rate max: a schedule has an end of its own".to_string(),
        ),
        (
            options.idempotent && options.acks != Acks::All,
            "--idempotent needs --acks all: nothing less tells whether a sequence was taken".to_string(),
        ),
        (
            options.idempotent && options.reconnect,
            "--idempotent can't --reconnect: a batch without answer would have to be sent again".to_string(),
        ),
        (
            is_compressed && (options.verify || options.stamp),
            "--compression can't --verify or --stamp: records would have to be compressed again for each send"
                .to_string(),
        ),
        (
            is_compressed && options.keys.is_some() && !is_keyed,
            "--compression can't number --keys at each send: add --partitioner keyed".to_string(),
        ),
    ];
    match refusals.into_iter().find(|(is_so, _)| *is_so) {
        Some((_, what)) => Err(Failure::new(what)),
        None => Ok(()),
    }
}

pub fn template(options: &ProduceOptions, timestamp_ms: u64) -> Template {
    let size = options.batch_records.map_or(BatchSize::Bytes(options.batch_bytes), BatchSize::Records);
    let keys = match (options.keys, options.partitioner) {
        (None, _) => RecordKeys::None,
        (Some(_), Some(_)) => RecordKeys::Given,
        (Some(count), None) => RecordKeys::Numbered(Keys(count)),
    };
    Template::new(&Content {
        seed: options.seed,
        record_bytes: options.record_bytes,
        keys,
        size,
        timestamp_ms: timestamp_ms as i64,
        codec: options.compression.codec(),
    })
}

/// How partitions are chosen; `None` when each connection has its own and takes them in turn.
pub fn partitioning(options: &ProduceOptions, partitions_count: usize) -> Option<Partitioning> {
    Some(match options.partitioner? {
        Partitioner::Sticky => Partitioning::sticky(partitions_count),
        Partitioner::Keyed => {
            Partitioning::keyed(options.keys.unwrap_or(1), options.key_distribution, partitions_count)
        }
    })
}

/// The producers of all connections. `client` is asked for their ids.
pub fn producers(
    options: &ProduceOptions,
    leaders: &BTreeMap<SocketAddr, Vec<i32>>,
    template: &Template,
    partitioning: Option<&Partitioning>,
    client: &mut Client,
) -> Result<Vec<Producer>, Failure> {
    let connections = options.common.connections.max(1);
    let at_once = options.partitions_per_request.max(1);
    let mut codecs = Codecs::default();
    let mut producers = Vec::new();
    for (address, partitions) in leaders {
        let own: Vec<Vec<i32>> = match partitioning {
            None => shares(partitions, connections, at_once),
            // As a client does, each connection writes to every partition of its leader that has a share.
            Some(partitioning) => {
                let chosen =
                    partitions.iter().copied().filter(|partition| partitioning.share(*partition) > 0.0);
                vec![chosen.collect(); connections]
            }
        };
        for share in own.into_iter().filter(|share| !share.is_empty()) {
            let stream = producers.len() as u32;
            let seed = options.seed.wrapping_add(u64::from(stream) << 32);
            let frames = share.chunks(at_once).map(|some| {
                let batch_of = |partition: i32| {
                    let seed = seed.wrapping_add(1 + partition as u64);
                    let keys = partitioning.and_then(|partitioning| partitioning.keys_of(partition, seed));
                    match keys {
                        Some(keys) => template.batch_of(partition, stream, &mut codecs, keys),
                        None => template.batch_of(partition, stream, &mut codecs, || [0; _]),
                    }
                };
                ProduceFrame::new(&options.common.topic, options.acks.number(), some, batch_of)
            });
            let mut producer = Producer::new(*address, frames.collect());
            if let Some(partitioning) = partitioning {
                let sum: f64 = share.iter().map(|partition| partitioning.share(*partition)).sum();
                producer.rate_factor = sum * leaders.len() as f64;
                producer.choice = Some(partitioning.choice(&share, seed));
            }
            if options.idempotent {
                producer.identity = Some(client.producer_id()?);
            }
            producers.push(producer);
        }
    }
    Ok(producers)
}
