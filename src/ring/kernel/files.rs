//! Files: operations on files and directories, and the table of open ones.
//!
//! A file's slot in the table is its slot among the ring's registered files as well, where the
//! kernel granted that table: an operation then takes no reference on a shared descriptor table.
//! The plain descriptor stays open beside it for the second ring.

use std::ffi::CString;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};

use super::{IGNORED, KernelRing, Operation, c_path, io_error};
use crate::ring::buffer::ALIGNMENT_BYTES;
use crate::ring::{BufferPiece, Completion, FileId, IoBuffer, IoError, OpenMode, Token, WriteMode};

/// The kernel transfers at most this much at once (MAX_RW_COUNT is 2 GiB less a page).
const TRANSFER_BYTES_MAX: usize = 1 << 30;

struct OpenFile {
    descriptor: OwnedFd,
    in_flight_count: u32,
    closing: bool,
}

pub(super) struct Files {
    slots: Vec<Option<OpenFile>>,
    free: Vec<u32>,
    /// Slots below this are registered with the ring; 0 when the kernel refused.
    registered_count: u32,
}

/// How a submission names the file.
#[derive(Clone, Copy)]
struct Target {
    number: RawFd,
    flags: squeue::Flags,
}

impl Files {
    pub(super) fn new(ring: &IoUring, registered_count: u32) -> Self {
        let granted = ring.submitter().register_files_sparse(registered_count).is_ok();
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            registered_count: if granted { registered_count } else { 0 },
        }
    }

    fn insert(&mut self, ring: &IoUring, descriptor: OwnedFd) -> Result<FileId, IoError> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        if slot < self.registered_count
            && let Err(error) = ring.submitter().register_files_update(slot, &[descriptor.as_raw_fd()])
        {
            self.free.push(slot);
            return Err(io_error(&error));
        }
        let file = &mut self.slots[slot as usize];
        assert!(file.is_none(), "free slots hold no file");
        *file = Some(OpenFile { descriptor, in_flight_count: 0, closing: false });
        Ok(FileId(slot))
    }

    /// Another descriptor of the same open file.
    pub(super) fn clone_descriptor(&mut self, file: FileId) -> std::io::Result<OwnedFd> {
        self.open_file(file).descriptor.try_clone()
    }

    fn open_file(&mut self, file: FileId) -> &mut OpenFile {
        let slot = self.slots.get_mut(file.0 as usize);
        slot.and_then(Option::as_mut).expect("the caller holds an open file")
    }

    /// Counts an operation in flight, and says how to name the file on the own ring.
    fn begin(&mut self, file: FileId) -> Target {
        let registered = file.0 < self.registered_count;
        let open = self.open_file(file);
        assert!(!open.closing, "no operation begins on a closed file");
        open.in_flight_count += 1;
        if registered {
            Target { number: file.0 as RawFd, flags: squeue::Flags::FIXED_FILE }
        } else {
            Target { number: open.descriptor.as_raw_fd(), flags: squeue::Flags::empty() }
        }
    }

    /// The file's descriptor, out of the table, once nothing is in flight on it.
    fn take_if_idle(&mut self, ring: &IoUring, file: FileId) -> Option<OwnedFd> {
        let open = self.open_file(file);
        if !open.closing || open.in_flight_count > 0 {
            return None;
        }
        let open = self.slots[file.0 as usize].take().expect("looked up just now");
        if file.0 < self.registered_count {
            let updated = ring.submitter().register_files_update(file.0, &[-1]);
            updated.expect("a registered slot can be emptied");
        }
        self.free.push(file.0);
        Some(open.descriptor)
    }
}

impl KernelRing {
    pub fn open(&mut self, token: Token, path: &Path, mode: OpenMode) {
        match c_path(path) {
            Ok(path) => self.submit_open(token, path, mode, mode != OpenMode::Cached),
            Err(error) => self.completions.push_back(Completion::Opened { token, result: Err(error) }),
        }
    }

