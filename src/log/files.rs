//! Files: the segment files held open, least recently used first out.

use std::collections::BTreeMap;

use crate::ring::{FileId, Ring, SharedFile};

struct Open {
    file: FileId,
    /// To send from, where files are shared and a descriptor was left.
    shared: Option<SharedFile>,
    /// Jobs between two operations on it.
    pins: u32,
    used: u64,
}

pub(super) struct Files {
    /// By segment id, which no two segments of a lane share.
    open: BTreeMap<u64, Open>,
    /// Segments by their last use.
    order: BTreeMap<u64, u64>,
    open_max: usize,
    /// They go through the page cache, and are sent from there.
    shares: bool,
    uses_count: u64,
}

impl Files {
    pub(super) fn new(open_max: u32, shares: bool) -> Self {
        let (open, order) = (BTreeMap::new(), BTreeMap::new());
        Self { open, order, open_max: open_max as usize, shares, uses_count: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_open(&self, segment: u64) -> bool {
        self.open.contains_key(&segment)
    }

    fn use_of(&mut self, segment: u64) -> Option<&mut Open> {
        let open = self.open.get_mut(&segment)?;
        self.order.remove(&open.used);
        self.uses_count += 1;
        open.used = self.uses_count;
        self.order.insert(open.used, segment);
        Some(open)
    }

    /// The open file of a segment, pinned until `unpin`.
    pub(super) fn pin(&mut self, segment: u64) -> Option<FileId> {
        let open = self.use_of(segment)?;
        open.pins += 1;
        Some(open.file)
    }

    /// A handle to send from, of a file that is open.
    pub(super) fn shared(&mut self, segment: u64) -> Option<SharedFile> {
        self.use_of(segment)?.shared.clone()
    }

    /// The file that the caller has pinned.
    pub(super) fn pinned(&self, segment: u64) -> FileId {
        self.open.get(&segment).expect("a pinned file stays open").file
    }

    /// Takes a file that was just opened, and pins it. Where two jobs opened the same one, the
    /// second handle is closed.
    pub(super) fn insert(&mut self, ring: &mut Ring, segment: u64, file: FileId) -> FileId {
        if let Some(known) = self.pin(segment) {
            ring.close(file);
            return known;
        }
        self.shrink(ring, self.open_max.saturating_sub(1));
        let shared = if self.shares { ring.share(file) } else { None };
        self.open.insert(segment, Open { file, shared, pins: 1, used: 0 });
        self.use_of(segment);
        file
    }

    pub(super) fn unpin(&mut self, segment: u64) {
        let open = self.open.get_mut(&segment).expect("a pinned file stays open");
        open.pins -= 1;
    }

    /// Closes a segment's file before it is removed. No job uses it.
    pub(super) fn close(&mut self, ring: &mut Ring, segment: u64) {
        if let Some(open) = self.open.remove(&segment) {
            self.order.remove(&open.used);
            assert_eq!(open.pins, 0, "no job works on a segment being removed");
            ring.close(open.file);
        }
    }

    /// Closes the least recently used files until `max` are left, or only pinned ones.
    pub(super) fn shrink(&mut self, ring: &mut Ring, max: usize) {
        while self.open.len() > max {
            let Some(segment) = self.order.values().copied().find(|segment| self.open[segment].pins == 0)
            else {
                return;
            };
            self.close(ring, segment);
        }
    }
}
