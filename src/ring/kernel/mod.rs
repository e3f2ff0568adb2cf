//! Kernel: the io_uring backend.
//!
//! Owns:     two rings. The shard's own (SINGLE_ISSUER, DEFER_TASKRUN) carries everything but
//!           flushes; a small plain one carries flushes, whose completions are posted by the worker
//!           that ran them and read without a syscall. The first polls the second's descriptor.
//! Promises: one `io_uring_enter` per turn at most (plus one when flushes were queued), none when
//!           nothing is queued and nothing is due; memory of an operation lives until it completes.
//! Never:    links a write and a flush (on a DEFER_TASKRUN ring each hop waits for the next turn),
//!           blocks outside of the sleep a turn allows.

mod files;
mod listeners;
mod outside;
mod receive_buffers;
mod send_file;
mod setup;
mod sockets;
mod wake;

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use nix::time::{ClockId, clock_gettime};

use super::{
    BufferPiece, Completion, DirEntry, FileId, IoBuffer, IoError, ListenerId, OpenMode, RingError,
    RingFeature, RingOptions, Sleep, SocketId, Token,
};
use crate::base::ids::{MonotonicNs, WallMs};
use crate::base::slab::{Key, Slab};
use crate::metrics::tally::{Tally, called};
#[cfg(feature = "glommio")]
pub use outside::adopt;
pub use send_file::CachedDescriptor;
#[cfg(feature = "glommio")]
pub use setup::retry_short_memory;
pub use wake::KernelWaker;

/// The upper 8 bits of `user_data`; the lower 56 are a slab key where there is one.
const OPERATION: u64 = 0;
const WAKE_POLL: u64 = 1 << 56;
const FLUSH_POLL: u64 = 2 << 56;
/// Cancellations and closes: their result decides nothing.
const IGNORED: u64 = 3 << 56;
/// The end of a sleep outside.
const ALARM: u64 = 4 << 56;

/// How long `drop` waits for cancelled operations to give their memory back.
const DROP_WAIT_MAX: Duration = Duration::from_secs(5);

/// An operation the kernel has, and the memory it uses.
enum Operation {
    Open {
        token: Token,
        path: CString,
        mode: OpenMode,
        direct: bool,
    },
    Transfer {
        token: Token,
        file: FileId,
        buffer: IoBuffer,
        asked_bytes: usize,
    },
    /// Holds the vector and the memory that the kernel reads.
    WritePieces {
        token: Token,
        file: FileId,
        _pieces: Vec<BufferPiece>,
        _vector: Vec<libc::iovec>,
        asked_bytes: usize,
    },
    /// Flush, allocate, truncate.
    OnFile {
        token: Token,
        file: FileId,
    },
    /// Remove, make directory. Holds the path that the kernel reads.
    OnPath {
        token: Token,
        _path: CString,
    },
    /// First opened, then flushed on the second ring with `dir` set.
    FlushDir {
        token: Token,
        path: CString,
        dir: Option<OwnedFd>,
    },
    Accept {
        listener: ListenerId,
    },
    Receive {
        socket: SocketId,
    },
    ReceiveInto(sockets::Filling),
    Send(sockets::Sending),
    /// Waits until the socket has room.
    SendFile(send_file::SendingFile),
    Connect {
        token: Token,
        connecting: Box<sockets::Connecting>,
    },
}

/// The three fields of a completion queue entry.
#[derive(Clone, Copy)]
struct Entry {
    user_data: u64,
    result: i32,
    flags: u32,
}

/// What kernels newer than Linux 6.1 add and we use where it is.
struct Features {
    /// Linux 6.9: truncation on the ring.
    truncate: bool,
    /// Linux 6.12: receive buffers filled piece by piece. Asked for; the kernel may refuse.
    receive_piece_by_piece: bool,
}

