//! Verify: what the broker serves after its disk came back, against what it acknowledged.

use crate::client::{Client, Gone, OFFSET_EARLIEST, OFFSET_LATEST};
use crate::load::{
    Besides, ERROR_COORDINATOR_LOADS, ERROR_NOT_COORDINATOR, ERROR_OFFSET_OUT_OF_RANGE, Life, Topic, Worker,
    churned_names, is_at_its_place,
};
use crate::records::cut_batches;
use std::time::{Duration, Instant};

/// A recovered broker answers at once; a loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(60);

const FETCH_BYTES: i32 = 4 << 20;

#[derive(Debug, Default)]
pub struct Findings {
    /// Records read back.
    pub read: u64,
    /// Acknowledged or consumed records, acknowledged topics, log starts and commits that aren't there.
    pub lost: u64,
    /// Records or answers that can't be.
    pub wrong: u64,
    /// Batches found though their acknowledgement never came.
    pub unacknowledged: u64,
    pub samples: Vec<String>,
}

impl Findings {
    fn lose(&mut self, count: u64, what: String) {
        self.lost += count;
        self.samples.push(format!("lost {count}: {what}"));
    }

    fn find(&mut self, what: String) {
        self.wrong += 1;
        self.samples.push(format!("wrong: {what}"));
    }

    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.wrong == 0
    }
}

/// Reads everything back and compares.
pub fn verify(address: &str, workers: &[Worker]) -> Findings {
    let mut findings = Findings::default();
    if let Err(gone) = verify_all(address, workers, &mut findings) {
        findings.find(format!("the recovered broker doesn't answer: {gone:?}"));
    }
    findings
}

fn verify_all(address: &str, workers: &[Worker], findings: &mut Findings) -> Result<(), Gone> {
    let mut client = Client::connect(address, PATIENCE)?;
    let there = client.topics()?;
    for worker in workers {
        worker.wrong.iter().for_each(|what| findings.find(what.clone()));
        for topic in &worker.topics {
            match (topic.life, there.contains(&topic.name)) {
                (Life::There, true) => verify_topic(&mut client, topic, findings)?,
                (Life::There, false) => findings.lose(1, format!("topic {}", topic.name)),
                _ => {}
            }
        }
        if worker.besides == Besides::Churn {
            for name in churned_names() {
                let is_known = worker.topics.iter().any(|topic| topic.name == name);
                if !is_known && there.contains(&name) {
                    findings.lose(1, format!("the deletion of topic {name}"));
                }
            }
        }
        if worker.commits.requested > 0 {
            verify_commits(&mut client, worker, findings)?;
        }
    }
    Ok(())
}

fn verify_commits(client: &mut Client, worker: &Worker, findings: &mut Findings) -> Result<(), Gone> {
    let (commits, topic) = (&worker.commits, &worker.topics[0].name);
    let started = Instant::now();
    let mut found = client.committed(&commits.group, topic)?;
    // A coordinator loads its groups first; without a topic of offsets there is none.
    while let Err(ERROR_COORDINATOR_LOADS | ERROR_NOT_COORDINATOR) = found
        && started.elapsed() < PATIENCE
    {
        client.find_coordinator(&commits.group)?;
        std::thread::sleep(Duration::from_millis(20));
        found = client.committed(&commits.group, topic)?;
    }
    match found {
        Err(code) => findings.find(format!("committed offsets of {} answer {code}", commits.group)),
        Ok(found) if commits.acknowledged > 0 && found < commits.acknowledged => {
            findings.lose(1, format!("{} committed {}, found {found}", commits.group, commits.acknowledged));
        }
        Ok(found) if found > commits.requested => {
            findings
                .find(format!("{} committed {} at most, found {found}", commits.group, commits.requested));
        }
        Ok(_) => {}
    }
    Ok(())
}

