//! The simulated ring: queues operations until the turn, as the kernel's does.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::network::Receiver;
use super::{
    DiskOperation, EndId, Inode, MONOTONIC_START_NS, Machine, OpenFile, Posted, RECEIVE_BUFFERS_COUNT,
    RingIndex, RingState, TURN_NS, WALL_START_MS, World,
};
use crate::base::ids::{MonotonicNs, WallMs};
use crate::ring::buffer::ALIGNMENT_BYTES;
use crate::ring::shared_file::{SharedFile, SharedFileKind};
use crate::ring::{
    BufferPiece, Completion, DirEntry, FileId, FilePiece, IoBuffer, IoError, ListenerId, OpenMode,
    ReceivedBytes, Sleep, SocketId, Token, WriteMode,
};

/// Every so many looks at the page cache it doesn't have what is looked for.
const COLD_LOOKS: u64 = 3;

pub struct SimRing {
    world: World,
    index: RingIndex,
    queued: Vec<Queued>,
    /// Received bytes by buffer id.
    buffers: Vec<Vec<u8>>,
    completions: VecDeque<Completion>,
    woken: Arc<AtomicBool>,
    now: MonotonicNs,
    wall_now: WallMs,
}

/// What the next turn submits, in this order.
enum Queued {
    Disk { token: Token, operation: DiskOperation },
    Connect { token: Token, address: SocketAddr },
    Receive { socket: SocketId, receiver: Receiver },
    ReceiveStop { socket: SocketId },
    Send { token: Token, socket: SocketId, buffer: Vec<u8>, from: usize },
    Disconnect { socket: SocketId },
}

/// A file that is shared. One in a few looks at the page cache finds it cold.
#[derive(Debug)]
pub struct SimInode {
    inode: Inode,
    looks_count: AtomicU64,
}

impl SimInode {
    pub(super) fn inode(&self) -> Inode {
        self.inode
    }

    pub fn is_resident(&self) -> bool {
        !self.looks_count.fetch_add(1, Ordering::Relaxed).is_multiple_of(COLD_LOOKS)
    }
}

#[derive(Clone)]
pub struct SimWaker(Arc<AtomicBool>);

