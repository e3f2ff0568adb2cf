//! Directories: the log directories of this node and the lanes in them. Where new partitions go.

use super::decide::Refusal;
use super::record::MetadataRecord;
use crate::base::ids::{DirectoryId, LaneId, NodeId};

#[derive(Clone, Debug)]
pub struct Directory {
    pub id: DirectoryId,
    /// Where it was found last.
    pub path: String,
    /// In the order in which they were given out.
    pub lanes: Vec<LaneId>,
    /// It takes and gives nothing until a restart. The one thing here that no record says: what a
    /// process knows of its own disks at this moment.
    pub failed: bool,
}

/// A log directory as it is found at start.
#[derive(Clone, Debug)]
pub struct FoundDirectory {
    pub id: DirectoryId,
    pub path: String,
    /// The lanes on disk.
    pub lanes: Vec<LaneId>,
}

/// Why a log directory isn't used. Each prints as the reason and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryRefusal {
    Twice { other: String },
    Foreign,
    Swapped { expected: DirectoryId, found: DirectoryId },
}

impl std::fmt::Display for DirectoryRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Twice { other } => write!(f, "it is the same directory as {other}: name it once in log.dirs"),
            Self::Foreign => f.write_str(
                "it holds lanes that this broker's metadata doesn't know: it belongs to another broker, or the \
                 metadata to another directory",
            ),
            Self::Swapped { expected, found } => write!(
                f,
                "here was the directory with id {expected:?}, and now there is {found:?}: a file system isn't \
                 mounted, or another one is; mount the right one, or give a new disk another path"
            ),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Directories {
    all: Vec<Directory>,
    /// By lane: its directory, and the partitions in it.
    lanes: Vec<LaneUse>,
}

#[derive(Clone, Copy, Debug, Default)]
struct LaneUse {
    directory: Option<usize>,
    partitions_count: u32,
}

impl Directories {
    pub fn iter(&self) -> impl Iterator<Item = &Directory> {
        self.all.iter()
    }

    pub fn get(&self, id: DirectoryId) -> Option<&Directory> {
        self.all.iter().find(|directory| directory.id == id)
    }

    pub fn of_lane(&self, lane: LaneId) -> Option<&Directory> {
        Some(&self.all[self.lanes.get(usize::from(lane.0))?.directory?])
    }

    pub fn is_failed(&self, lane: LaneId) -> bool {
        self.of_lane(lane).is_some_and(|directory| directory.failed)
    }

    /// From now on its partitions are offline; true when it was not failed before.
    pub fn fail(&mut self, id: DirectoryId) -> bool {
        let found = self.all.iter_mut().find(|directory| directory.id == id);
        found.is_some_and(|directory| !std::mem::replace(&mut directory.failed, true))
    }

    pub(super) fn opened(&mut self, id: DirectoryId, path: &str, lanes: &[LaneId]) {
        let index = self.all.iter().position(|directory| directory.id == id).unwrap_or_else(|| {
            self.all.push(Directory { id, path: String::new(), lanes: Vec::new(), failed: false });
            self.all.len() - 1
        });
        let directory = &mut self.all[index];
        directory.path = path.to_owned();
        directory.lanes.extend(lanes);
        for lane in lanes {
            let found = self.lane_mut(*lane).directory.replace(index);
            assert_eq!(found, None, "a lane number is given out once");
        }
    }

    pub(super) fn partition_came(&mut self, lane: LaneId) {
        self.lane_mut(lane).partitions_count += 1;
    }

    pub(super) fn partition_went(&mut self, lane: LaneId) {
        self.lane_mut(lane).partitions_count -= 1;
    }

    fn lane_mut(&mut self, lane: LaneId) -> &mut LaneUse {
        let index = usize::from(lane.0);
        if index >= self.lanes.len() {
            self.lanes.resize_with(index + 1, LaneUse::default);
        }
        &mut self.lanes[index]
    }

