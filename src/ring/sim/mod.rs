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
mod network;
mod ring;
mod storage;
#[cfg(test)]
mod tests;

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Weak;

use super::shared_file::{FilePiece, SharedFileKind};
use super::{Completion, FileId, IoError, OpenMode, Sleep, SocketId, Token};
use crate::base::ids::MonotonicNs;
use crate::base::random::Random;
use disk::{Disk, Inode};
pub use faults::{Faults, Lie, LieKind};
use network::{EndId, Network, NetworkEvent, Owner};
pub use ring::{SimInode, SimRing, SimWaker};
use storage::DiskOperation;

/// Wall time at the world's beginning: 14 November 2023.
const WALL_START_MS: i64 = 1_700_000_000_000;

/// Monotonic time at the world's beginning: not 0, so that "0" is never a valid time by accident.
const MONOTONIC_START_NS: u64 = 1_000_000_000;

/// What a turn costs, so that a loop that never sleeps gets older.
const TURN_NS: u64 = 1_000;

/// Receive buffers of every ring, and the bytes of each: few and small, so that tests meet their end.
const RECEIVE_BUFFERS_COUNT: u16 = 16;
const RECEIVE_BUFFER_BYTES: usize = 16 * 1024;

/// A handle of one simulated machine; clones share it. Single-threaded.
#[derive(Clone)]
pub struct World(Rc<RefCell<Machine>>);

struct Machine {
    random: Random,
    now_ns: u64,
    wall_jump_ms: i64,
    faults: Faults,
    disk: Disk,
    network: Network,
    /// What happens, at which time, in which order.
    events: BTreeMap<(u64, u64), Event>,
    events_count: u64,
    rings: Vec<RingState>,
    /// Handles that keep a file's bytes.
    shared: Vec<Weak<SimInode>>,
    operations_count: u64,
    /// Operation number and how it fails.
    failures: BTreeMap<u64, IoError>,
    /// Operation number at whose submission the power goes.
    power_cut_at: Option<u64>,
    /// What hangs, and the operations that hang with it.
    frozen: Option<Frozen>,
    held: Vec<Event>,
    /// Kills and power cuts.
    ends_count: u64,
    /// What the disk did wrong without saying so.
    lies: Vec<Lie>,
}

/// A directory on a disk that hangs, with everything in it.
struct Frozen {
    dir: PathBuf,
    inodes: BTreeSet<Inode>,
}

/// What the machine keeps for a ring. Rings made before a kill or a power cut are dead.
struct RingState {
    alive: bool,
    posted: VecDeque<Posted>,
    files: BTreeMap<FileId, OpenFile>,
    files_count: u32,
    listeners_count: u32,
    free_buffers: Vec<u16>,
}

/// What waits for a ring's next turn.
enum Posted {
    Completion(Completion),
    Received { socket: SocketId, buffer_id: u16, bytes: Vec<u8> },
}

#[derive(Clone, Copy)]
struct OpenFile {
    inode: Inode,
    mode: OpenMode,
}

type RingIndex = usize;

enum Event {
    Disk { ring: RingIndex, token: Token, operation: DiskOperation, failure: Option<IoError> },
    Network(NetworkEvent),
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
            network: Network::new(),
            events: BTreeMap::new(),
            events_count: 0,
            rings: Vec::new(),
            shared: Vec::new(),
            operations_count: 0,
            failures: BTreeMap::new(),
            power_cut_at: None,
            frozen: None,
            held: Vec::new(),
            ends_count: 0,
            lies: Vec::new(),
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

    /// From now on nothing that is submitted for `dir` or what is in it ends, until `thaw`.
    pub fn freeze(&self, dir: &Path) {
        let mut machine = self.machine();
        let inodes = machine.disk.inodes_below(dir);
        machine.frozen = Some(Frozen { dir: dir.to_path_buf(), inodes });
    }

    /// What hung goes on.
    pub fn thaw(&self) {
        let mut machine = self.machine();
        machine.frozen = None;
        let now_ns = machine.now_ns;
        for event in std::mem::take(&mut machine.held) {
            machine.schedule(now_ns, event);
        }
    }

    /// What a process would be told of the disk's free space; `None` where it has no limit.
    pub fn free_bytes(&self) -> Option<u64> {
        let machine = self.machine();
        let used_bytes = machine.disk.used_bytes(&machine.open_inodes());
        Some(machine.faults.capacity_bytes?.saturating_sub(used_bytes))
    }