impl SimWaker {
    pub fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl SimRing {
    pub fn new(world: &World) -> Self {
        let mut machine = world.machine();
        machine.rings.push(RingState {
            alive: true,
            posted: VecDeque::new(),
            files: BTreeMap::new(),
            files_count: 0,
            listeners_count: 0,
            free_buffers: (0..RECEIVE_BUFFERS_COUNT).collect(),
        });
        let index = machine.rings.len() - 1;
        drop(machine);
        let mut this = Self {
            world: world.clone(),
            index,
            queued: Vec::new(),
            buffers: vec![Vec::new(); usize::from(RECEIVE_BUFFERS_COUNT)],
            completions: VecDeque::new(),
            woken: Arc::new(AtomicBool::new(false)),
            now: MonotonicNs(0),
            wall_now: WallMs(0),
        };
        this.read_clocks();
        this
    }

    pub fn now(&mut self) -> MonotonicNs {
        self.now
    }

    /// Computing takes no time here.
    pub fn clock(&self) -> MonotonicNs {
        self.now
    }

    pub fn wall_now(&mut self) -> WallMs {
        self.wall_now
    }

    pub fn entropy(&mut self, bytes: &mut [u8]) {
        self.world.machine().random.fill(bytes);
    }

    fn read_clocks(&mut self) {
        let machine = self.world.machine();
        let passed_ms = (machine.now_ns - MONOTONIC_START_NS) / 1_000_000;
        self.now = MonotonicNs(machine.now_ns);
        self.wall_now = WallMs(WALL_START_MS + passed_ms as i64 + machine.wall_jump_ms);
    }

    // ---- Files -------------------------------------------------------------------------------

    /// None on a dead ring, where the operation fails when it is submitted.
    fn file(&self, file: FileId) -> Option<OpenFile> {
        let machine = self.world.machine();
        let ring = &machine.rings[self.index];
        if !ring.alive {
            return None;
        }
        Some(*ring.files.get(&file).expect("the caller holds an open file"))
    }

    fn queue(&mut self, token: Token, operation: DiskOperation) {
        self.queued.push(Queued::Disk { token, operation });
    }

    fn done_dead(&mut self, token: Token) {
        self.completions.push_back(Completion::Done { token, result: Err(IoError::Os(libc::EIO)) });
    }

    pub fn open(&mut self, token: Token, path: &Path, mode: OpenMode) {
        self.queue(token, DiskOperation::Open { path: path.into(), mode });
    }

    pub fn close(&mut self, file: FileId) {
        let mut machine = self.world.machine();
        let ring = &mut machine.rings[self.index];
        let closed = ring.files.remove(&file);
        assert!(closed.is_some() || !ring.alive, "a file is closed once");
    }

    pub fn read(&mut self, token: Token, file: FileId, position: u64, buffer: IoBuffer, range: Range<usize>) {
        check_aligned(position, &range, &buffer);
        match self.file(file) {
            Some(OpenFile { inode, .. }) => {
                self.queue(token, DiskOperation::Read { inode, position, buffer, range });
            }
            None => self.transferred_dead(token, buffer),
        }
    }

    pub fn write(
        &mut self,
        token: Token,
        file: FileId,
        position: u64,
        buffer: IoBuffer,
        range: Range<usize>,
        mode: WriteMode,
    ) {
        check_aligned(position, &range, &buffer);
        match self.file(file) {
            Some(OpenFile { inode, mode: opened }) => {
                assert!(opened != OpenMode::Read, "a file opened for reading isn't written");
                self.queue(token, DiskOperation::Write { inode, position, buffer, range, mode });
            }
            None => self.transferred_dead(token, buffer),
        }
    }

    pub fn write_pieces(&mut self, token: Token, file: FileId, position: u64, pieces: Vec<BufferPiece>) {
        for piece in &pieces {
            check_aligned(position, &piece.range, &piece.buffer);
        }
        match self.file(file) {
            Some(OpenFile { inode, mode: opened }) => {
                assert!(opened != OpenMode::Read, "a file opened for reading isn't written");
                self.queue(token, DiskOperation::WritePieces { inode, position, pieces });
            }
            None => self.done_dead(token),
        }
    }

    fn transferred_dead(&mut self, token: Token, buffer: IoBuffer) {
        let result = Err(IoError::Os(libc::EIO));
        self.completions.push_back(Completion::Transferred { token, result, buffer });
    }

    pub fn flush(&mut self, token: Token, file: FileId) {
        match self.file(file) {
            Some(OpenFile { inode, .. }) => self.queue(token, DiskOperation::Flush { inode, mark: 0 }),
            None => self.done_dead(token),
        }
    }

    pub fn allocate(&mut self, token: Token, file: FileId, from: u64, bytes: u64) {
        assert!(bytes > 0);
        match self.file(file) {
            Some(OpenFile { inode, .. }) => {
                self.queue(token, DiskOperation::Allocate { inode, from, bytes });
            }
            None => self.done_dead(token),
        }
    }

    pub fn truncate(&mut self, token: Token, file: FileId, bytes: u64) {
        match self.file(file) {
            Some(OpenFile { inode, .. }) => self.queue(token, DiskOperation::Truncate { inode, bytes }),
            None => self.done_dead(token),
        }
    }

    pub fn remove_file(&mut self, token: Token, path: &Path) {
        self.queue(token, DiskOperation::RemoveFile { path: path.into() });
    }

    pub fn remove_dir(&mut self, token: Token, path: &Path) {
        self.queue(token, DiskOperation::RemoveDir { path: path.into() });
    }

    pub fn make_dir(&mut self, token: Token, path: &Path) {
        self.queue(token, DiskOperation::MakeDir { path: path.into() });
    }

    pub fn flush_dir(&mut self, token: Token, path: &Path) {
        self.queue(token, DiskOperation::FlushDir { path: path.into(), mark: 0 });
    }

    pub fn list_dir(&mut self, path: &Path) -> Result<Vec<DirEntry>, IoError> {
        let mut machine = self.world.machine();
        if !machine.rings[self.index].alive {
            return Err(IoError::Os(libc::EIO));
        }
        match machine.count_operation() {
            Some(error) => Err(error),
            None => machine.disk.list_dir(path),
        }
    }

    // ---- Sockets -----------------------------------------------------------------------------

    pub fn listen(&mut self, address: SocketAddr) -> Result<(ListenerId, SocketAddr), IoError> {
        let mut machine = self.world.machine();
        let ring = &mut machine.rings[self.index];
        if !ring.alive {
            return Err(IoError::Os(libc::EIO));
        }
        let listener = ListenerId(ring.listeners_count);
        ring.listeners_count += 1;
        let bound = machine.network.listen(self.index, listener, address);
        Ok((listener, bound))
    }

    pub fn listen_stop(&mut self, listener: ListenerId) {
        self.world.machine().network.listen_stop(self.index, listener);
    }

    pub fn connect(&mut self, token: Token, address: SocketAddr) {
        self.queued.push(Queued::Connect { token, address });
    }

    pub fn receive_start(&mut self, socket: SocketId) {
        self.queued.push(Queued::Receive { socket, receiver: Receiver::Runs });
    }

    pub fn receive_once(&mut self, socket: SocketId, bytes: u32) {
        self.queued.push(Queued::Receive { socket, receiver: Receiver::Once(bytes as usize) });
    }

    pub fn receive_into(&mut self, socket: SocketId, buffer: Vec<u8>, end: usize) {
        assert!(buffer.len() < end && end <= buffer.capacity(), "the buffer has room");
        self.queued.push(Queued::Receive { socket, receiver: Receiver::Into(buffer, end) });
    }

    pub fn receive_stop(&mut self, socket: SocketId) {
        self.queued.push(Queued::ReceiveStop { socket });
    }

    pub fn received(&self, bytes: &ReceivedBytes) -> &[u8] {
        &self.buffers[usize::from(bytes.buffer_id)][..bytes.bytes as usize]
    }

    pub fn received_done(&mut self, bytes: ReceivedBytes) {
        // Overwritten, so that whoever still looks at it notices.
        self.buffers[usize::from(bytes.buffer_id)].fill(0xdd);
        self.world.machine().rings[self.index].free_buffers.push(bytes.buffer_id);
    }

    pub fn send(&mut self, token: Token, socket: SocketId, buffer: Vec<u8>, from: usize) {
        assert!(from <= buffer.len());
        self.queued.push(Queued::Send { token, socket, buffer, from });
    }

    pub fn share(&mut self, file: FileId) -> Option<SharedFile> {
        let inode = self.file(file)?.inode;
        let shared = Arc::new(SimInode { inode, looks_count: AtomicU64::new(0) });
        let mut machine = self.world.machine();
        machine.shared.retain(|shared| shared.strong_count() > 0);
        machine.shared.push(Arc::downgrade(&shared));
        Some(SharedFile(SharedFileKind::Sim(shared)))
    }

    pub fn send_file(&mut self, token: Token, socket: SocketId, piece: FilePiece) {
        // On a dead ring the send fails, whatever it is of.
        let buffer = self.world.read_piece(&piece).unwrap_or_default();
        self.send(token, socket, buffer, 0);
    }

    pub fn disconnect(&mut self, socket: SocketId) {
        self.queued.push(Queued::Disconnect { socket });
    }

    // ---- Turns -------------------------------------------------------------------------------

    pub fn prepare_sleep(&mut self) {
        self.woken.store(false, Ordering::Relaxed);
    }

    pub fn turn(&mut self, sleep: Sleep) {
        let mut machine = self.world.machine();
        for queued in self.queued.drain(..) {
            submit(&mut machine, self.index, queued);
        }
        let now_ns = machine.now_ns;
        machine.run_until(now_ns + TURN_NS);
        let idle = self.completions.is_empty() && machine.rings[self.index].posted.is_empty();
        if idle && !self.woken.load(Ordering::Acquire) {
            machine.sleep(sleep);
        }
        let posted = std::mem::take(&mut machine.rings[self.index].posted);
        drop(machine);
        posted.into_iter().for_each(|posted| self.collect(posted));
        if self.woken.swap(false, Ordering::Acquire) {
            self.completions.push_back(Completion::Woken);
        }
        self.read_clocks();
    }

    fn collect(&mut self, posted: Posted) {
        let completion = match posted {
            Posted::Completion(completion) => completion,
            Posted::Received { socket, buffer_id, bytes } => {
                let run = ReceivedBytes { buffer_id, position: 0, bytes: bytes.len() as u32 };
                self.buffers[usize::from(buffer_id)] = bytes;
                Completion::Received { socket, bytes: run }
            }
        };
        self.completions.push_back(completion);
    }

    #[allow(clippy::should_implement_trait)]
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
            let others = std::mem::take(&mut self.completions);
            let machine = self.world.machine();
            let posted = !machine.rings[self.index].posted.is_empty();
            let may_come = posted || !self.queued.is_empty() || !machine.events.is_empty();
            drop(machine);
            assert!(may_come, "nothing is in flight: waiting would never end");
            self.turn(Sleep::Forever);
            let collected = std::mem::replace(&mut self.completions, others);
            self.completions.extend(collected);
        }
    }

    pub fn waker(&mut self) -> SimWaker {
        SimWaker(self.woken.clone())
    }
}

