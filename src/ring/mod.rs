//! Ring: the kernel and its simulated twin. Files, sockets, time, wake-ups, entropy.
//!
//! Owns:     every descriptor of a shard, the buffers of operations in flight, the receive buffers.
//! Promises: an operation submitted with a token completes exactly once with that token; buffers
//!           given to an operation come back with its completion; completions of one socket's
//!           received bytes come in stream order.
//! Never:    interprets bytes, retries a failed write or flush, orders two operations in flight
//!           against each other (the caller submits the second after the first completed).
//! Called by the shard (turns, sockets) and by `log` (files), on one thread. Only `Waker` is shared.
//!
//! The seam of the whole broker is here: above it everything is concrete and runs unchanged on
//! either backend.

pub mod buffer;
mod kernel;
pub mod probe;
mod shared_file;
pub mod sim;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::base::ids::{MonotonicNs, WallMs};
pub use buffer::{BufferPiece, IoBuffer};
#[cfg(feature = "glommio")]
pub use kernel::{adopt, retry_short_memory};
pub use shared_file::{FilePiece, SharedFile};

/// Names an operation: the owner (who gets the completion) and 56 bits of the owner's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

impl Token {
    /// Precondition: `value < 2^56`.
    pub fn new(owner: u8, value: u64) -> Self {
        assert!(value < 1 << 56);
        Self(u64::from(owner) << 56 | value)
    }

    pub fn owner(self) -> u8 {
        (self.0 >> 56) as u8
    }

    pub fn value(self) -> u64 {
        self.0 & ((1 << 56) - 1)
    }
}

/// An open file of this ring. Opened with O_DIRECT where the filesystem has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// A listening socket of this ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u32);

/// A connected socket of this ring. Never reused within the life of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// Why an operation failed: the environment's errors, by kind. `NotFound`, `Exists` and `NoSpace`
/// are the ones callers decide on; everything else on a write or flush is final for its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoError {
    NotFound,
    Exists,
    /// ENOSPC, EDQUOT.
    NoSpace,
    /// EMFILE, ENFILE.
    NoDescriptors,
    /// ECONNRESET, EPIPE, ETIMEDOUT: the peer is gone.
    Disconnected,
    /// The operation transferred fewer bytes than asked (a read past the end of a file included).
    Short {
        transferred_bytes: usize,
    },
    /// Anything else, by errno.
    Os(i32),
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::Exists => f.write_str("exists already"),
            Self::NoSpace => f.write_str("no space left on the device"),
            Self::NoDescriptors => f.write_str("no descriptors left"),
            Self::Disconnected => f.write_str("disconnected"),
            Self::Short { transferred_bytes } => write!(f, "short transfer: {transferred_bytes} bytes"),
            Self::Os(errno) => write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
        }
    }
}

impl IoError {
    pub(in crate::ring) fn from_errno(errno: i32) -> Self {
        match errno {
            libc::ENOENT => Self::NotFound,
            libc::EEXIST => Self::Exists,
            libc::ENOSPC | libc::EDQUOT => Self::NoSpace,
            libc::EMFILE | libc::ENFILE => Self::NoDescriptors,
            libc::ECONNRESET | libc::EPIPE | libc::ETIMEDOUT | libc::ENOTCONN => Self::Disconnected,
            errno => Self::Os(errno),
        }
    }
}

impl std::error::Error for IoError {}

/// How a file is opened. Reads and writes are O_DIRECT, but of `Cached`: position, length and memory are
/// multiples of [`buffer::ALIGNMENT_BYTES`] (asserted), on the simulated disk as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Read only; `NotFound` when it is absent.
    Read,
    /// Read only, through the page cache; `NotFound` when it is absent. The kernel drops what it has of a
    /// block that is written with O_DIRECT once that write has ended.
    Cached,
    /// Read and write; `NotFound` when it is absent.
    Write,
    /// Read and write; `Exists` when it is there already.
    CreateNew,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// In the device's cache at best when it completes.
    Plain,
    /// `RWF_DSYNC`: durable when it completes without error (one device write, one flush).
    Durable,
}