pub struct KernelRing {
    ring: IoUring,
    flush_ring: IoUring,
    flushes_in_flight: usize,
    flush_poll_armed: bool,
    /// By `ManuallyDrop`: leaked rather than freed under the kernel's hands (see `drop`).
    operations: ManuallyDrop<Slab<Operation>>,
    files: files::Files,
    listeners: Vec<listeners::Listener>,
    sockets: Slab<sockets::Socket>,
    receive_buffers: receive_buffers::ReceiveBuffers,
    reaped: VecDeque<Entry>,
    completions: VecDeque<Completion>,
    wake: Arc<wake::WakeState>,
    /// There when the ring's thread sleeps outside.
    alarm: Option<outside::Alarm>,
    prepared: bool,
    truncate_on_ring: bool,
    direct_io_missing: bool,
    now: MonotonicNs,
    wall_now: WallMs,
}

impl KernelRing {
    pub fn new(options: &RingOptions) -> Result<Self, RingError> {
        Self::with_features(options, |probe| Features {
            truncate: probe.is_supported(opcode::Ftruncate::CODE),
            receive_piece_by_piece: true,
        })
    }

    /// A ring that uses nothing newer than Linux 6.1, whatever the kernel has.
    #[cfg(test)]
    pub fn as_on_old_kernel(options: &RingOptions) -> Result<Self, RingError> {
        Self::with_features(options, |_| Features { truncate: false, receive_piece_by_piece: false })
    }

    fn with_features(
        options: &RingOptions,
        features: impl FnOnce(&Probe) -> Features,
    ) -> Result<Self, RingError> {
        let ring = setup::main_ring(options)?;
        let flush_ring = setup::flush_ring()?;
        let wake =
            wake::WakeState::new(options.sleeps_outside).map_err(|errno| setup::explain(&errno.into()))?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(|error| setup::explain(&error))?;
        let features = features(&probe);
        let files = files::Files::new(&ring, setup::registered_slots(options.descriptors_max));
        let receive_buffers =
            receive_buffers::ReceiveBuffers::new(&ring, options, features.receive_piece_by_piece)
                .map_err(|error| setup::explain(&error))?;
        let mut this = Self {
            ring,
            flush_ring,
            flushes_in_flight: 0,
            flush_poll_armed: false,
            operations: ManuallyDrop::new(Slab::default()),
            files,
            listeners: Vec::new(),
            sockets: Slab::default(),
            receive_buffers,
            reaped: VecDeque::new(),
            completions: VecDeque::new(),
            wake: Arc::new(wake),
            alarm: options.sleeps_outside.then(outside::Alarm::default),
            prepared: false,
            truncate_on_ring: features.truncate,
            direct_io_missing: false,
            now: MonotonicNs(0),
            wall_now: WallMs(0),
        };
        if options.sleeps_outside {
            this.register_eventfd().map_err(|error| setup::explain(&error))?;
        } else {
            this.arm_wake_poll();
        }
        this.read_clocks();
        Ok(this)
    }

    pub fn features(&self) -> Vec<RingFeature> {
        vec![
            RingFeature {
                name: "truncation on the ring",
                since: "Linux 6.9",
                is_there: self.truncate_on_ring,
                cost: "a removed segment's space is freed by calls that hold the shard up",
            },
            RingFeature {
                name: "receive buffers filled piece by piece",
                since: "Linux 6.12",
                is_there: self.receive_buffers.piece_by_piece,
                cost: "each arrival takes a whole receive buffer: many small requests at once wait for free ones",
            },
        ]
    }

    pub fn now(&mut self) -> MonotonicNs {
        self.now
    }

    pub fn clock(&self) -> MonotonicNs {
        monotonic_now()
    }

    pub fn wall_now(&mut self) -> WallMs {
        self.wall_now
    }

    pub fn entropy(&mut self, bytes: &mut [u8]) {
        let mut filled = 0;
        while filled < bytes.len() {
            let rest = &mut bytes[filled..];
            // SAFETY: the pointer and length are those of one exclusively borrowed slice.
            let count = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
            // Without flags it fails only with EINTR, before it has bytes to give.
            filled += usize::try_from(count).unwrap_or(0);
        }
    }

