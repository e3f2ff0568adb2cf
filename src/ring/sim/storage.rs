//! Storage: file operations on the simulated disk, with their faults.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Weak;

use super::disk::{Inode, Mark};
use super::image::PAGE_BYTES;
use super::{Event, Frozen, Lie, LieKind, Machine, OpenFile, RingIndex};
use crate::ring::{BufferPiece, Completion, IoBuffer, IoError, OpenMode, Token, WriteMode};

pub(super) enum DiskOperation {
    Open { path: PathBuf, mode: OpenMode },
    Read { inode: Inode, position: u64, buffer: IoBuffer, range: Range<usize> },
    Write { inode: Inode, position: u64, buffer: IoBuffer, range: Range<usize>, mode: WriteMode },
    WritePieces { inode: Inode, position: u64, pieces: Vec<BufferPiece> },
    Flush { inode: Inode, mark: Mark },
    Allocate { inode: Inode, from: u64, bytes: u64 },
    Truncate { inode: Inode, bytes: u64 },
    RemoveFile { path: PathBuf },
    RemoveDir { path: PathBuf },
    MakeDir { path: PathBuf },
    FlushDir { path: PathBuf, mark: Mark },
}

impl Machine {
    pub(super) fn open_inodes(&self) -> BTreeSet<Inode> {
        let files = self.rings.iter().filter(|ring| ring.alive).flat_map(|ring| ring.files.values());
        let in_flight = self.events.values().chain(&self.held).filter_map(|event| match event {
            Event::Disk { operation, .. } => operation.inode(),
            Event::Network(_) => None,
        });
        let shared = self.shared.iter().filter_map(Weak::upgrade).map(|shared| shared.inode());
        files.map(|file| file.inode).chain(in_flight).chain(shared).collect()
    }

    /// Counts an operation; says how it must fail, and cuts the power when it is the one.
    pub(super) fn count_operation(&mut self) -> Option<IoError> {
        self.operations_count += 1;
        self.failures.remove(&self.operations_count)
    }

    pub(super) fn submit_disk(&mut self, ring: RingIndex, token: Token, operation: DiskOperation) {
        if !self.rings[ring].alive {
            let completion = operation.into_completion(token, Err(IoError::Os(libc::EIO)));
            self.post(ring, completion);
            return;
        }
        let failure = self.count_operation();
        let faults = self.faults.clone();
        let mut latency_ns = self.between(faults.disk_min_ns, faults.disk_max_ns);
        if self.hits(faults.slow_ppm) {
            latency_ns = latency_ns.max(faults.slow_ns);
        }
        let mark = self.disk.mark();
        let operation = match operation {
            DiskOperation::Flush { inode, .. } => DiskOperation::Flush { inode, mark },
            DiskOperation::FlushDir { path, .. } => DiskOperation::FlushDir { path, mark },
            operation => operation,
        };
        let hangs = self.frozen.as_ref().is_some_and(|frozen| operation.is_in(frozen));
        let event = Event::Disk { ring, token, operation, failure };
        if hangs {
            self.held.push(event);
        } else {
            self.schedule(self.now_ns + latency_ns, event);
        }
        if self.power_cut_at == Some(self.operations_count) {
            self.power_cut();
        }
    }

    pub(super) fn execute(
        &mut self,
        ring: RingIndex,
        token: Token,
        mut operation: DiskOperation,
        failure: Option<IoError>,
    ) -> Completion {
        let failure =
            failure.or((self.faults.no_descriptors && operation.opens()).then_some(IoError::NoDescriptors));
        let result = match &mut operation {
            // The directory wasn't opened, so it wasn't flushed either.
            DiskOperation::FlushDir { .. } if failure == Some(IoError::NoDescriptors) => {
                Err(IoError::NoDescriptors)
            }
            DiskOperation::Open { path, mode } => {
                let opened = match failure {
                    Some(error) => Err(error),
                    None => self.disk.open(path, *mode),
                };
                let mode = *mode;
                let result = opened.map(|inode| self.rings[ring].insert(OpenFile { inode, mode }));
                return Completion::Opened { token, result };
            }
            DiskOperation::Read { inode, position, buffer, range } => {
                self.read(*inode, *position, &mut buffer[range.clone()], failure)
            }
            DiskOperation::Write { inode, position, buffer, range, mode } => {
                self.write(*inode, *position, buffer[range.clone()].into(), *mode, failure)
            }
            DiskOperation::WritePieces { inode, position, pieces } => {
                self.write(*inode, *position, joined(pieces), WriteMode::Plain, failure)
            }
            DiskOperation::Flush { inode, mark } => {
                let result = self.flush_outcome(failure);
                self.disk.flush(*inode, *mark, result.is_err());
                result
            }
            DiskOperation::FlushDir { path, mark } => {
                let result = self.flush_outcome(failure);
                let open = self.open_inodes();
                self.disk.flush_dir(path, *mark, result.is_err(), &open).and(result)
            }
            other => match failure {
                Some(error) => Err(error),
                None => self.change(other),
            },
        };
        operation.into_completion(token, result)
    }