fn submit(machine: &mut Machine, ring: RingIndex, queued: Queued) {
    let alive = machine.rings[ring].alive;
    match queued {
        Queued::Disk { token, operation } => machine.submit_disk(ring, token, operation),
        Queued::Connect { token, address } if alive => machine.connect_later(ring, token, address),
        Queued::Receive { socket, receiver } if alive => machine.receive(EndId(socket.0), receiver),
        Queued::ReceiveStop { socket } if alive => machine.receive_stop(EndId(socket.0)),
        Queued::Send { token, socket, buffer, from } if alive => {
            machine.send(EndId(socket.0), token, buffer, from);
        }
        Queued::Disconnect { socket } if alive => machine.disconnect(EndId(socket.0)),
        // The process is gone: what still runs in the test hears failures only.
        Queued::Connect { token, .. } => {
            machine.post(ring, Completion::Connected { token, result: Err(IoError::Os(libc::EIO)) });
        }
        Queued::Receive { socket, receiver } => {
            machine.end_receiver(ring, EndId(socket.0), receiver, Err(IoError::Disconnected));
        }
        Queued::Send { token, socket, buffer, .. } => {
            let result = Err(IoError::Disconnected);
            machine.post(ring, Completion::Sent { socket, token, result, buffer });
        }
        Queued::ReceiveStop { .. } | Queued::Disconnect { .. } => {}
    }
}

fn check_aligned(position: u64, range: &Range<usize>, buffer: &IoBuffer) {
    assert!(position.is_multiple_of(ALIGNMENT_BYTES as u64), "position {position} is not aligned");
    assert!(range.start.is_multiple_of(ALIGNMENT_BYTES), "range {range:?} is not aligned");
    assert!(range.end.is_multiple_of(ALIGNMENT_BYTES), "range {range:?} is not aligned");
    assert!(range.start < range.end, "a transfer has bytes");
    assert!(range.end <= buffer.len(), "range {range:?} is outside of the buffer");
}