fn verify_topic(client: &mut Client, topic: &Topic, findings: &mut Findings) -> Result<(), Gone> {
    for partition in &topic.partitions {
        let index = partition.stream.partition;
        let place = format!("{}-{index}", topic.name);
        let ends = (
            client.offset(&topic.name, index, OFFSET_EARLIEST)?,
            client.offset(&topic.name, index, OFFSET_LATEST)?,
        );
        let (Ok(log_start), Ok(end)) = ends else {
            findings.find(format!("{place}: log start and end answer {ends:?}"));
            continue;
        };
        if topic.is_durable {
            let known = partition.acknowledged_end.max(partition.seen_end);
            if end < known {
                findings.lose((known - end) as u64, format!("{place} ends at {end}, known were {known}"));
            }
            findings.unacknowledged += (end - partition.acknowledged_end).max(0) as u64;
            if end > partition.sent_end {
                findings.find(format!("{place} ends at {end}, sent were {}", partition.sent_end));
            }
            if log_start < partition.delete_acknowledged {
                let deleted = partition.delete_acknowledged;
                findings.lose(1, format!("{place}: the log start {deleted}, which is {log_start}"));
            }
        }
        let mut log_start = log_start;
        let bytes = loop {
            if let Some(bytes) = read_partition(client, topic, index, (log_start, end), findings)? {
                break bytes;
            }
            // Retention goes on while we read.
            log_start = client.offset(&topic.name, index, OFFSET_EARLIEST)?.unwrap_or(end);
        };
        let moved = log_start > partition.delete_requested;
        let is_kept = topic.retention_bytes.is_some_and(|kept| bytes >= kept);
        if topic.is_durable && moved && !is_kept {
            let lost = (log_start - partition.delete_requested) as u64;
            findings.lose(lost, format!("{place} begins at {log_start} and has {bytes} bytes"));
        }
    }
    Ok(())
}

/// Reads from `log_start` to `end`; returns the bytes of all batches, or `None` when the log start moved on.
fn read_partition(
    client: &mut Client,
    topic: &Topic,
    index: i32,
    (log_start, end): (i64, i64),
    findings: &mut Findings,
) -> Result<Option<u64>, Gone> {
    let place = format!("{}-{index}", topic.name);
    let partition = &topic.partitions[index as usize];
    let (mut at, mut bytes) = (log_start, 0);
    while at < end {
        let mut fetched = client.fetch(&topic.name, 0, FETCH_BYTES, &[(index, at)])?;
        let Some(fetched) = fetched.pop() else {
            findings.find(format!("{place} at {at}: a fetch without the partition"));
            break;
        };
        let batches = cut_batches(&fetched.records);
        if fetched.error == ERROR_OFFSET_OUT_OF_RANGE
            && client.offset(&topic.name, index, OFFSET_EARLIEST)?.is_ok_and(|log_start| log_start > at)
        {
            return Ok(None);
        }
        if fetched.error != 0 || batches.is_empty() {
            let missing = (end.min(partition.acknowledged_end) - at).max(0) as u64;
            findings.lose(missing, format!("{place} can't be read at {at}: code {}", fetched.error));
            findings.wrong += 1;
            break;
        }
        for batch in batches {
            let (base, numbers) = match partition.stream.read(batch) {
                Ok(read) => read,
                Err(what) => {
                    findings.find(format!("{place}: {what}"));
                    return Ok(Some(bytes));
                }
            };
            // A log start that was moved may lie inside of a batch, which is served whole.
            if base != at && !(at == log_start && base < at) {
                findings.find(format!("{place}: a batch at {base} where {at} is next"));
            }
            let were_sent = numbers.iter().all(|number| (0..partition.sent_end).contains(number));
            if !were_sent || topic.is_durable && !is_at_its_place(base, &numbers) {
                let (first, last) = (numbers.first(), numbers.last());
                findings.find(format!("{place} at {base}: records {first:?} to {last:?}"));
            }
            at = base + numbers.len() as i64;
            bytes += batch.len() as u64;
            findings.read += numbers.len() as u64;
        }
    }
    Ok(Some(bytes))
}
