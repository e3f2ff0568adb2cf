//! Fetch session: a consumer names its partitions once and only changes after that (KIP-227).
//!
//! Pure: a cache of sessions with a bound, and the rules of ids and epochs.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::base::ids::{LeaderEpoch, Offset, PartitionId, TopicId};

/// Sessions kept at most per shard, Kafka's `max.incremental.fetch.session.cache.slots`. A client
/// that finds no room is served without a session.
pub const SESSIONS_MAX: usize = 1000;

/// A topic as a request named it: by name up to Fetch 12, by id from 13.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicKey {
    /// Empty when only the id was given and no such topic is known.
    pub name: Rc<str>,
    pub id: TopicId,
}

/// What is fetched of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchTarget {
    pub topic: TopicKey,
    pub partition: PartitionId,
    pub offset: Offset,
    pub bytes_max: usize,
    /// The leader epoch the client believes in; `None` skips the check.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// What a client was last told of a partition; it is told again when that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct Told {
    high_watermark: Option<Offset>,
    log_start: Option<Offset>,
}

/// A topic by what the session names topics by, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    Name(Rc<str>),
    Id(TopicId),
}

type Key = (Named, PartitionId);

#[derive(Debug)]
struct Cached {
    target: FetchTarget,
    told: Told,
    turn: u64,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    by_id: bool,
    partitions: BTreeMap<Key, Cached>,
    /// The order in which they are served: who got records goes behind the others, so that a fetch
    /// that is full before its end doesn't leave the same ones out for ever.
    turns: BTreeMap<u64, Key>,
    turns_count: u64,
    used_at: u64,
}

impl Session {
    fn key(&self, topic: &TopicKey, partition: PartitionId) -> Key {
        let named = if self.by_id { Named::Id(topic.id) } else { Named::Name(topic.name.clone()) };
        (named, partition)
    }

    /// Adds a partition behind the others, or changes what is fetched of it.
    fn put(&mut self, target: FetchTarget) {
        let key = self.key(&target.topic, target.partition);
        if let Some(cached) = self.partitions.get_mut(&key) {
            cached.target = target;
            return;
        }
        let turn = self.next_turn(key.clone());
        self.partitions.insert(key, Cached { target, told: Told::default(), turn });
    }

    fn next_turn(&mut self, key: Key) -> u64 {
        self.turns_count += 1;
        self.turns.insert(self.turns_count, key);
        self.turns_count
    }

    fn forget(&mut self, topic: &TopicKey, partition: PartitionId) {
        if let Some(cached) = self.partitions.remove(&self.key(topic, partition)) {
            self.turns.remove(&cached.turn);
        }
    }

    fn targets(&self) -> Vec<FetchTarget> {
        self.turns.values().map(|key| self.partitions[key].target.clone()).collect()
    }
}

/// What is about to be said of a partition.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub high_watermark: Offset,
    pub log_start: Offset,
    pub has_records: bool,
    pub is_error: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// 70.
    IdNotFound,
    /// 71.
    InvalidEpoch,
    /// 106: the session began with names and goes on with ids, or the other way round.
    TopicIdMismatch,
}

/// How a fetch is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchContext {
    /// 0 without a session.
    pub session_id: i32,
    /// Only changed partitions are answered.
    pub incremental: bool,
    pub targets: Vec<FetchTarget>,
}

/// The session part of a Fetch request.
#[derive(Clone, Copy, Debug)]
pub struct SessionRequest {
    pub id: i32,
    pub epoch: i32,
    pub by_id: bool,
}

const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;

#[derive(Debug)]
pub struct FetchSessions {
    sessions: BTreeMap<i32, Session>,
    next_id: i32,
    /// Ids are distinct on all shards: they are this shard's number modulo the count of shards.
    id_step: i32,
    clock: u64,
}

impl FetchSessions {
    pub fn new(shard: u16, shards_count: u16) -> Self {
        Self {
            sessions: BTreeMap::new(),
            next_id: i32::from(shard) + 1,
            id_step: i32::from(shards_count.max(1)),
            clock: 0,
        }
    }

