//! Sim: the simulated twin. One world is one machine: disk, network, clock, faults.
//!
//! Owns:     everything a process would find in the kernel, so that it outlives the process: rings
//!           come and go (kill, power cut), the world stays.
//! Promises: the same seed and the same calls give the same completions in the same order. Time
//!           moves only when a ring turns or a test advances it.
//! Never:    reads the machine's clock or randomness, runs a thread, iterates in hash order.
//! Called by `Ring`, and by tests that play the machine's part.

mod disk;
mod faults;
mod image;
mod ring;

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{Completion, FileId, IoBuffer, IoError, OpenMode, Sleep, Token, WriteMode};
use crate::base::ids::MonotonicNs;
use crate::base::random::Random;
use disk::{Disk, Inode, Mark};
pub use faults::Faults;
pub use ring::{SimRing, SimWaker};

/// Wall time at the world's beginning: 14 November 2023.
const WALL_START_MS: i64 = 1_700_000_000_000;

/// Monotonic time at the world's beginning: not 0, so that "0" is never a valid time by accident.
const MONOTONIC_START_NS: u64 = 1_000_000_000;

/// What a turn costs, so that a loop that never sleeps gets older.
const TURN_NS: u64 = 1_000;

/// A handle of one simulated machine; clones share it. Single-threaded.
#[derive(Clone)]
pub struct World(Rc<RefCell<Machine>>);

struct Machine {
    random: Random,
    now_ns: u64,
    wall_jump_ms: i64,
    faults: Faults,
    disk: Disk,
    /// What happens, at which time, in which order.
    events: BTreeMap<(u64, u64), Event>,
    events_count: u64,
    rings: Vec<RingState>,
    operations_count: u64,
    /// Operation number and how it fails.
    failures: BTreeMap<u64, IoError>,
    /// Operation number at whose submission the power goes.
    power_cut_at: Option<u64>,
}

/// What the machine keeps for a ring. Rings made before a kill or a power cut are dead.
struct RingState {
    alive: bool,
    posted: VecDeque<Completion>,
    files: BTreeMap<FileId, OpenFile>,
    files_count: u32,
}

#[derive(Clone, Copy)]
struct OpenFile {
    inode: Inode,
    mode: OpenMode,
}

type RingIndex = usize;

enum Event {
    Disk { ring: RingIndex, token: Token, operation: DiskOperation, failure: Option<IoError> },
}

enum DiskOperation {
    Open { path: PathBuf, mode: OpenMode },
    Read { inode: Inode, position: u64, buffer: IoBuffer, range: Range<usize> },
    Write { inode: Inode, position: u64, buffer: IoBuffer, range: Range<usize>, mode: WriteMode },
    Flush { inode: Inode, mark: Mark },
    Allocate { inode: Inode, from: u64, bytes: u64 },
    Truncate { inode: Inode, bytes: u64 },
    RemoveFile { path: PathBuf },
    RemoveDir { path: PathBuf },
    MakeDir { path: PathBuf },
    FlushDir { path: PathBuf, mark: Mark },
}