    fn change(&mut self, operation: &DiskOperation) -> Result<(), IoError> {
        match operation {
            DiskOperation::Allocate { inode, from, bytes } => {
                self.check_space(*inode, *from, *bytes)?;
                self.disk.allocate(*inode, *from, *bytes);
                Ok(())
            }
            DiskOperation::Truncate { inode, bytes } => {
                self.disk.truncate(*inode, *bytes);
                Ok(())
            }
            DiskOperation::RemoveFile { path } => self.disk.remove_file(path),
            DiskOperation::RemoveDir { path } => self.disk.remove_dir(path),
            DiskOperation::MakeDir { path } => self.disk.make_dir(path),
            DiskOperation::Open { .. }
            | DiskOperation::Read { .. }
            | DiskOperation::Write { .. }
            | DiskOperation::WritePieces { .. }
            | DiskOperation::Flush { .. }
            | DiskOperation::FlushDir { .. } => unreachable!("executed by its own function"),
        }
    }

    fn check_space(&self, inode: Inode, from: u64, bytes: u64) -> Result<(), IoError> {
        let Some(capacity_bytes) = self.faults.capacity_bytes else { return Ok(()) };
        let growth_bytes = self.disk.growth_bytes(inode, from, bytes);
        let used_bytes = self.disk.used_bytes(&self.open_inodes());
        if growth_bytes > 0 && used_bytes + growth_bytes > capacity_bytes {
            return Err(IoError::NoSpace);
        }
        Ok(())
    }

