//! Disk: one file served through FUSE, which a loop device makes a disk of.
//!
//! Owns:     what is durable, what was written and not flushed, and the faults in force.
//! Promises: a read sees every write that was answered; a flush makes every write answered before it came
//!           durable, and no later one; after a cut nothing is answered but errors, and the image that comes back is what
//!           was durable plus those pieces of the unflushed writes that the crash model keeps.
//! Never:    holds data in memory: unflushed bytes lie in a file of their own.

use corelane::base::random::Random;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Name of the one file.
pub const FILE_NAME: &str = "disk";

const ROOT: INodeNo = INodeNo::ROOT;
const FILE: INodeNo = INodeNo(2);
const ATTR_TTL: Duration = Duration::from_secs(3600);

/// Operations that may be in the disk at once: while one waits, others go on.
const THREADS: usize = 8;

const BLOCK_BYTES: u64 = 4096;
const SECTOR_BYTES: u64 = 512;

/// Which unflushed writes a cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Model {
    /// None.
    Drop,
    /// Some 4 KiB blocks, wherever in the order of writing they stand.
    Subset,
    /// Some 512-byte sectors, wherever in the order of writing they stand; blocks of XFS's trees as a whole.
    Torn,
    /// Those up to some moment, the last of them in part.
    Prefix,
    /// All.
    All,
}

/// What a computer asks of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Operation {
    Read,
    Write,
    Flush,
}

/// When an operation fails, counted from the moment the fault is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fails {
    /// This one alone; the first is 1.
    Nth(u64),
    /// This one and all later ones.
    From(u64),
    /// Each, with so many chances in a thousand.
    Chance(u64),
}

/// A fault of one kind of operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fault {
    pub fails: Option<Fails>,
    pub delay: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
    /// Operations that a fault made fail.
    pub failed: u64,
}

/// A write that was answered and not flushed; its bytes are in the spill file.
#[derive(Clone, Copy)]
struct Unflushed {
    at: u64,
    bytes: u64,
    spilled_at: u64,
}

struct State {
    /// What survives every cut.
    durable: File,
    /// What reads see: everything that was written.
    live: File,
    /// Bytes of the unflushed writes, one after another.
    spill: File,
    spill_end: u64,
    unflushed: VecDeque<Unflushed>,
    /// Writes that were flushed or lost: the number of the first unflushed one.
    flushed_count: u64,
    is_on: bool,
    is_frozen: bool,
    /// A deliberate mistake: flushes are answered and not done.
    ignores_flush: bool,
    /// The power goes with this operation, of writes and flushes, counted from when it was set.
    cut_in: Option<u64>,
    faults: [Fault; 3],
    /// Operations of each kind since its fault was set.
    since_fault: [u64; 3],
    random: Random,
    counts: Counts,
}

struct Shared {
    size_bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
}

/// The disk, and the mount that shows its file.
pub struct Disk {
    shared: Arc<Shared>,
    /// Unmounts when it goes.
    _session: BackgroundSession,
}

fn new_file(path: &Path, bytes: u64) -> File {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.set_len(bytes).expect("a sparse file");
    file
}

impl Disk {
    /// A blank disk with its files in `dir`, mounted at `at`.
    pub fn start(dir: &Path, at: &Path, size_bytes: u64) -> Self {
        assert!(size_bytes.is_multiple_of(BLOCK_BYTES));
        let state = State {
            durable: new_file(&dir.join("durable"), size_bytes),
            live: new_file(&dir.join("live"), size_bytes),
            spill: new_file(&dir.join("spill"), 0),
            spill_end: 0,
            unflushed: VecDeque::new(),
            flushed_count: 0,
            is_on: true,
            is_frozen: false,
            ignores_flush: false,
            cut_in: None,
            faults: [Fault::default(); 3],
            since_fault: [0; 3],
            random: Random::new(1),
            counts: Counts::default(),
        };
        let shared = Arc::new(Shared { size_bytes, state: Mutex::new(state), changed: Condvar::new() });
        let mut config = Config::default();
        config.n_threads = Some(THREADS);
        config.mount_options = vec![MountOption::FSName("faulty-disk".to_string())];
        let session = fuser::spawn_mount(Served(shared.clone()), at, &config)
            .unwrap_or_else(|error| panic!("FUSE at {} (root and /dev/fuse?): {error}", at.display()));
        Self { shared, _session: session }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.shared.changed.notify_all();
    }

    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    // ---- Power -------------------------------------------------------------------------------