    pub fn direct_io_missing(&self) -> bool {
        self.direct_io_missing
    }

    pub fn waker(&mut self) -> KernelWaker {
        KernelWaker(self.wake.clone())
    }

    // ---- Turns -------------------------------------------------------------------------------

    pub fn prepare_sleep(&mut self) {
        self.wake.announce_anew();
        self.prepared = true;
    }

    pub fn turn(&mut self, sleep: Sleep) {
        self.submit_flushes();
        self.reap();
        let pause_end = self.rearm_listeners();
        let wait = self.wait_for(sleep.at_most(pause_end));
        if wait != Wait::No {
            self.enter(wait);
        } else if self.must_enter() {
            self.enter(Wait::No);
        }
        self.reap();
        self.reap_flushes();
        self.prepared = false;
        self.read_clocks();
        while let Some(entry) = self.reaped.pop_front() {
            self.complete(entry);
        }
        if self.wake.take() {
            self.completions.push_back(Completion::Woken);
        }
    }

    pub fn next(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    pub fn wait(&mut self, is_awaited: impl Fn(Token) -> bool) -> Completion {
        loop {
            let found =
                self.completions.iter().position(|completion| completion.token().is_some_and(&is_awaited));
            if let Some(index) = found {
                return self.completions.remove(index).expect("the index was found just now");
            }
            // Queued completions of others must not keep this turn from sleeping.
            let others = std::mem::take(&mut self.completions);
            self.turn(Sleep::Forever);
            let collected = std::mem::replace(&mut self.completions, others);
            self.completions.extend(collected);
        }
    }

    /// What the turn's enter waits for. Announces the sleep, or finds that there must be none.
    fn wait_for(&mut self, sleep: Sleep) -> Wait {
        if !self.completions.is_empty() || !self.reaped.is_empty() {
            return Wait::No;
        }
        let wait = match sleep {
            Sleep::No => Wait::No,
            Sleep::Forever => Wait::Forever,
            Sleep::Until(deadline) => match deadline.0.saturating_sub(monotonic_now().0) {
                0 => Wait::No,
                ns => Wait::AtMost(ns),
            },
        };
        let announced = wait == Wait::No || self.prepared || self.wake.announce();
        if announced { wait } else { Wait::No }
    }

    fn must_enter(&mut self) -> bool {
        let submission = self.ring.submission();
        !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
    }

    fn enter(&mut self, wait: Wait) {
        called(Tally::CallEnter);
        let result = match wait {
            Wait::No => {
                let queued = self.ring.submission().len();
                submit_and_collect(&self.ring, queued)
            }
            Wait::Forever => self.ring.submit_and_wait(1),
            Wait::AtMost(ns) => {
                let span = Timespec::new().sec(ns / 1_000_000_000).nsec((ns % 1_000_000_000) as u32);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&span))
            }
        };
        check_enter(result);
    }

    /// Moves the kernel's completions into our own queue. Handles none: handling submits.
    fn reap(&mut self) {
        for entry in self.ring.completion() {
            self.reaped.push_back(Entry::of(&entry));
        }
    }

    fn read_clocks(&mut self) {
        self.now = monotonic_now();
        let wall = clock_gettime(ClockId::CLOCK_REALTIME).expect("the realtime clock exists");
        self.wall_now = WallMs(wall.tv_sec() * 1000 + wall.tv_nsec() / 1_000_000);
    }

    // ---- Submitting ----------------------------------------------------------------------------

    fn submit(&mut self, operation: Operation, entry: squeue::Entry) -> Key {
        let key = self.operations.insert(operation);
        self.push(entry.user_data(OPERATION | key.to_u56()));
        key
    }

    /// Queues an entry; a full queue is handed to the kernel first.
    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: memory the entry points to is owned by its operation in the slab, which is
            // removed when the completion comes; entries without memory are safe by themselves.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            let queued = self.ring.submission().len();
            called(Tally::CallEnter);
            check_enter(submit_and_collect(&self.ring, queued));
            // Makes room in the completion queue, without which the kernel may take no more.
            self.reap();
        }
    }

    fn submit_flush(&mut self, operation: Operation, entry: squeue::Entry) {
        let key = self.operations.insert(operation);
        let entry = entry.user_data(OPERATION | key.to_u56());
        self.flushes_in_flight += 1;
        loop {
            // SAFETY: a flush points to no memory; its descriptor is held by its file or operation.
            if unsafe { self.flush_ring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.submit_flushes();
            self.reap_flushes();
        }
    }

    fn submit_flushes(&mut self) {
        let submission = self.flush_ring.submission();
        let (queued, overflow) = (submission.len(), submission.cq_overflow());
        drop(submission);
        if queued > 0 || overflow {
            called(Tally::CallEnter);
            check_enter(submit_and_collect(&self.flush_ring, queued));
        }
        if self.flushes_in_flight > 0 && !self.flush_poll_armed {
            self.flush_poll_armed = true;
            let descriptor = Fd(self.flush_ring.as_raw_fd());
            self.push(opcode::PollAdd::new(descriptor, libc::POLLIN as u32).build().user_data(FLUSH_POLL));
        }
    }

    /// Reads the second ring's completions from memory, no syscall.
    fn reap_flushes(&mut self) {
        if self.flushes_in_flight == 0 {
            return;
        }
        for entry in self.flush_ring.completion() {
            self.flushes_in_flight -= 1;
            self.reaped.push_back(Entry::of(&entry));
        }
    }

    fn arm_wake_poll(&mut self) {
        let descriptor = Fd(self.wake.eventfd.as_raw_fd());
        let poll = opcode::PollAdd::new(descriptor, libc::POLLIN as u32).multi(true);
        self.push(poll.build().user_data(WAKE_POLL));
    }

    // ---- Completing ----------------------------------------------------------------------------

    fn complete(&mut self, entry: Entry) {
        match entry.user_data & !((1 << 56) - 1) {
            OPERATION => self.complete_operation(entry),
            // The wake itself is in the wake word; this only ended the sleep.
            WAKE_POLL if cqueue::more(entry.flags) => {}
            WAKE_POLL => self.arm_wake_poll(),
            FLUSH_POLL => self.flush_poll_armed = false,
            ALARM => self.alarm_rang(),
            IGNORED => {}
            other => unreachable!("no submission carries {other:#x}"),
        }
    }

    fn complete_operation(&mut self, entry: Entry) {
        let key = Key::from_u56(entry.user_data);
        if cqueue::more(entry.flags) {
            match self.operations.get(key) {
                Some(Operation::Accept { listener }) => self.accepted(*listener, &entry),
                Some(Operation::Receive { socket }) => self.receive_completed(*socket, &entry),
                _ => unreachable!("nothing else completes more than once"),
            }
            return;
        }
        let operation = self.operations.remove(key).expect("an operation ends once");
        let result = outcome(entry.result);
        match operation {
            Operation::Open { token, path, mode, direct } => self.opened(token, path, mode, direct, result),
            Operation::Transfer { token, file, buffer, asked_bytes } => {
                self.files_done(file);
                let result = whole(result, asked_bytes);
                self.completions.push_back(Completion::Transferred { token, result, buffer });
            }
            Operation::WritePieces { token, file, asked_bytes, .. } => {
                self.files_done(file);
                let result = whole(result, asked_bytes);
                self.completions.push_back(Completion::Done { token, result });
            }
            Operation::OnFile { token, file } => {
                self.files_done(file);
                self.done(token, result);
            }
            Operation::OnPath { token, _path: _ } => self.done(token, result),
            Operation::FlushDir { token, path, dir } => self.flush_dir_step(token, path, dir, result),
            Operation::Accept { listener } => self.accepted(listener, &entry),
            Operation::Receive { socket } => self.receive_completed(socket, &entry),
            Operation::ReceiveInto(filling) => self.receive_into_completed(filling, result),
            Operation::Send(sending) => self.send_completed(sending, result),
            Operation::SendFile(sending) => self.send_file_woken(sending, result),
            Operation::Connect { token, connecting } => self.connected(token, *connecting, result),
        }
    }

    fn done(&mut self, token: Token, result: Result<u32, IoError>) {
        self.completions.push_back(Completion::Done { token, result: result.map(|_| ()) });
    }

    pub fn list_dir(&mut self, path: &Path) -> Result<Vec<DirEntry>, IoError> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(|error| io_error(&error))? {
            let entry = entry.map_err(|error| io_error(&error))?;
            let metadata = entry.metadata().map_err(|error| io_error(&error))?;
            entries.push(DirEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                is_dir: metadata.is_dir(),
                bytes: if metadata.is_dir() { 0 } else { metadata.len() },
            });
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }
}