    /// What becomes of the directories found at start, in their order: a record to commit where
    /// something is new, or a refusal. Afterwards each has a lane for every shard that hosts lanes by
    /// `lane mod shards_count`.
    pub fn open(
        &self,
        node: NodeId,
        found: &[FoundDirectory],
        shards_count: u16,
    ) -> Vec<Result<Option<MetadataRecord>, DirectoryRefusal>> {
        let mut given = Vec::new();
        let each = found.iter().enumerate().map(|(index, directory)| {
            self.check(directory, &found[..index], found)?;
            let known = self.get(directory.id);
            let own = known.map_or(&[][..], |known| &known.lanes);
            let mut lanes = Vec::new();
            for shard in 0..shards_count {
                if !own.iter().any(|lane| lane.0 % shards_count == shard) {
                    let lane = self.free_lane(shard, shards_count, &given);
                    given.push(lane);
                    lanes.push(lane);
                }
            }
            let is_new = known.is_none_or(|known| known.path != directory.path) || !lanes.is_empty();
            let (id, path) = (directory.id, directory.path.clone());
            Ok(is_new.then_some(MetadataRecord::DirectoryOpened { node, directory: id, path, lanes }))
        });
        each.collect()
    }

    fn check(
        &self,
        directory: &FoundDirectory,
        before: &[FoundDirectory],
        found: &[FoundDirectory],
    ) -> Result<(), DirectoryRefusal> {
        if let Some(other) = before.iter().find(|other| other.id == directory.id) {
            return Err(DirectoryRefusal::Twice { other: other.path.clone() });
        }
        let known = self.get(directory.id);
        if known.is_none() {
            let is_elsewhere = |id: DirectoryId| found.iter().any(|other| other.id == id);
            let expected = self.all.iter().find(|known| known.path == directory.path);
            if let Some(expected) = expected.filter(|expected| !is_elsewhere(expected.id)) {
                return Err(DirectoryRefusal::Swapped { expected: expected.id, found: directory.id });
            }
        }
        let own = known.map_or(&[][..], |known| &known.lanes);
        if directory.lanes.iter().any(|lane| !own.contains(lane)) {
            return Err(DirectoryRefusal::Foreign);
        }
        Ok(())
    }

    /// The smallest number never given out whose lane this shard would host.
    fn free_lane(&self, shard: u16, shards_count: u16, given: &[LaneId]) -> LaneId {
        let is_free = |lane: &LaneId| {
            let known = self.lanes.get(usize::from(lane.0));
            known.is_none_or(|lane| lane.directory.is_none()) && !given.contains(lane)
        };
        let numbers = (shard..=u16::MAX).step_by(usize::from(shards_count)).map(LaneId);
        numbers.into_iter().find(is_free).expect("65,536 lanes are more than any machine's cores and disks")
    }