    pub fn is_on(&self) -> bool {
        self.state().is_on
    }

    /// The power goes: from now on every operation fails.
    pub fn cut(&self) {
        self.change(|state| state.is_on = false);
    }

    /// The power goes with the `nth` write or flush from now on.
    pub fn cut_at(&self, nth: u64) {
        self.change(|state| state.cut_in = Some(nth));
    }

    /// Waits until the power is gone; false when `patience` ends before.
    pub fn wait_for_cut(&self, patience: Duration) -> bool {
        let state = self.state();
        let waited = self.shared.changed.wait_timeout_while(state, patience, |state| state.is_on);
        !waited.expect("no thread of the disk panicked").0.is_on
    }

    /// The power comes back: the disk holds what was durable and what `model` keeps of the rest. Returns
    /// how many writes were unflushed.
    pub fn power_on(&self, model: Model, seed: u64) -> usize {
        let mut state = self.state();
        assert!(!state.is_on, "the power was cut before");
        let state = &mut *state;
        let unflushed = Vec::from(std::mem::take(&mut state.unflushed));
        state.flushed_count += unflushed.len() as u64;
        let mut buffer = Vec::new();
        let start_of_block = |spilled_at| {
            let mut start = [0; 16];
            state.spill.read_exact_at(&mut start, spilled_at).expect("the spill file");
            start
        };
        let kept = kept(&unflushed, model, seed, &|spilled_at| is_tree_of_xfs(start_of_block(spilled_at)));
        for (write, piece) in kept {
            buffer.resize(piece.bytes as usize, 0);
            state.spill.read_exact_at(&mut buffer, write.spilled_at + piece.from).expect("the spill file");
            state.durable.write_all_at(&buffer, write.at + piece.from).expect("the durable image");
        }
        for write in &unflushed {
            buffer.resize(write.bytes as usize, 0);
            state.durable.read_exact_at(&mut buffer, write.at).expect("the durable image");
            state.live.write_all_at(&buffer, write.at).expect("the live image");
        }
        state.spill_end = 0;
        state.is_on = true;
        state.cut_in = None;
        unflushed.len()
    }

    // ---- Faults ------------------------------------------------------------------------------

    pub fn set_fault(&self, operation: Operation, fault: Fault) {
        self.change(|state| {
            state.faults[operation as usize] = fault;
            state.since_fault[operation as usize] = 0;
        });
    }

    /// Ends every fault, and thaws.
    pub fn heal(&self) {
        self.change(|state| {
            state.faults = [Fault::default(); 3];
            state.is_frozen = false;
        });
    }

    /// Operations wait until the disk is thawed.
    pub fn freeze(&self) {
        self.change(|state| state.is_frozen = true);
    }

    pub fn thaw(&self) {
        self.change(|state| state.is_frozen = false);
    }

    pub fn set_ignores_flush(&self, ignores: bool) {
        self.change(|state| state.ignores_flush = ignores);
    }