    /// Opens, continues or ends the session that `request` names.
    pub fn begin(
        &mut self,
        request: SessionRequest,
        targets: Vec<FetchTarget>,
        forgotten: &[(TopicKey, PartitionId)],
    ) -> Result<FetchContext, SessionError> {
        self.clock += 1;
        match request.epoch {
            FINAL_EPOCH => {
                self.sessions.remove(&request.id);
                Ok(FetchContext { session_id: 0, incremental: false, targets })
            }
            INITIAL_EPOCH => {
                self.sessions.remove(&request.id);
                let session_id = if targets.is_empty() { 0 } else { self.open(request.by_id, &targets) };
                Ok(FetchContext { session_id, incremental: false, targets })
            }
            _ => self.proceed(request, targets, forgotten),
        }
    }

    fn open(&mut self, by_id: bool, targets: &[FetchTarget]) -> i32 {
        if self.sessions.len() >= SESSIONS_MAX && !self.evict_stale() {
            return 0;
        }
        let id = self.next_id;
        self.next_id = match id.checked_add(self.id_step) {
            Some(next) => next,
            None => (id - 1) % self.id_step + 1,
        };
        let mut session = Session {
            epoch: 1,
            by_id,
            partitions: BTreeMap::new(),
            turns: BTreeMap::new(),
            turns_count: 0,
            used_at: self.clock,
        };
        targets.iter().for_each(|target| session.put(target.clone()));
        self.sessions.insert(id, session);
        id
    }

    /// Makes room by the session unused for longest, if others were used a cache's worth of times
    /// since.
    fn evict_stale(&mut self) -> bool {
        let Some((id, used_at)) = self
            .sessions
            .iter()
            .map(|(id, session)| (*id, session.used_at))
            .min_by_key(|(_, used_at)| *used_at)
        else {
            return false;
        };
        let is_stale = self.clock - used_at > 2 * SESSIONS_MAX as u64;
        if is_stale {
            self.sessions.remove(&id);
        }
        is_stale
    }

    fn proceed(
        &mut self,
        request: SessionRequest,
        targets: Vec<FetchTarget>,
        forgotten: &[(TopicKey, PartitionId)],
    ) -> Result<FetchContext, SessionError> {
        let session = self.sessions.get_mut(&request.id).ok_or(SessionError::IdNotFound)?;
        if request.epoch != session.epoch {
            return Err(SessionError::InvalidEpoch);
        }
        if request.by_id != session.by_id {
            return Err(SessionError::TopicIdMismatch);
        }
        session.epoch = if session.epoch == i32::MAX { 1 } else { session.epoch + 1 };
        session.used_at = self.clock;
        forgotten.iter().for_each(|(topic, partition)| session.forget(topic, *partition));
        targets.into_iter().for_each(|target| session.put(target));
        let targets = session.targets();
        Ok(FetchContext { session_id: request.id, incremental: true, targets })
    }