impl World {
    /// A machine with an empty disk: only `/` is there.
    pub fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(Machine {
            random: Random::new(seed),
            now_ns: MONOTONIC_START_NS,
            wall_jump_ms: 0,
            faults: Faults::default(),
            disk: Disk::new(),
            events: BTreeMap::new(),
            events_count: 0,
            rings: Vec::new(),
            operations_count: 0,
            failures: BTreeMap::new(),
            power_cut_at: None,
        })))
    }

    fn machine(&self) -> RefMut<'_, Machine> {
        self.0.borrow_mut()
    }

    // ---- Time --------------------------------------------------------------------------------

    pub fn now(&self) -> MonotonicNs {
        MonotonicNs(self.machine().now_ns)
    }

    /// Lets time pass; what falls due on the way happens.
    pub fn advance(&self, ms: u64) {
        let mut machine = self.machine();
        let end = machine.now_ns + ms * 1_000_000;
        machine.run_until(end);
    }

    /// Moves the wall clock only.
    pub fn jump_wall(&self, ms: i64) {
        self.machine().wall_jump_ms += ms;
    }

    // ---- Faults ------------------------------------------------------------------------------

    pub fn set_faults(&self, faults: Faults) {
        self.machine().faults = faults;
    }

    pub fn faults(&self) -> Faults {
        self.machine().faults.clone()
    }

    /// The `number`-th file operation submitted from now on fails with `error`; 1 is the next.
    pub fn fail_operation(&self, number: u64, error: IoError) {
        assert!(number > 0);
        let mut machine = self.machine();
        let at = machine.operations_count + number;
        machine.failures.insert(at, error);
    }

    /// The power goes when the `number`-th file operation from now on is submitted; 1 is the next.
    /// That operation is in flight then: it may have reached the disk, in part.
    pub fn power_cut_at(&self, number: u64) {
        assert!(number > 0);
        let mut machine = self.machine();
        machine.power_cut_at = Some(machine.operations_count + number);
    }

    /// File operations submitted since the world began.
    pub fn operations_count(&self) -> u64 {
        self.machine().operations_count
    }

    /// The power goes now. Every ring is dead: what it had in flight and whatever it submits later
    /// fails with EIO. A ring made after this finds what the disk kept.
    pub fn power_cut(&self) {
        self.machine().power_cut();
    }

    /// SIGKILL of the process. Rings are dead as after a power cut. What had completed is still
    /// there and no more durable than it was; each operation in flight has happened or not.
    pub fn kill(&self) {
        self.machine().kill();
    }

    // ---- The disk, seen from outside ---------------------------------------------------------

    /// Makes a directory and its parents, durable at once.
    pub fn make_dirs(&self, path: &Path) {
        self.machine().disk.make_dirs(path);
    }

    /// What a reader would find in the file now; None when it is absent.
    pub fn read_file(&self, path: &Path) -> Option<Vec<u8>> {
        self.machine().disk.contents(path)
    }

    /// Changes a byte of a file at rest.
    pub fn corrupt(&self, path: &Path, position: u64, xor: u8) {
        assert!(xor != 0);
        self.machine().disk.corrupt(path, position, xor);
    }

    /// The paths of all files, in order.
    pub fn files(&self) -> Vec<String> {
        self.machine().disk.files()
    }
}

impl Machine {
    fn schedule(&mut self, at_ns: u64, event: Event) {
        self.events_count += 1;
        self.events.insert((at_ns, self.events_count), event);
    }

    fn hits(&mut self, ppm: u32) -> bool {
        // No draw without a chance, so that switching one fault on moves no other.
        ppm > 0 && self.random.chance(u64::from(ppm), 1_000_000)
    }

    fn between(&mut self, min: u64, max: u64) -> u64 {
        min + self.random.below(max - min + 1)
    }

    /// Runs what is due until `end_ns` and sets the clock there.
    fn run_until(&mut self, end_ns: u64) {
        while let Some(entry) = self.events.first_entry() {
            let at_ns = entry.key().0;
            if at_ns > end_ns {
                break;
            }
            let event = entry.remove();
            self.now_ns = self.now_ns.max(at_ns);
            self.run(event);
        }
        self.now_ns = self.now_ns.max(end_ns);
    }

    fn run(&mut self, event: Event) {
        match event {
            Event::Disk { ring, token, operation, failure } => {
                let completion = self.execute(ring, token, operation, failure);
                self.rings[ring].posted.push_back(completion);
            }
        }
    }

    /// Time passes as `sleep` says, until something happens anywhere on the machine: code on
    /// another ring may have to act on it at that time.
    fn sleep(&mut self, sleep: Sleep) {
        let deadline = match sleep {
            Sleep::No => return,
            Sleep::Until(deadline) => Some(deadline.0),
            Sleep::Forever => None,
        };
        let next = self.events.first_key_value().map(|(at, _)| at.0);
        let end = match (next, deadline) {
            (Some(next), Some(deadline)) => next.min(deadline),
            (Some(end), None) | (None, Some(end)) => end,
            (None, None) => return,
        };
        self.run_until(end);
    }

    // ---- Disk operations ---------------------------------------------------------------------

    fn open_inodes(&self) -> BTreeSet<Inode> {
        let files = self.rings.iter().filter(|ring| ring.alive).flat_map(|ring| ring.files.values());
        let in_flight = self.events.values().filter_map(|event| match event {
            Event::Disk { operation, .. } => operation.inode(),
        });
        files.map(|file| file.inode).chain(in_flight).collect()
    }

