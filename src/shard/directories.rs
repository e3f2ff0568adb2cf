//! Directories: what a shard knows of its log directories, and what becomes of lanes when one fails.
//!
//! A directory fails as a whole and alone: the first lane with a failed write or flush takes every lane
//! of the same directory along, on every shard, and none of another.

use super::Core;
use super::mail::Mail;
use super::room::{Room, RoomOptions};
use crate::api::describe_log_dirs::Space;
use crate::base::ids::{DirectoryId, ShardId};
use crate::catalog::Catalog;
use crate::log::Lane;
use crate::metrics::directory::DirectoryCells;
use crate::partition::append::AppendRefusal;
use crate::partition::waiters::ReplyTo;

/// The log directories as a shard knows them from outside of its lanes.
#[derive(Clone, Default)]
pub struct Directories {
    cells: Vec<&'static DirectoryCells>,
    options: RoomOptions,
}

impl Directories {
    pub fn new(cells: Vec<&'static DirectoryCells>, options: RoomOptions) -> Self {
        Self { cells, options }
    }

    pub fn space(&self, id: DirectoryId) -> Space {
        let measured = self.cells(id).and_then(DirectoryCells::space);
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        measured.map_or(Space::UNKNOWN, |space| Space {
            total_bytes: bytes(space.total_bytes),
            usable_bytes: bytes(space.usable_bytes),
        })
    }

    pub fn cells(&self, id: DirectoryId) -> Option<&'static DirectoryCells> {
        self.cells.iter().find(|cells| cells.id == Some(id)).copied()
    }

    /// Rooms for the lanes of a shard, and by lane which one; lanes of failed directories have none.
    pub fn rooms(
        &self,
        shard: ShardId,
        lanes: &[Lane],
        catalog: &Catalog,
    ) -> (Vec<Room>, Vec<Option<usize>>) {
        let index_of = |lane: &Lane| {
            let id = catalog.directories.of_lane(lane.id())?.id;
            self.cells.iter().position(|cells| cells.id == Some(id))
        };
        let rooms = self.cells.iter().map(|cells| Room::new(shard.0, cells, self.options));
        (rooms.collect(), lanes.iter().map(index_of).collect())
    }
}

impl Core {
    /// Looks at how the disks fare; connections read on that waited with others for one that hangs.
    pub fn look_at_directories(&mut self) {
        let had_stalled = self.storage.has_stalled();
        self.room |= self.storage.look_at_rooms(self.now);
        if had_stalled && !self.storage.has_stalled() {
            self.resume_paused();
        }
    }

    /// A lane of this shard failed, and so did its directory: all shards are told.
    pub fn on_fenced(&mut self, lane: usize, what: &str) {
        let directory = self.metadata.catalog.directories.of_lane(self.storage.lanes[lane].id());
        let directory = directory.expect("a lane is recorded with its directory before it is made");
        let id = directory.id;
        if !directory.failed {
            tracing::error!(
                directory = directory.path,
                what,
                "the log directory failed: its partitions are offline, others go on; check the disk, then restart"
            );
            for shard in (0..self.mailbox.shards_count()).map(|shard| ShardId(shard as u16)) {
                if shard != self.id {
                    self.mailbox.post(shard, Mail::DirectoryFailed { directory: id, what: what.into() });
                }
            }
        }
        self.fail_directory(id, what);
    }

    /// Nothing more is acknowledged or read of the directory's partitions; who waits for them is told.
    pub fn fail_directory(&mut self, id: DirectoryId, what: &str) {
        self.metadata.catalog.directories.fail(id);
        if let Some(cells) = self.directories.cells(id) {
            cells.set_failed(self.id.0);
        }
        for lane in 0..self.storage.lanes.len() {
            let directory = self.metadata.catalog.directories.of_lane(self.storage.lanes[lane].id());
            if directory.is_none_or(|directory| directory.id != id) {
                continue;
            }
            self.storage.lanes[lane].fence_with_directory(what);
            let waiting: Vec<ReplyTo> = self.storage.drain_produce_waiters(lane);
            for reply_to in waiting {
                self.on_appended(reply_to, Err(AppendRefusal::StorageError));
            }
            let reading: Vec<ReplyTo> = self.storage.drain_fetch_waiters(lane);
            for waiter in reading {
                self.progress(waiter.shard, waiter.request);
            }
        }
        // What waits for room is refused.
        self.room = true;
    }
}