    /// Remembers what a partition's answer says; true when the answer has to be sent: it has
    /// records or an error, or tells something new.
    pub fn tell(&mut self, session_id: i32, target: &FetchTarget, answer: Answer) -> bool {
        let Some(session) = self.sessions.get_mut(&session_id) else { return true };
        let key = session.key(&target.topic, target.partition);
        let Some(cached) = session.partitions.get_mut(&key) else { return true };
        let now = Told { high_watermark: Some(answer.high_watermark), log_start: Some(answer.log_start) };
        let is_new = std::mem::replace(&mut cached.told, now) != now;
        if answer.has_records {
            let before = cached.turn;
            session.turns.remove(&before);
            let turn = session.next_turn(key.clone());
            session.partitions.get_mut(&key).expect("found above").turn = turn;
        }
        is_new || answer.has_records || answer.is_error
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> TopicKey {
        TopicKey { name: name.into(), id: TopicId([name.len() as u8; 16]) }
    }

    fn target(name: &str, offset: i64) -> FetchTarget {
        FetchTarget {
            topic: topic(name),
            partition: PartitionId(0),
            offset: Offset(offset),
            bytes_max: 1,
            leader_epoch: None,
        }
    }

    fn request(id: i32, epoch: i32) -> SessionRequest {
        SessionRequest { id, epoch, by_id: false }
    }

    #[test]
    fn a_session_remembers_its_partitions() {
        let mut sessions = FetchSessions::new(0, 1);
        let full = sessions.begin(request(0, 0), vec![target("a", 1), target("bb", 1)], &[]).expect("opens");
        assert!(!full.incremental && full.session_id > 0);
        let id = full.session_id;
        let next = sessions.begin(request(id, 1), vec![target("a", 5)], &[]).expect("goes on");
        assert_eq!(next.targets, [target("a", 5), target("bb", 1)]);
        let forgotten = [(topic("a"), PartitionId(0))];
        let last = sessions.begin(request(id, 2), vec![], &forgotten).expect("goes on");
        assert_eq!(last.targets, [target("bb", 1)]);
    }

    #[test]
    fn wrong_ids_and_epochs_have_kafkas_errors() {
        let mut sessions = FetchSessions::new(0, 1);
        assert_eq!(sessions.begin(request(7, 1), vec![], &[]), Err(SessionError::IdNotFound));
        let id = sessions.begin(request(0, 0), vec![target("a", 1)], &[]).expect("opens").session_id;
        assert_eq!(sessions.begin(request(id, 2), vec![], &[]), Err(SessionError::InvalidEpoch));
        let by_id = SessionRequest { id, epoch: 1, by_id: true };
        assert_eq!(sessions.begin(by_id, vec![], &[]), Err(SessionError::TopicIdMismatch));
        let ended = sessions.begin(request(id, -1), vec![target("a", 1)], &[]).expect("ends");
        assert_eq!((ended.session_id, ended.incremental), (0, false));
        assert!(sessions.is_empty());
    }

    fn answer(high_watermark: i64, log_start: i64) -> Answer {
        let (high_watermark, log_start) = (Offset(high_watermark), Offset(log_start));
        Answer { high_watermark, log_start, has_records: false, is_error: false }
    }

    #[test]
    fn only_news_is_told_again() {
        let mut sessions = FetchSessions::new(0, 1);
        let target = target("a", 1);
        let id = sessions.begin(request(0, 0), vec![target.clone()], &[]).expect("opens").session_id;
        assert!(sessions.tell(id, &target, answer(1, 0)));
        assert!(!sessions.tell(id, &target, answer(1, 0)));
        assert!(sessions.tell(id, &target, Answer { has_records: true, ..answer(1, 0) }));
        assert!(sessions.tell(id, &target, Answer { is_error: true, ..answer(1, 0) }));
        assert!(sessions.tell(id, &target, answer(2, 0)));
        assert!(sessions.tell(id, &target, answer(2, 1)));
    }

    #[test]
    fn who_got_records_goes_behind_the_others() {
        let mut sessions = FetchSessions::new(0, 1);
        let all = ["a", "bb", "ccc"].map(|name| target(name, 1));
        let id = sessions.begin(request(0, 0), all.to_vec(), &[]).expect("opens").session_id;
        let [a, b, c] = all;
        sessions.tell(id, &a, Answer { has_records: true, ..answer(1, 0) });
        sessions.tell(id, &b, answer(1, 0));
        let next = sessions.begin(request(id, 1), vec![], &[]).expect("goes on");
        assert_eq!(next.targets, [b.clone(), c.clone(), a.clone()]);
        // A change of what is fetched keeps the place.
        let later = target("a", 9);
        let next = sessions.begin(request(id, 2), vec![later.clone()], &[]).expect("goes on");
        assert_eq!(next.targets, [b, c, later]);
    }

    #[test]
    fn a_full_cache_serves_without_a_session_until_one_is_stale() {
        let mut sessions = FetchSessions::new(1, 2);
        for _ in 0..SESSIONS_MAX {
            let opened = sessions.begin(request(0, 0), vec![target("a", 1)], &[]).expect("opens");
            assert_eq!(opened.session_id % 2, 0, "ids of shard 1 of 2 are even");
        }
        let refused = sessions.begin(request(0, 0), vec![target("a", 1)], &[]).expect("served");
        assert_eq!(refused.session_id, 0);
        for _ in 0..2 * SESSIONS_MAX {
            sessions.begin(request(0, -1), vec![], &[]).expect("served");
        }
        assert!(sessions.begin(request(0, 0), vec![target("a", 1)], &[]).expect("opens").session_id > 0);
        assert_eq!(sessions.len(), SESSIONS_MAX);
    }
}