impl Drop for KernelRing {
    /// The kernel may still write into buffers of operations in flight: cancel them, wait for them,
    /// and leak the buffers of those that don't come back (a disk that hangs).
    fn drop(&mut self) {
        self.listeners.iter_mut().for_each(listeners::Listener::end);
        self.sockets.iter_mut().for_each(|(_, socket)| socket.end());
        let end = Instant::now() + DROP_WAIT_MAX;
        while !self.operations.is_empty() && Instant::now() < end {
            self.push(opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(IGNORED));
            self.completions.clear();
            self.turn(Sleep::Until(monotonic_now().plus_ms(10)));
        }
        if self.operations.is_empty() {
            // SAFETY: dropped once, here, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.operations) };
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    No,
    AtMost(u64),
    Forever,
}

impl Sleep {
    fn at_most(self, end: Option<MonotonicNs>) -> Self {
        match (self, end) {
            (Self::Forever, Some(end)) => Self::Until(end),
            (Self::Until(deadline), Some(end)) => Self::Until(deadline.min(end)),
            (sleep, _) => sleep,
        }
    }
}

impl Entry {
    fn of(entry: &cqueue::Entry) -> Self {
        Self { user_data: entry.user_data(), result: entry.result(), flags: entry.flags() }
    }
}

/// A transfer of all that was asked for, or its error.
fn whole(result: Result<u32, IoError>, asked_bytes: usize) -> Result<(), IoError> {
    match result? as usize {
        bytes if bytes == asked_bytes => Ok(()),
        transferred_bytes => Err(IoError::Short { transferred_bytes }),
    }
}

fn submit_and_collect(ring: &IoUring, queued: usize) -> std::io::Result<usize> {
    const GETEVENTS: u32 = 1;
    // SAFETY: no argument is passed; `queued` entries were written by the submission queue.
    unsafe { ring.submitter().enter::<libc::sigset_t>(queued as u32, 0, GETEVENTS, None) }
}

/// A signal, a time-out, and a kernel that is short of memory or of completion slots are all ended
/// by the next turn; anything else is a mistake of ours.
fn check_enter(result: std::io::Result<usize>) {
    let Err(error) = result else { return };
    match error.raw_os_error() {
        Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN | libc::ENOMEM) => {}
        _ => panic!("io_uring_enter failed: {error}"),
    }
}

fn monotonic_now() -> MonotonicNs {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the monotonic clock exists");
    MonotonicNs(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

fn outcome(result: i32) -> Result<u32, IoError> {
    u32::try_from(result).map_err(|_| IoError::from_errno(-result))
}

fn io_error(error: &std::io::Error) -> IoError {
    IoError::from_errno(error.raw_os_error().unwrap_or(libc::EIO))
}

fn c_path(path: &Path) -> Result<CString, IoError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| IoError::Os(libc::EINVAL))
}
