//! Disk: file operations that block, for start-up, recovery and commands only.

use std::path::{Path, PathBuf};

use super::format::{BLOCK_BYTES, blocks_up};
use super::mutation::{self, Mutation};
use super::options::LaneError;
use crate::ring::{Completion, DirEntry, FileId, IoBuffer, IoError, OpenMode, Ring, Token, WriteMode};

/// Transfers at once.
const STEP_BYTES: usize = 1 << 20;

pub(super) struct Disk<'a> {
    pub(super) ring: &'a mut Ring,
    owner: u8,
    operations_count: u64,
}

impl<'a> Disk<'a> {
    pub(super) fn new(ring: &'a mut Ring, owner: u8) -> Self {
        Self { ring, owner, operations_count: 0 }
    }

    fn token(&mut self) -> Token {
        self.operations_count += 1;
        // Apart from the keys of jobs, whose slots never reach so high a number.
        Token::new(self.owner, 1 << 55 | self.operations_count)
    }

    fn wait_done(&mut self, token: Token) -> Result<(), IoError> {
        match self.ring.wait(token) {
            Completion::Done { result, .. } => result,
            other => panic!("waited for a file operation, got {other:?}"),
        }
    }

    fn wait_opened(&mut self, token: Token) -> Result<FileId, IoError> {
        match self.ring.wait(token) {
            Completion::Opened { result, .. } => result,
            other => panic!("waited for an open, got {other:?}"),
        }
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> Result<FileId, IoError> {
        let token = self.token();
        self.ring.open(token, path, mode);
        self.wait_opened(token)
    }

    /// One operation for each of `items`, all of them in flight at once. All have ended on return.
    ///
    /// Errors: the first that failed, by its index.
    fn each<I, T>(
        &mut self,
        items: impl IntoIterator<Item = I>,
        submit: impl Fn(&mut Ring, Token, I),
        wait: impl Fn(&mut Self, Token) -> Result<T, IoError>,
    ) -> Result<Vec<T>, (usize, IoError)> {
        let mut tokens = Vec::new();
        for item in items {
            tokens.push(self.token());
            submit(self.ring, tokens[tokens.len() - 1], item);
        }
        let results: Vec<_> = tokens.into_iter().map(|token| wait(self, token)).collect();
        results
            .into_iter()
            .enumerate()
            .map(|(index, result)| result.map_err(|error| (index, error)))
            .collect()
    }

    /// Cuts these files to these lengths and makes that durable: each step of all of them at once.
    ///
    /// Errors: of the first that failed. No step follows one that failed for any of them.
    pub(super) fn cut_files(&mut self, cuts: &[(PathBuf, u64)]) -> Result<(), LaneError> {
        let fail = |(index, error): (usize, IoError)| failed("cutting", &cuts[index].0, error);
        let open =
            |ring: &mut Ring, token, (path, _): &(PathBuf, u64)| ring.open(token, path, OpenMode::Write);
        let files = self.each(cuts, open, Self::wait_opened).map_err(fail)?;
        let cut = |ring: &mut Ring, token, (file, (_, bytes)): (&FileId, &(PathBuf, u64))| {
            ring.truncate(token, *file, *bytes);
        };
        self.each(files.iter().zip(cuts), cut, Self::wait_done).map_err(fail)?;
        let flush = |ring: &mut Ring, token, file: &FileId| ring.flush(token, *file);
        self.each(&files, flush, Self::wait_done).map_err(fail)?;
        files.into_iter().for_each(|file| self.ring.close(file));
        Ok(())
    }

    pub(super) fn flush_found(&mut self, file: FileId) -> Result<(), IoError> {
        if mutation::is(Mutation::RecoverWithoutFlush) { Ok(()) } else { self.flush(file) }
    }

    pub(super) fn flush(&mut self, file: FileId) -> Result<(), IoError> {
        let token = self.token();
        self.ring.flush(token, file);
        self.wait_done(token)
    }

    pub(super) fn truncate(&mut self, file: FileId, bytes: u64) -> Result<(), IoError> {
        let token = self.token();
        self.ring.truncate(token, file, bytes);
        self.wait_done(token)
    }

    pub(super) fn flush_dir(&mut self, path: &Path) -> Result<(), LaneError> {
        let token = self.token();
        self.ring.flush_dir(token, path);
        self.wait_done(token).map_err(|error| failed("flush of", path, error))
    }

    /// Removes a file; it may be gone already.
    pub(super) fn remove_file(&mut self, path: &Path) -> Result<(), LaneError> {
        let token = self.token();
        self.ring.remove_file(token, path);
        match self.wait_done(token) {
            Ok(()) | Err(IoError::NotFound) => Ok(()),
            Err(error) => Err(failed("removing", path, error)),
        }
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> Result<(), LaneError> {
        let token = self.token();
        self.ring.remove_dir(token, path);
        self.wait_done(token).map_err(|error| failed("removing", path, error))
    }

    /// Makes a file. One that is there is of a run that failed, perhaps in flushing the directory: it
    /// might never become durable, whatever a later flush says, and is replaced.
    pub(super) fn create(&mut self, path: &Path) -> Result<FileId, LaneError> {
        match self.open(path, OpenMode::CreateNew) {
            Ok(file) => return Ok(file),
            Err(IoError::Exists) => self.remove_file(path)?,
            Err(error) => return Err(failed("making", path, error)),
        }
        self.open(path, OpenMode::CreateNew).map_err(|error| failed("making", path, error))
    }

    /// Makes a directory; it may be there already.
    pub(super) fn make_dir(&mut self, path: &Path) -> Result<(), LaneError> {
        let token = self.token();
        self.ring.make_dir(token, path);
        match self.wait_done(token) {
            Ok(()) | Err(IoError::Exists) => Ok(()),
            Err(error) => Err(failed("making directory", path, error)),
        }
    }

    pub(super) fn list_dir(&mut self, path: &Path) -> Result<Vec<DirEntry>, LaneError> {
        self.ring.list_dir(path).map_err(|error| failed("listing", path, error))
    }

    /// Reads into `buffer[..]` from `position`; returns how many bytes the file had.
    pub(super) fn read(
        &mut self,
        file: FileId,
        position: u64,
        buffer: IoBuffer,
    ) -> (IoBuffer, Result<usize, IoError>) {
        let token = self.token();
        let bytes = buffer.len();
        self.ring.read(token, file, position, buffer, 0..bytes);
        match self.ring.wait(token) {
            Completion::Transferred { result: Ok(()), buffer, .. } => (buffer, Ok(bytes)),
            Completion::Transferred { result: Err(IoError::Short { transferred_bytes }), buffer, .. } => {
                (buffer, Ok(transferred_bytes))
            }
            Completion::Transferred { result: Err(error), buffer, .. } => (buffer, Err(error)),
            other => panic!("waited for a read, got {other:?}"),
        }
    }

    /// The first `bytes` of a file, or fewer where it ends.
    pub(super) fn read_all(&mut self, file: FileId, bytes: u64) -> Result<Vec<u8>, IoError> {
        let mut out = Vec::new();
        while (out.len() as u64) < bytes {
            let step = blocks_up(bytes - out.len() as u64).min(STEP_BYTES as u64) as usize;
            let (buffer, result) = self.read(file, out.len() as u64, IoBuffer::new(step));
            let read = result?;
            out.extend_from_slice(&buffer[..read]);
            if read < step {
                break;
            }
        }
        out.truncate(bytes as usize);
        Ok(out)
    }

    pub(super) fn write(
        &mut self,
        file: FileId,
        position: u64,
        buffer: IoBuffer,
        bytes: usize,
        mode: WriteMode,
    ) -> (IoBuffer, Result<(), IoError>) {
        let token = self.token();
        self.ring.write(token, file, position, buffer, 0..bytes, mode);
        match self.ring.wait(token) {
            Completion::Transferred { result, buffer, .. } => (buffer, result),
            other => panic!("waited for a write, got {other:?}"),
        }
    }

    /// Writes a small file whole, makes it durable, and closes it.
    pub(super) fn write_file(
        &mut self,
        path: &Path,
        buffer: IoBuffer,
        exact: Option<u64>,
    ) -> Result<(), LaneError> {
        let fail = |error| failed("write of", path, error);
        let file = self.create(path)?;
        let bytes = buffer.len();
        self.write(file, 0, buffer, bytes, WriteMode::Plain).1.map_err(fail)?;
        if let Some(exact) = exact {
            self.truncate(file, exact).map_err(fail)?;
        }
        self.flush(file).map_err(fail)?;
        self.ring.close(file);
        Ok(())
    }

    /// Writes zeros over a fresh file and makes them durable.
    pub(super) fn write_zeros(&mut self, file: FileId, bytes: u64) -> Result<(), IoError> {
        let mut zeros = IoBuffer::new(STEP_BYTES.min(bytes as usize));
        let mut position = 0;
        while position < bytes {
            let step = (bytes - position).min(zeros.len() as u64);
            let (back, result) = self.write(file, position, zeros, step as usize, WriteMode::Plain);
            result?;
            zeros = back;
            position += step;
        }
        self.flush(file)
    }
}

pub(super) fn failed(what: &str, path: &Path, error: IoError) -> LaneError {
    LaneError::Io { what: format!("{what} {} failed", path.display()), error }
}

const _: () = assert!(STEP_BYTES.is_multiple_of(BLOCK_BYTES));