/// What happened. One per submitted operation, plus those of armed listeners and receivers.
#[derive(Debug)]
pub enum Completion {
    /// Of `open`.
    Opened { token: Token, result: Result<FileId, IoError> },
    /// Of `read` and `write`; the buffer comes back whatever the result. A transfer of fewer bytes
    /// than the range is `Err(Short)`.
    Transferred { token: Token, result: Result<(), IoError>, buffer: IoBuffer },
    /// Of `write_pieces`, `flush`, `allocate`, `truncate`, `remove_file`, `remove_dir`, `make_dir`, `flush_dir`.
    Done { token: Token, result: Result<(), IoError> },
    /// A listener accepted a connection. It receives nothing until `receive_start`.
    Accepted { listener: ListenerId, socket: SocketId, peer: SocketAddr },
    /// Accepting failed (descriptors); the listener goes on after a pause of the ring's own.
    AcceptFailed { listener: ListenerId, error: IoError },
    /// Bytes arrived: read them with `received`, give them back with `received_done` before the
    /// next `turn`.
    Received { socket: SocketId, bytes: ReceivedBytes },
    /// The stream ended: `Ok` when the peer closed its side in order. Last of its receiver.
    ReceiveEnded { socket: SocketId, result: Result<(), IoError> },
    /// Of `receive_stop` and `receive_once`, or no receive buffer was free: nothing more is received until
    /// `receive_start`. Last of its receiver.
    ReceiveStopped { socket: SocketId },
    /// Of `receive_into`: the buffer is full, or the stream ended before. Last of its receiver.
    Filled { socket: SocketId, result: Result<(), IoError>, buffer: Vec<u8> },
    /// Of `send` and `send_file`: all bytes are in the socket's queue, or the connection failed. Of a
    /// `send_file` the buffer means nothing.
    Sent { socket: SocketId, token: Token, result: Result<(), IoError>, buffer: Vec<u8> },
    /// Of `connect`.
    Connected { token: Token, result: Result<SocketId, IoError> },
    /// `Waker::wake` was called since the last turn.
    Woken,
}

impl Completion {
    /// The token of the operation that completed; none for what listeners, receivers and wakers
    /// report.
    pub fn token(&self) -> Option<Token> {
        match self {
            Self::Opened { token, .. }
            | Self::Transferred { token, .. }
            | Self::Done { token, .. }
            | Self::Sent { token, .. }
            | Self::Connected { token, .. } => Some(*token),
            Self::Accepted { .. }
            | Self::AcceptFailed { .. }
            | Self::Received { .. }
            | Self::ReceiveEnded { .. }
            | Self::ReceiveStopped { .. }
            | Self::Filled { .. }
            | Self::Woken => None,
        }
    }
}

/// A run of received bytes in the ring's own receive buffers.
#[derive(Debug)]
pub struct ReceivedBytes {
    pub(in crate::ring) buffer_id: u16,
    pub(in crate::ring) position: u32,
    pub(in crate::ring) bytes: u32,
}

/// Pieces of one write: the kernel's limit of a vector.
pub const PIECES_COUNT_MAX: usize = 1024;

/// How long a turn may sleep for its first completion, from shortest to longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sleep {
    No,
    Until(MonotonicNs),
    Forever,
}

#[derive(Clone, Debug)]
pub struct RingOptions {
    /// Entries of the submission queue; completions get four times as many.
    pub entries_count: u32,
    /// Receive buffers of the provided buffer ring, and the bytes of each.
    pub receive_buffers_count: u16,
    pub receive_buffer_bytes: u32,
    /// Slots for registered files and sockets.
    pub descriptors_max: u32,
    /// The ring's thread sleeps in the event loop of another runtime (`outside`), not in its turns.
    pub sleeps_outside: bool,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self {
            entries_count: 256,
            receive_buffers_count: 64,
            receive_buffer_bytes: 64 * 1024,
            descriptors_max: 16 * 1024,
            sleeps_outside: false,
        }
    }
}

/// A ring could not be made: what the kernel refused and what remedies it, for the operator.
#[derive(Debug)]
pub struct RingError {
    pub what: String,
    pub remedy: String,
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl std::error::Error for RingError {}

/// Something that newer kernels have and a ring uses where it is.
#[derive(Clone, Copy, Debug)]
pub struct RingFeature {
    pub name: &'static str,
    pub since: &'static str,
    pub is_there: bool,
    /// What its absence costs.
    pub cost: &'static str,
}

/// A directory entry, by name; `bytes` is the length of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: String,
    pub is_dir: bool,
    pub bytes: u64,
}