    fn flush_outcome(&mut self, failure: Option<IoError>) -> Result<(), IoError> {
        let hit = self.hits(self.faults.flush_error_ppm);
        match failure.or(hit.then_some(IoError::Os(libc::EIO))) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn read(
        &mut self,
        inode: Inode,
        position: u64,
        data: &mut [u8],
        failure: Option<IoError>,
    ) -> Result<(), IoError> {
        let hit = self.hits(self.faults.read_error_ppm);
        let bad = hit || !self.disk.is_readable(inode, position, data.len() as u64);
        if let Some(error) = failure.or(bad.then_some(IoError::Os(libc::EIO))) {
            return Err(error);
        }
        let transferred_bytes = self.disk.read(inode, position, data);
        if transferred_bytes > 0 && self.hits(self.faults.read_flip_ppm) {
            let index = self.random.below(transferred_bytes as u64) as usize;
            data[index] ^= 1 << self.random.below(8);
            let at = position + index as u64;
            self.lie(LieKind::Flipped { at }, inode, position, transferred_bytes);
        }
        if transferred_bytes < data.len() { Err(IoError::Short { transferred_bytes }) } else { Ok(()) }
    }

    fn write(
        &mut self,
        inode: Inode,
        position: u64,
        data: Rc<[u8]>,
        mode: WriteMode,
        failure: Option<IoError>,
    ) -> Result<(), IoError> {
        self.check_space(inode, position, data.len() as u64)?;
        let durable = mode == WriteMode::Durable;
        let faults = self.faults.clone();
        let hit = self.hits(faults.write_error_ppm);
        if let Some(error) = failure.or(hit.then_some(IoError::Os(libc::EIO))) {
            self.write_some_sectors(inode, position, &data);
            return Err(error);
        }
        if self.hits(faults.lost_write_ppm) {
            self.lie(LieKind::Lost, inode, position, data.len());
            return Ok(());
        }
        if self.hits(faults.misdirected_write_ppm) {
            let blocks_count = 1 + position / PAGE_BYTES as u64;
            let elsewhere = self.random.below(blocks_count) * PAGE_BYTES as u64;
            if elsewhere != position {
                self.lie(LieKind::Misdirected { to: elsewhere }, inode, position, data.len());
            }
            self.disk.write(inode, elsewhere, data, durable);
            return Ok(());
        }
        if self.hits(faults.short_write_ppm) {
            let blocks_count = (data.len() / PAGE_BYTES) as u64;
            let transferred_bytes = self.random.below(blocks_count) as usize * PAGE_BYTES;
            if transferred_bytes > 0 {
                self.disk.write(inode, position, data[..transferred_bytes].into(), durable);
            }
            return Err(IoError::Short { transferred_bytes });
        }
        self.disk.write(inode, position, data, durable);
        Ok(())
    }

    fn lie(&mut self, kind: LieKind, inode: Inode, position: u64, bytes: usize) {
        let path = self.disk.path_of(inode);
        self.lies.push(Lie { kind, path, position, bytes: bytes as u64 });
    }

    /// A write that failed: what is where it went is undefined.
    fn write_some_sectors(&mut self, inode: Inode, position: u64, data: &[u8]) {
        for (index, sector) in data.chunks(512).enumerate() {
            if self.random.chance(1, 2) {
                self.disk.write(inode, position + index as u64 * 512, sector.into(), false);
            }
        }
    }

    pub(super) fn happen_in_flight(
        &mut self,
        operation: &DiskOperation,
        power_gone: bool,
    ) -> Result<(), IoError> {
        match operation {
            DiskOperation::Open { path, mode: OpenMode::CreateNew } => {
                self.disk.open(path, OpenMode::CreateNew).map(|_| ())
            }
            DiskOperation::Open { .. } | DiskOperation::Read { .. } => Ok(()),
            DiskOperation::Write { inode, position, buffer, range, mode } => {
                let durable = *mode == WriteMode::Durable && !power_gone;
                self.disk.write(*inode, *position, buffer[range.clone()].into(), durable);
                Ok(())
            }
            DiskOperation::WritePieces { inode, position, pieces } => {
                self.disk.write(*inode, *position, joined(pieces), false);
                Ok(())
            }
            DiskOperation::Flush { inode, mark } => {
                self.disk.flush(*inode, *mark, false);
                Ok(())
            }
            DiskOperation::FlushDir { path, mark } => {
                let open = self.open_inodes();
                self.disk.flush_dir(path, *mark, false, &open)
            }
            other => self.change(other),
        }
    }
}

fn joined(pieces: &[BufferPiece]) -> Rc<[u8]> {
    pieces.iter().flat_map(|piece| piece.bytes().iter().copied()).collect()
}

impl DiskOperation {
    pub(super) fn inode(&self) -> Option<Inode> {
        match self {
            Self::Read { inode, .. }
            | Self::Write { inode, .. }
            | Self::WritePieces { inode, .. }
            | Self::Flush { inode, .. }
            | Self::Allocate { inode, .. }
            | Self::Truncate { inode, .. } => Some(*inode),
            Self::Open { .. }
            | Self::RemoveFile { .. }
            | Self::RemoveDir { .. }
            | Self::MakeDir { .. }
            | Self::FlushDir { .. } => None,
        }
    }

    /// It needs a descriptor of its own.
    fn opens(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::FlushDir { .. })
    }

    fn is_in(&self, frozen: &Frozen) -> bool {
        let path = match self {
            Self::Open { path, .. }
            | Self::RemoveFile { path }
            | Self::RemoveDir { path }
            | Self::MakeDir { path }
            | Self::FlushDir { path, .. } => Some(path),
            _ => None,
        };
        path.is_some_and(|path| path.starts_with(&frozen.dir))
            || self.inode().is_some_and(|inode| frozen.inodes.contains(&inode))
    }

    /// The completion of this operation; `open` is completed elsewhere when it succeeded.
    pub(super) fn into_completion(self, token: Token, result: Result<(), IoError>) -> Completion {
        match self {
            Self::Read { buffer, .. } | Self::Write { buffer, .. } => {
                Completion::Transferred { token, result, buffer }
            }
            Self::Open { .. } => Completion::Opened {
                token,
                result: Err(result.expect_err("an open that succeeded has its own completion")),
            },
            _ => Completion::Done { token, result },
        }
    }
}