    /// Waits until a fault made an operation fail; false when `patience` ends before.
    pub fn wait_for_failure(&self, patience: Duration) -> bool {
        let started = Instant::now();
        while self.counts().failed == 0 {
            if started.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    pub fn forget_failures(&self) {
        self.change(|state| state.counts.failed = 0);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever waits for the disk must be answered, or nothing can be unmounted.
        self.change(|state| {
            state.is_on = false;
            state.is_frozen = false;
        });
    }
}

/// A part of a write.
struct Piece {
    from: u64,
    bytes: u64,
}

/// The pieces of unflushed writes that a cut leaves, in the order of writing: of two kept writes of one
/// place the later one is found.
fn kept(
    unflushed: &[Unflushed],
    model: Model,
    seed: u64,
    is_whole: &dyn Fn(u64) -> bool,
) -> Vec<(Unflushed, Piece)> {
    let mut random = Random::new(seed ^ 0x6375_7420_6375_7421);
    let whole = |write: &Unflushed| (*write, Piece { from: 0, bytes: write.bytes });
    match model {
        Model::Drop => Vec::new(),
        Model::All => unflushed.iter().map(whole).collect(),
        Model::Prefix => {
            let count = random.below(unflushed.len() as u64 + 1) as usize;
            let mut kept: Vec<_> = unflushed[..count].iter().map(whole).collect();
            if let Some((write, piece)) = kept.last_mut() {
                piece.bytes = random.below(write.bytes / SECTOR_BYTES + 1) * SECTOR_BYTES;
            }
            kept
        }
        Model::Subset => subset(unflushed, BLOCK_BYTES, &mut random, is_whole),
        Model::Torn => subset(unflushed, SECTOR_BYTES, &mut random, is_whole),
    }
}

/// Each piece of `piece_bytes` with the same chance, which the seed draws: with halves alone, of many
/// writes some would always survive and some never.
fn subset(
    unflushed: &[Unflushed],
    piece_bytes: u64,
    random: &mut Random,
    is_whole: &dyn Fn(u64) -> bool,
) -> Vec<(Unflushed, Piece)> {
    let chance = [1, 8, 32, 56, 63][random.below(5) as usize];
    let mut kept = Vec::new();
    for write in unflushed {
        let mut from = 0;
        while from < write.bytes {
            // Pieces are those of the disk, not of the write.
            let at = write.at + from;
            let begins_block = at.is_multiple_of(BLOCK_BYTES) && write.bytes - from >= BLOCK_BYTES;
            let is_whole = piece_bytes < BLOCK_BYTES && begins_block && is_whole(write.spilled_at + from);
            let piece_bytes = if is_whole { BLOCK_BYTES } else { piece_bytes };
            let to_boundary = piece_bytes - at % piece_bytes;
            let bytes = to_boundary.min(write.bytes - from);
            if random.chance(chance, 64) {
                kept.push((*write, Piece { from, bytes }));
            }
            from += bytes;
        }
    }
    kept
}

/// Whether a block that begins so is one of XFS's directories or trees. XFS logs what changed in them, not
/// whole blocks, and its replay passes over a block whose first sector is the newer one: their tearing
/// destroys the filesystem, whoever writes files on it.
fn is_tree_of_xfs(start: [u8; 16]) -> bool {
    const TREES: [&[u8; 4]; 12] = [
        b"XDB3", b"XDD3", b"XDF3", b"AB3B", b"AB3C", b"IAB3", b"FIB3", b"BMA3", b"RMB3", b"R3FC", b"XARM",
        b"XSLM",
    ];
    // Nodes and leaves of directories and attributes have theirs behind two links.
    const LINKED: [[u8; 2]; 4] = [[0x3e, 0xbe], [0x3b, 0xee], [0x3d, 0xf1], [0x3d, 0xff]];
    TREES.iter().any(|magic| start.starts_with(*magic)) || LINKED.iter().any(|magic| start[8..10] == *magic)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the disk panicked")
    }

    /// Counts the operation, lets it wait, and says whether it is done.
    fn admit(&self, operation: Operation) -> Result<MutexGuard<'_, State>, Errno> {
        let mut state = self.lock();
        let index = operation as usize;
        let delay = state.faults[index].delay;
        if !delay.is_zero() {
            drop(state);
            std::thread::sleep(delay);
            state = self.lock();
        }
        state =
            self.changed.wait_while(state, |state| state.is_frozen).expect("no thread of the disk panicked");
        if !state.is_on {
            return Err(Errno::EIO);
        }
        match operation {
            Operation::Read => state.counts.reads += 1,
            Operation::Write => state.counts.writes += 1,
            Operation::Flush => state.counts.flushes += 1,
        }
        state.since_fault[index] += 1;
        let count = state.since_fault[index];
        let fails = match state.faults[index].fails {
            None => false,
            Some(Fails::Nth(nth)) => count == nth,
            Some(Fails::From(nth)) => count >= nth,
            Some(Fails::Chance(chance)) => state.random.chance(chance, 1_000),
        };
        if fails {
            state.counts.failed += 1;
            return Err(Errno::EIO);
        }
        Ok(state)
    }