/// Wakes the ring it came from out of its sleep, from any thread. Cheap when the ring is awake.
#[derive(Clone)]
pub struct Waker(WakerKind);

#[derive(Clone)]
enum WakerKind {
    Kernel(kernel::KernelWaker),
    Sim(sim::SimWaker),
}

pub struct Ring(Backend);

// One of each exists per shard and neither is moved on a hot path.
#[allow(clippy::large_enum_variant)]
enum Backend {
    Kernel(kernel::KernelRing),
    Sim(sim::SimRing),
}

macro_rules! on {
    ($ring:expr, $name:ident ( $($argument:expr),* )) => {
        match &mut $ring.0 {
            Backend::Kernel(ring) => ring.$name($($argument),*),
            Backend::Sim(ring) => ring.$name($($argument),*),
        }
    };
}

impl Ring {
    /// A ring on the kernel, made by the thread that will use it (SINGLE_ISSUER, DEFER_TASKRUN).
    /// Retries with back-off for 2 s when locked memory is short: a process that just exited
    /// gives it back late.
    pub fn kernel(options: &RingOptions) -> Result<Self, RingError> {
        Ok(Self(Backend::Kernel(kernel::KernelRing::new(options)?)))
    }

    /// As [`Ring::kernel`], with nothing newer than Linux 6.1 in use.
    #[cfg(test)]
    fn as_on_old_kernel(options: &RingOptions) -> Result<Self, RingError> {
        Ok(Self(Backend::Kernel(kernel::KernelRing::as_on_old_kernel(options)?)))
    }

    /// A ring on a simulated world: its disk, network and clock.
    pub fn simulated(world: &sim::World) -> Self {
        Self(Backend::Sim(sim::SimRing::new(world)))
    }

    /// What this kernel has and has not of what isn't asked of every kernel.
    pub fn features(&self) -> Vec<RingFeature> {
        match &self.0 {
            Backend::Kernel(ring) => ring.features(),
            Backend::Sim(_) => Vec::new(),
        }
    }

    /// Monotonic time as of the last turn (read once per turn; cheap).
    pub fn now(&mut self) -> MonotonicNs {
        on!(self, now())
    }

    /// Monotonic time right now, to tell how long something took within a turn.
    pub fn clock(&self) -> MonotonicNs {
        match &self.0 {
            Backend::Kernel(ring) => ring.clock(),
            Backend::Sim(ring) => ring.clock(),
        }
    }

    /// Wall time as of the last turn. May jump either way.
    pub fn wall_now(&mut self) -> WallMs {
        on!(self, wall_now())
    }

    /// Secret randomness of the machine; seeded in the simulation.
    pub fn entropy(&mut self, bytes: &mut [u8]) {
        on!(self, entropy(bytes))
    }

    // ---- Files -------------------------------------------------------------------------------

    pub fn open(&mut self, token: Token, path: &Path, mode: OpenMode) {
        on!(self, open(token, path, mode))
    }

    /// Closes once the operations in flight on it have completed. Has no completion.
    pub fn close(&mut self, file: FileId) {
        on!(self, close(file))
    }

    /// Reads `range.len()` bytes at `position` into `buffer[range]`.
    pub fn read(&mut self, token: Token, file: FileId, position: u64, buffer: IoBuffer, range: Range<usize>) {
        on!(self, read(token, file, position, buffer, range))
    }

    /// Writes `buffer[range]` at `position`.
    pub fn write(
        &mut self,
        token: Token,
        file: FileId,
        position: u64,
        buffer: IoBuffer,
        range: Range<usize>,
        mode: WriteMode,
    ) {
        on!(self, write(token, file, position, buffer, range, mode))
    }

    /// Writes the pieces one behind the other at `position`, without a copy. Each begins and ends with a block
    /// of its buffer. A transfer of fewer bytes is `Err(Short)`.
    pub fn write_pieces(&mut self, token: Token, file: FileId, position: u64, pieces: Vec<BufferPiece>) {
        assert!(!pieces.is_empty() && pieces.len() <= PIECES_COUNT_MAX);
        on!(self, write_pieces(token, file, position, pieces))
    }

    /// `fdatasync` on the second ring: everything that completed on `file` before is durable after.
    pub fn flush(&mut self, token: Token, file: FileId) {
        on!(self, flush(token, file))
    }