    /// A lane for each of `count` new partitions: in the directory with the fewest partitions, as in
    /// Kafka, the lane with the fewest. Of each directory only one lane per shard takes new ones:
    /// where there were more shards once, the others only keep what they have.
    pub(super) fn place(&self, count: usize, shards_count: u16) -> Result<Vec<LaneId>, Refusal> {
        let mut counts: Vec<u32> = self.lanes.iter().map(|lane| lane.partitions_count).collect();
        let mut places: Vec<(u32, Vec<LaneId>)> = Vec::new();
        for directory in self.all.iter().filter(|directory| !directory.failed) {
            let of_shard = |shard: u16| {
                directory.lanes.iter().filter(|lane| lane.0 % shards_count == shard).min().copied()
            };
            let lanes: Vec<LaneId> = (0..shards_count).filter_map(of_shard).collect();
            if !lanes.is_empty() {
                let kept = directory.lanes.iter().map(|lane| counts[usize::from(lane.0)]).sum();
                places.push((kept, lanes));
            }
        }
        let mut chosen = Vec::with_capacity(count);
        for _ in 0..count {
            let (kept, lanes) =
                places.iter_mut().min_by_key(|(kept, _)| *kept).ok_or(Refusal::NotAvailable)?;
            let lane = *lanes.iter().min_by_key(|lane| counts[usize::from(lane.0)]).expect("never empty");
            *kept += 1;
            counts[usize::from(lane.0)] += 1;
            chosen.push(lane);
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    fn id(number: u8) -> DirectoryId {
        DirectoryId([number; 16])
    }

    fn found(number: u8, path: &str, lanes: &[u16]) -> FoundDirectory {
        let lanes = lanes.iter().copied().map(LaneId).collect();
        FoundDirectory { id: id(number), path: path.into(), lanes }
    }

    /// Opens and applies; which directories are refused, by index.
    fn open(directories: &mut Directories, found: &[FoundDirectory], shards: u16) -> Vec<DirectoryRefusal> {
        let mut refused = Vec::new();
        for outcome in directories.open(NODE, found, shards) {
            match outcome {
                Ok(Some(MetadataRecord::DirectoryOpened { directory, path, lanes, .. })) => {
                    directories.opened(directory, &path, &lanes);
                }
                Ok(Some(other)) => panic!("{other:?}"),
                Ok(None) => {}
                Err(refusal) => refused.push(refusal),
            }
        }
        refused
    }

    fn lanes(directories: &Directories, number: u8) -> Vec<u16> {
        directories.get(id(number)).expect("known").lanes.iter().map(|lane| lane.0).collect()
    }

    #[test]
    fn every_shard_gets_a_lane_in_every_directory_and_no_number_twice() {
        let mut directories = Directories::default();
        let (a, b) = (found(1, "/a", &[]), found(2, "/b", &[]));
        assert_eq!(open(&mut directories, &[a, b], 1), []);
        assert_eq!((lanes(&directories, 1), lanes(&directories, 2)), (vec![0], vec![1]));
        // Two shards: lane 0 is the first one's and lane 1 the second's.
        let (a, b) = (found(1, "/a", &[0]), found(2, "/b", &[1]));
        assert_eq!(open(&mut directories, &[a.clone(), b.clone()], 2), []);
        assert_eq!((lanes(&directories, 1), lanes(&directories, 2)), (vec![0, 3], vec![1, 2]));
        // One is missing: what a new one gets isn't what the missing one has.
        assert_eq!(open(&mut directories, &[a, found(3, "/c", &[])], 2), []);
        assert_eq!(lanes(&directories, 3), [4, 5]);
        // Back to one shard, and nothing is new.
        let all = [found(1, "/a", &[0, 3]), b, found(3, "/c", &[4, 5])];
        assert!(directories.open(NODE, &all, 1).iter().all(|outcome| *outcome == Ok(None)));
        assert_eq!(directories.place(3, 1), Ok(vec![LaneId(0), LaneId(1), LaneId(4)]));
    }

    #[test]
    fn new_partitions_go_where_the_fewest_are_and_not_to_a_failed_directory() {
        let mut directories = Directories::default();
        let all = [found(1, "/a", &[]), found(2, "/b", &[])];
        open(&mut directories, &all, 2);
        assert_eq!((lanes(&directories, 1), lanes(&directories, 2)), (vec![0, 1], vec![2, 3]));
        (0..3).for_each(|_| directories.partition_came(LaneId(0)));
        directories.partition_came(LaneId(3));
        let placed = |directories: &Directories, count| {
            let lanes = directories.place(count, 2)?;
            Ok::<_, Refusal>(lanes.iter().map(|lane| lane.0).collect::<Vec<_>>())
        };
        assert_eq!(placed(&directories, 4), Ok(vec![2, 2, 1, 3]));
        directories.partition_went(LaneId(0));
        assert!(directories.fail(id(2)) && !directories.fail(id(2)));
        assert!(directories.is_failed(LaneId(3)) && !directories.is_failed(LaneId(0)));
        assert_eq!(placed(&directories, 3), Ok(vec![1, 1, 0]));
        directories.fail(id(1));
        assert_eq!(placed(&directories, 1), Err(Refusal::NotAvailable));
    }

    #[test]
    fn a_directory_that_is_not_what_it_was_is_refused() {
        let mut directories = Directories::default();
        open(&mut directories, &[found(1, "/a", &[]), found(2, "/b", &[])], 1);
        let refused = |found: &[FoundDirectory]| open(&mut directories.clone(), found, 1);
        let a = found(1, "/a", &[0]);
        let swapped = DirectoryRefusal::Swapped { expected: id(2), found: id(9) };
        assert_eq!(refused(&[a.clone(), found(9, "/b", &[])]), [swapped]);
        assert_eq!(refused(&[a.clone(), found(9, "/c", &[7])]), [DirectoryRefusal::Foreign]);
        assert_eq!(refused(&[a.clone(), found(2, "/b", &[1, 7])]), [DirectoryRefusal::Foreign]);
        let twice = DirectoryRefusal::Twice { other: "/a".into() };
        assert_eq!(refused(&[a.clone(), found(1, "/copy", &[0])]), [twice]);
        // Moved ones are known by their ids, and what lies where one was is a new one.
        assert_eq!(refused(&[found(2, "/a", &[1]), found(1, "/b", &[0])]), []);
        assert_eq!(refused(&[a, found(2, "/moved", &[1]), found(9, "/b", &[])]), []);
    }
}