    /// Counts an operation; says how it must fail, and cuts the power when it is the one.
    fn count_operation(&mut self) -> Option<IoError> {
        self.operations_count += 1;
        self.failures.remove(&self.operations_count)
    }

    fn submit_disk(&mut self, ring: RingIndex, token: Token, operation: DiskOperation) {
        if !self.rings[ring].alive {
            let completion = operation.into_completion(token, Err(IoError::Os(libc::EIO)));
            self.rings[ring].posted.push_back(completion);
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
        self.schedule(self.now_ns + latency_ns, Event::Disk { ring, token, operation, failure });
        if self.power_cut_at == Some(self.operations_count) {
            self.power_cut();
        }
    }

    fn execute(
        &mut self,
        ring: RingIndex,
        token: Token,
        mut operation: DiskOperation,
        failure: Option<IoError>,
    ) -> Completion {
        let result = match &mut operation {
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
        if let Some(error) = failure.or(hit.then_some(IoError::Os(libc::EIO))) {
            return Err(error);
        }
        let transferred_bytes = self.disk.read(inode, position, data);
        if transferred_bytes > 0 && self.hits(self.faults.read_flip_ppm) {
            let index = self.random.below(transferred_bytes as u64) as usize;
            data[index] ^= 1 << self.random.below(8);
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
            return Ok(());
        }
        if self.hits(faults.misdirected_write_ppm) {
            let blocks_count = 1 + position / image::PAGE_BYTES as u64;
            let elsewhere = self.random.below(blocks_count) * image::PAGE_BYTES as u64;
            self.disk.write(inode, elsewhere, data, durable);
            return Ok(());
        }
        if self.hits(faults.short_write_ppm) {
            let blocks_count = (data.len() / image::PAGE_BYTES) as u64;
            let transferred_bytes = self.random.below(blocks_count) as usize * image::PAGE_BYTES;
            if transferred_bytes > 0 {
                self.disk.write(inode, position, data[..transferred_bytes].into(), durable);
            }
            return Err(IoError::Short { transferred_bytes });
        }
        self.disk.write(inode, position, data, durable);
        Ok(())
    }

    /// A write that failed: what is where it went is undefined.
    fn write_some_sectors(&mut self, inode: Inode, position: u64, data: &[u8]) {
        for (index, sector) in data.chunks(512).enumerate() {
            if self.random.chance(1, 2) {
                self.disk.write(inode, position + index as u64 * 512, sector.into(), false);
            }
        }
    }

    // ---- Ends --------------------------------------------------------------------------------

    fn power_cut(&mut self) {
        self.end_rings(true);
        let Self { disk, random, .. } = self;
        disk.power_cut(random);
    }

    fn kill(&mut self) {
        self.end_rings(false);
        self.disk.forget_unreachable(&BTreeSet::new());
    }

    /// Kills every ring. Each operation in flight happens or not; with the power gone, a write that
    /// happens isn't durable, so that its sectors are subject to the cut.
    fn end_rings(&mut self, power_gone: bool) {
        self.failures.clear();
        self.power_cut_at = None;
        for (_, event) in std::mem::take(&mut self.events) {
            match event {
                Event::Disk { ring, token, operation, failure } => {
                    if failure.is_none() && self.random.chance(1, 2) {
                        // The result goes nowhere: who would have seen it is gone.
                        self.happen_in_flight(&operation, power_gone).ok();
                    }
                    let completion = operation.into_completion(token, Err(IoError::Os(libc::EIO)));
                    self.rings[ring].posted.push_back(completion);
                }
            }
        }
        for ring in &mut self.rings {
            ring.alive = false;
            ring.files.clear();
        }
    }

    fn happen_in_flight(&mut self, operation: &DiskOperation, power_gone: bool) -> Result<(), IoError> {
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

impl RingState {
    fn insert(&mut self, file: OpenFile) -> FileId {
        let id = FileId(self.files_count);
        self.files_count += 1;
        self.files.insert(id, file);
        id
    }
}

impl DiskOperation {
    fn inode(&self) -> Option<Inode> {
        match self {
            Self::Read { inode, .. }
            | Self::Write { inode, .. }
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

    /// The completion of this operation; `open` is completed elsewhere when it succeeded.
    fn into_completion(self, token: Token, result: Result<(), IoError>) -> Completion {
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