    /// Reserves space; the file grows to its end, with zeros. A write behind the end would go to a worker thread.
    pub fn allocate(&mut self, token: Token, file: FileId, from: u64, bytes: u64) {
        on!(self, allocate(token, file, from, bytes))
    }

    /// Sets the file's length; any length, not only aligned ones.
    pub fn truncate(&mut self, token: Token, file: FileId, bytes: u64) {
        on!(self, truncate(token, file, bytes))
    }

    pub fn remove_file(&mut self, token: Token, path: &Path) {
        on!(self, remove_file(token, path))
    }

    /// Removes an empty directory.
    pub fn remove_dir(&mut self, token: Token, path: &Path) {
        on!(self, remove_dir(token, path))
    }

    /// Makes one directory; its parent must exist. `Exists` when it is there.
    pub fn make_dir(&mut self, token: Token, path: &Path) {
        on!(self, make_dir(token, path))
    }

    /// Makes the entries of a directory durable.
    pub fn flush_dir(&mut self, token: Token, path: &Path) {
        on!(self, flush_dir(token, path))
    }

    /// Entries of a directory in the order of their names. Blocks: for start-up and commands only.
    pub fn list_dir(&mut self, path: &Path) -> Result<Vec<DirEntry>, IoError> {
        on!(self, list_dir(path))
    }

    /// Runs the ring until the operation `token` completes and returns that completion; all others
    /// stay queued for `next`. Blocks: for start-up, recovery and commands only.
    pub fn wait(&mut self, token: Token) -> Completion {
        on!(self, wait(|found| found == token))
    }

    /// As `wait`, for whichever of the owner's operations completes first. One must be in flight.
    pub fn wait_any(&mut self, owner: u8) -> Completion {
        on!(self, wait(|found| found.owner() == owner))
    }

    // ---- Sockets -----------------------------------------------------------------------------

    /// Listens with SO_REUSEPORT and accepts until the ring ends. Returns the address bound.
    pub fn listen(&mut self, address: SocketAddr) -> Result<(ListenerId, SocketAddr), IoError> {
        on!(self, listen(address))
    }

    /// Stops accepting and closes the listener.
    pub fn listen_stop(&mut self, listener: ListenerId) {
        on!(self, listen_stop(listener))
    }

    /// Connects with TCP_NODELAY. For the load tester and, later, peers.
    pub fn connect(&mut self, token: Token, address: SocketAddr) {
        on!(self, connect(token, address))
    }

    /// Arms the receiver of a socket (multishot). Not while one is armed.
    pub fn receive_start(&mut self, socket: SocketId) {
        on!(self, receive_start(socket))
    }

    /// Arms a receiver for one run of at most `bytes`; it stops by itself. Not while one is armed.
    pub fn receive_once(&mut self, socket: SocketId, bytes: u32) {
        on!(self, receive_once(socket, bytes))
    }

    /// Receives behind what `buffer` has until it has `end` bytes, without a copy. `Completion::Filled` brings
    /// it back. Not while a receiver is armed. Precondition: it has room for them.
    pub fn receive_into(&mut self, socket: SocketId, buffer: Vec<u8>, end: usize) {
        on!(self, receive_into(socket, buffer, end))
    }

    /// Asks the receiver to stop; `Received` may still come until `ReceiveStopped` or
    /// `ReceiveEnded`. Nothing happens when none is armed.
    pub fn receive_stop(&mut self, socket: SocketId) {
        on!(self, receive_stop(socket))
    }

    pub fn received(&self, bytes: &ReceivedBytes) -> &[u8] {
        match &self.0 {
            Backend::Kernel(ring) => ring.received(bytes),
            Backend::Sim(ring) => ring.received(bytes),
        }
    }

    /// Gives the receive buffer back.
    pub fn received_done(&mut self, bytes: ReceivedBytes) {
        on!(self, received_done(bytes))
    }

    /// Sends `buffer[from..]` wholly. At most one send in flight per socket (asserted).
    pub fn send(&mut self, token: Token, socket: SocketId, buffer: Vec<u8>, from: usize) {
        on!(self, send(token, socket, buffer, from))
    }

    /// A handle of a file opened with `OpenMode::Cached`, to send from; `None` when no descriptor is left.
    pub fn share(&mut self, file: FileId) -> Option<SharedFile> {
        on!(self, share(file))
    }