    /// True when the power goes with this write or flush.
    fn is_cut_now(&self, state: &mut State) -> bool {
        if let Some(left) = &mut state.cut_in {
            *left -= 1;
            if *left == 0 {
                state.is_on = false;
                self.changed.notify_all();
            }
        }
        !state.is_on
    }

    fn read(&self, at: u64, bytes: u32) -> Result<Vec<u8>, Errno> {
        let state = self.admit(Operation::Read)?;
        let bytes = u64::from(bytes).min(self.size_bytes.saturating_sub(at));
        let mut data = vec![0; bytes as usize];
        state.live.read_exact_at(&mut data, at).expect("the live image");
        Ok(data)
    }

    fn write(&self, at: u64, data: &[u8], is_synchronous: bool) -> Result<(), Errno> {
        let mut state = self.admit(Operation::Write)?;
        let state = &mut *state;
        state.live.write_all_at(data, at).expect("the live image");
        state.spill.write_all_at(data, state.spill_end).expect("the spill file");
        state.unflushed.push_back(Unflushed { at, bytes: data.len() as u64, spilled_at: state.spill_end });
        state.spill_end += data.len() as u64;
        if self.is_cut_now(state) {
            return Err(Errno::EIO);
        }
        if is_synchronous {
            state.flush(state.written_count());
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Errno> {
        let covered_count = self.lock().written_count();
        let mut state = self.admit(Operation::Flush)?;
        if self.is_cut_now(&mut state) {
            return Err(Errno::EIO);
        }
        state.flush(covered_count);
        Ok(())
    }
}

impl State {
    fn written_count(&self) -> u64 {
        self.flushed_count + self.unflushed.len() as u64
    }

    /// Makes the first `covered_count` of all writes durable, and none that came later.
    fn flush(&mut self, covered_count: u64) {
        if self.ignores_flush {
            return;
        }
        let count = covered_count.saturating_sub(self.flushed_count);
        self.flushed_count += count;
        let mut buffer = Vec::new();
        for write in self.unflushed.drain(..count as usize) {
            buffer.resize(write.bytes as usize, 0);
            self.spill.read_exact_at(&mut buffer, write.spilled_at).expect("the spill file");
            self.durable.write_all_at(&buffer, write.at).expect("the durable image");
        }
        if self.unflushed.is_empty() {
            self.spill_end = 0;
        }
    }
}

/// What the kernel talks to, on [`THREADS`] threads: the lock gives operations their order.
struct Served(Arc<Shared>);

impl Served {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_file = inode == FILE;
        let size = if is_file { self.0.size_bytes } else { 0 };
        FileAttr {
            ino: inode,
            size,
            blocks: size / SECTOR_BYTES,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_file { FileType::RegularFile } else { FileType::Directory },
            perm: if is_file { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK_BYTES as u32,
            flags: 0,
        }
    }
}

impl Filesystem for Served {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // A loop device sends many operations at once; without this each waits for the one before.
        config.add_capabilities(InitFlags::FUSE_ASYNC_DIO).ok();
        config.set_max_background(64).ok();
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == ROOT && name == FILE_NAME {
            reply.entry(&ATTR_TTL, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _req: &Request, inode: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&ATTR_TTL, &self.attributes(inode));
    }

    fn open(&self, _req: &Request, _inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // No page cache between the loop device and the disk: what the disk hasn't got isn't there.
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(0), flags | FopenFlags::FOPEN_NOFLUSH);
    }

    fn read(
        &self,
        _req: &Request,
        _inode: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.read(offset, size) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _req: &Request,
        _inode: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // The loop driver asks for durability by a flush of its own; other openers by their flags.
        let is_synchronous = flags.0 & (libc::O_DSYNC | libc::O_SYNC) != 0;
        match self.0.write(offset, data, is_synchronous) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _req: &Request, _inode: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        match self.0.flush() {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }
}