    /// Bytes of the disk that are taken.
    pub fn used_bytes(&self) -> u64 {
        let machine = self.machine();
        machine.disk.used_bytes(&machine.open_inodes())
    }

    /// What the disk did wrong since the world began and called done, oldest first.
    pub fn lies(&self) -> Vec<Lie> {
        self.machine().lies.clone()
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

    /// Kills and power cuts until now: another number means that every ring from before is dead.
    pub fn ends_count(&self) -> u64 {
        self.machine().ends_count
    }

    // ---- The network, seen from outside ------------------------------------------------------

    /// Connects to a listener of this world; the accepting ring sees it at its next turn.
    /// Errors: refused when nobody listens there.
    pub fn connect(&self, address: SocketAddr) -> Result<SimClient, IoError> {
        let end = self.machine().connect(Owner::Client, address)?;
        Ok(SimClient { world: self.clone(), end })
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

    /// Cuts a file at rest to this length.
    pub fn cut_file(&self, path: &Path, bytes: u64) {
        self.machine().disk.cut_file(path, bytes);
    }

    /// The device can't read the page that holds this byte of the file any more.
    pub fn break_page(&self, path: &Path, position: u64) {
        self.machine().disk.break_page(path, position);
    }

    /// Another machine with a copy of the disk, and nothing running.
    pub fn copy_disk(&self, seed: u64) -> World {
        let copy = World::new(seed);
        copy.machine().disk = self.machine().disk.clone();
        copy
    }

    /// What a piece of a file holds; `None` where a power cut took the file.
    pub fn read_piece(&self, piece: &FilePiece) -> Option<Vec<u8>> {
        let SharedFileKind::Sim(file) = &piece.file.0 else { panic!("not a file of the simulation") };
        let machine = self.machine();
        if !machine.disk.has(file.inode()) {
            return None;
        }
        let mut bytes = vec![0; piece.bytes];
        let count = machine.disk.read(file.inode(), piece.position, &mut bytes);
        assert_eq!(count, piece.bytes, "a piece lies within its file");
        Some(bytes)
    }

    /// The paths of all files, in order.
    pub fn files(&self) -> Vec<String> {
        self.machine().disk.files()
    }
}

/// A client outside of the machine, played by a test. Bytes move while rings turn or the world
/// advances. Dropping it disconnects.
pub struct SimClient {
    world: World,
    end: EndId,
}

impl SimClient {
    /// Queues bytes; they are sent as the receiver reads.
    pub fn write(&self, bytes: &[u8]) {
        self.world.machine().client_write(self.end, bytes);
    }

    /// Everything that arrived and wasn't read yet. A client that doesn't read makes its peer wait.
    pub fn read(&self) -> Vec<u8> {
        self.world.machine().client_read(self.end)
    }

    /// How the stream ended, once everything was read; None while it goes on.
    pub fn ended(&self) -> Option<Result<(), IoError>> {
        self.world.machine().client_ended(self.end)
    }
}

impl Drop for SimClient {
    fn drop(&mut self) {
        self.world.machine().disconnect(self.end);
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
                self.post(ring, completion);
            }
            Event::Network(event) => self.run_network(event),
        }
    }

    fn post(&mut self, ring: RingIndex, completion: Completion) {
        self.rings[ring].posted.push_back(Posted::Completion(completion));
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
        self.ends_count += 1;
        self.failures.clear();
        self.power_cut_at = None;
        self.frozen = None;
        for event in std::mem::take(&mut self.held) {
            self.schedule(self.now_ns, event);
        }
        for (_, event) in std::mem::take(&mut self.events) {
            match event {
                Event::Disk { ring, token, operation, failure } => {
                    if failure.is_none() && self.random.chance(1, 2) {
                        // The result goes nowhere: who would have seen it is gone.
                        self.happen_in_flight(&operation, power_gone).ok();
                    }
                    let completion = operation.into_completion(token, Err(IoError::Os(libc::EIO)));
                    self.post(ring, completion);
                }
                Event::Network(NetworkEvent::Connect { ring, token, .. }) => {
                    let result = Err(IoError::Os(libc::EIO));
                    self.post(ring, Completion::Connected { token, result });
                }
                Event::Network(_) => {}
            }
        }
        self.end_network();
        for ring in &mut self.rings {
            ring.alive = false;
            ring.files.clear();
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