    /// Sends `piece` wholly, out of the page cache: of what isn't there, this thread waits for the disk.
    /// Counts as the socket's one send in flight.
    pub fn send_file(&mut self, token: Token, socket: SocketId, piece: FilePiece) {
        on!(self, send_file(token, socket, piece))
    }

    /// Shuts both directions down and closes; receiver and send in flight complete with
    /// `ReceiveEnded` and `Sent`, then nothing more comes of this socket.
    pub fn disconnect(&mut self, socket: SocketId) {
        on!(self, disconnect(socket))
    }

    /// True once a file was opened on a filesystem without O_DIRECT. Its transfers go through the
    /// page cache: a durable write is durable all the same, and costs more.
    pub fn direct_io_missing(&self) -> bool {
        match &self.0 {
            Backend::Kernel(ring) => ring.direct_io_missing(),
            Backend::Sim(_) => false,
        }
    }

    // ---- Turns -------------------------------------------------------------------------------

    /// Announces a sleep and forgets the wakes before it. The caller then looks at its mail, and
    /// turns with `Sleep::No` when there is some. Optional: without it a wake that came while the
    /// ring was awake makes the next sleeping turn return at once, once; never is one lost.
    /// The announcement ends with the turn.
    pub fn prepare_sleep(&mut self) {
        on!(self, prepare_sleep())
    }

    /// Submits everything queued once, collects completions, sleeps for the first as `sleep` says
    /// (never when completions are queued already), and reads the clocks.
    pub fn turn(&mut self, sleep: Sleep) {
        on!(self, turn(sleep))
    }

    /// The next completion collected, in the order in which they came.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Completion> {
        on!(self, next())
    }

    // ---- Sleeps of another runtime -----------------------------------------------------------

    /// The descriptor that a ring made with `sleeps_outside` is awaited on: 8 bytes can be read of it
    /// when a sleep has to end. `host` wakes who awaits it, should that have failed.
    ///
    /// Precondition: called once, on a ring of the kernel.
    pub fn outside(&mut self, host: std::task::Waker) -> OwnedFd {
        match &mut self.0 {
            Backend::Kernel(ring) => ring.outside(host),
            Backend::Sim(_) => unreachable!("simulated shards sleep in their turns"),
        }
    }

    /// Submits everything queued. True when the caller may now await the descriptor: it becomes
    /// readable for all that a turn that sleeps would return for. After that comes `end_outside_sleep`.
    pub fn begin_outside_sleep(&mut self, sleep: Sleep) -> bool {
        match &mut self.0 {
            Backend::Kernel(ring) => ring.begin_outside_sleep(sleep),
            Backend::Sim(_) => unreachable!("simulated shards sleep in their turns"),
        }
    }

    /// The next turn must not sleep: it collects what ended the sleep.
    pub fn end_outside_sleep(&mut self) {
        match &mut self.0 {
            Backend::Kernel(ring) => ring.end_outside_sleep(),
            Backend::Sim(_) => unreachable!("simulated shards sleep in their turns"),
        }
    }

    pub fn waker(&mut self) -> Waker {
        match &mut self.0 {
            Backend::Kernel(ring) => Waker(WakerKind::Kernel(ring.waker())),
            Backend::Sim(ring) => Waker(WakerKind::Sim(ring.waker())),
        }
    }
}

impl Waker {
    /// After this the ring's current or next sleep ends with `Woken`. State written before the
    /// call is seen by the woken thread.
    pub fn wake(&self) {
        match &self.0 {
            WakerKind::Kernel(waker) => waker.wake(),
            WakerKind::Sim(waker) => waker.wake(),
        }
    }

    /// True when the ring has something for a turn, as far as can be seen from another thread: of rings
    /// that sleep outside only. The others sleep in the kernel, which sees for itself.
    pub fn has_work(&self) -> bool {
        match &self.0 {
            WakerKind::Kernel(waker) => waker.has_work(),
            WakerKind::Sim(_) => false,
        }
    }

    /// As `wake`, with the syscall even where the ring says that it is awake.
    pub fn wake_by_force(&self) {
        match &self.0 {
            WakerKind::Kernel(waker) => waker.wake_by_force(),
            WakerKind::Sim(waker) => waker.wake(),
        }
    }
}