    fn submit_open(&mut self, token: Token, path: CString, mode: OpenMode, direct: bool) {
        let access = match mode {
            OpenMode::Read | OpenMode::Cached => libc::O_RDONLY,
            OpenMode::Write => libc::O_RDWR,
            // A filesystem without O_DIRECT refuses after it has made the file, so the second
            // attempt finds the file of the first.
            OpenMode::CreateNew if direct => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
            OpenMode::CreateNew => libc::O_RDWR | libc::O_CREAT,
        };
        let direct_flag = if direct { libc::O_DIRECT } else { 0 };
        let entry = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr())
            .flags(access | direct_flag | libc::O_CLOEXEC)
            .mode(0o640)
            .build();
        self.submit(Operation::Open { token, path, mode, direct }, entry);
    }

    pub(super) fn opened(
        &mut self,
        token: Token,
        path: CString,
        mode: OpenMode,
        direct: bool,
        result: Result<u32, IoError>,
    ) {
        if direct && result == Err(IoError::Os(libc::EINVAL)) {
            self.submit_open(token, path, mode, false);
            return;
        }
        let result = result.and_then(|descriptor| {
            self.direct_io_missing |= !direct && mode != OpenMode::Cached;
            // SAFETY: the kernel opened this descriptor for us just now; nothing else owns it.
            let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) };
            if mode == OpenMode::Cached {
                refuse_read_ahead(&descriptor);
            }
            self.files.insert(&self.ring, descriptor)
        });
        self.completions.push_back(Completion::Opened { token, result });
    }

    pub fn close(&mut self, file: FileId) {
        let open = self.files.open_file(file);
        assert!(!open.closing, "a file is closed once");
        open.closing = true;
        self.close_if_idle(file);
    }

    /// An operation on `file` completed.
    pub(super) fn files_done(&mut self, file: FileId) {
        let open = self.files.open_file(file);
        open.in_flight_count -= 1;
        if open.closing {
            self.close_if_idle(file);
        }
    }

    fn close_if_idle(&mut self, file: FileId) {
        if let Some(descriptor) = self.files.take_if_idle(&self.ring, file) {
            // By a worker: the last close of a removed file frees its blocks, which takes long.
            let entry = opcode::Close::new(Fd(descriptor.into_raw_fd())).build();
            self.push(entry.flags(squeue::Flags::ASYNC).user_data(IGNORED));
        }
    }

    pub fn read(
        &mut self,
        token: Token,
        file: FileId,
        position: u64,
        mut buffer: IoBuffer,
        range: Range<usize>,
    ) {
        check_aligned(position, &range);
        let target = self.files.begin(file);
        let memory = &mut buffer[range];
        let (pointer, asked_bytes) = (memory.as_mut_ptr(), memory.len());
        let entry =
            opcode::Read::new(Fd(target.number), pointer, asked_bytes as u32).offset(position).build();
        let operation = Operation::Transfer { token, file, buffer, asked_bytes };
        self.submit(operation, entry.flags(target.flags));
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
        check_aligned(position, &range);
        let target = self.files.begin(file);
        let memory = &buffer[range];
        let (pointer, asked_bytes) = (memory.as_ptr(), memory.len());
        let flags = match mode {
            WriteMode::Plain => 0,
            WriteMode::Durable => libc::RWF_DSYNC,
        };
        let entry = opcode::Write::new(Fd(target.number), pointer, asked_bytes as u32)
            .offset(position)
            .rw_flags(flags)
            .build();
        let operation = Operation::Transfer { token, file, buffer, asked_bytes };
        self.submit(operation, entry.flags(target.flags));
    }

    pub fn write_pieces(&mut self, token: Token, file: FileId, position: u64, pieces: Vec<BufferPiece>) {
        let vector: Vec<libc::iovec> = pieces.iter().map(vector_entry).collect();
        let asked_bytes = pieces.iter().map(|piece| piece.range.len()).sum();
        check_aligned(position, &(0..asked_bytes));
        let target = self.files.begin(file);
        let entry = opcode::Writev::new(Fd(target.number), vector.as_ptr(), vector.len() as u32)
            .offset(position)
            .build();
        let operation = Operation::WritePieces { token, file, _pieces: pieces, _vector: vector, asked_bytes };
        self.submit(operation, entry.flags(target.flags));
    }

    pub fn flush(&mut self, token: Token, file: FileId) {
        self.files.begin(file);
        // The second ring has no registered files.
        let descriptor = Fd(self.files.open_file(file).descriptor.as_raw_fd());
        let entry = opcode::Fsync::new(descriptor).flags(FsyncFlags::DATASYNC).build();
        self.submit_flush(Operation::OnFile { token, file }, entry);
    }

    pub fn allocate(&mut self, token: Token, file: FileId, from: u64, bytes: u64) {
        assert!(bytes > 0);
        let target = self.files.begin(file);
        let entry = opcode::Fallocate::new(Fd(target.number), bytes).offset(from).build();
        self.submit(Operation::OnFile { token, file }, entry.flags(target.flags));
    }

    pub fn truncate(&mut self, token: Token, file: FileId, bytes: u64) {
        let target = self.files.begin(file);
        if self.truncate_on_ring {
            let entry = opcode::Ftruncate::new(Fd(target.number), bytes).build();
            self.submit(Operation::OnFile { token, file }, entry.flags(target.flags));
            return;
        }
        // Before Linux 6.9 the ring has no such operation; this blocks for a metadata change.
        let result = match self.files.open_file(file).descriptor.try_clone() {
            Ok(descriptor) => File::from(descriptor).set_len(bytes),
            Err(error) => Err(error),
        };
        self.files_done(file);
        self.done(token, result.map(|()| 0).map_err(|error| io_error(&error)));
    }

    pub fn remove_file(&mut self, token: Token, path: &Path) {
        self.remove(token, path, 0);
    }

    pub fn remove_dir(&mut self, token: Token, path: &Path) {
        self.remove(token, path, libc::AT_REMOVEDIR);
    }

    fn remove(&mut self, token: Token, path: &Path, flags: i32) {
        match c_path(path) {
            Ok(path) => {
                let entry = opcode::UnlinkAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).flags(flags).build();
                self.submit(Operation::OnPath { token, _path: path }, entry);
            }
            Err(error) => self.done(token, Err(error)),
        }
    }

    pub fn make_dir(&mut self, token: Token, path: &Path) {
        match c_path(path) {
            Ok(path) => {
                let entry = opcode::MkDirAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).mode(0o750).build();
                self.submit(Operation::OnPath { token, _path: path }, entry);
            }
            Err(error) => self.done(token, Err(error)),
        }
    }

    pub fn flush_dir(&mut self, token: Token, path: &Path) {
        match c_path(path) {
            Ok(path) => {
                let entry = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr())
                    .flags(libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC)
                    .build();
                self.submit(Operation::FlushDir { token, path, dir: None }, entry);
            }
            Err(error) => self.done(token, Err(error)),
        }
    }

    /// Opened: flush it. Flushed: close it and tell.
    pub(super) fn flush_dir_step(
        &mut self,
        token: Token,
        path: CString,
        dir: Option<OwnedFd>,
        result: Result<u32, IoError>,
    ) {
        match (dir, result) {
            (None, Ok(descriptor)) => {
                // SAFETY: the kernel opened this descriptor for us just now; nothing else owns it.
                let dir = unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) };
                let entry = opcode::Fsync::new(Fd(dir.as_raw_fd())).build();
                self.submit_flush(Operation::FlushDir { token, path, dir: Some(dir) }, entry);
            }
            (_, result) => self.done(token, result),
        }
    }
}

fn vector_entry(piece: &BufferPiece) -> libc::iovec {
    check_aligned(0, &piece.range);
    let bytes = piece.bytes();
    // The kernel only reads what a write points to.
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// The caller's part of direct I/O: position and range in whole blocks (the memory is, by its type).
fn check_aligned(position: u64, range: &Range<usize>) {
    assert!(position.is_multiple_of(ALIGNMENT_BYTES as u64), "position {position} is not aligned");
    assert!(range.start.is_multiple_of(ALIGNMENT_BYTES), "range {range:?} is not aligned");
    assert!(range.end.is_multiple_of(ALIGNMENT_BYTES), "range {range:?} is not aligned");
    assert!(range.start < range.end, "a transfer has bytes");
    assert!(range.len() <= TRANSFER_BYTES_MAX, "a transfer is at most 1 GiB");
}

/// Reads bring to the page cache what they ask for and no more: the kernel's read-ahead is as large as the
/// disk's setting, which was seen at 8 MiB, and schedulers put reads before the writes of commit groups.
fn refuse_read_ahead(file: &OwnedFd) {
    // A filesystem that takes no advice reads ahead; nothing else depends on it.
    nix::fcntl::posix_fadvise(file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_RANDOM).ok();
}
