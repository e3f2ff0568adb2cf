//! Stream: a fetch response leaves window by window, as its socket drains.
//!
//! The frame's length was fixed with the plans. While one window leaves, the next is read from disk; at
//! most these two are in memory for a connection, and `WINDOWS_AHEAD_MAX` of the second kind for a shard: a
//! reader that stalls pins a window and a lease, never a response. What lies in the page cache is never in
//! memory of ours.

use std::collections::VecDeque;

use super::clients::SEND_BYTES_MAX;
use super::command::PlanId;
use super::mail::Mail;
use super::request::Pending;
use super::storage::PlanOwner;
use super::trace::Times;
use super::{Core, Shard};
use crate::base::slab::Key;
use crate::log::{Resolved, Sink};
use crate::metrics::stages::Stage;
use crate::metrics::tally::{Tally, copied};
use crate::partition::waiters::ReplyTo;
use crate::protocol::fetch_response::{FetchFrame, Hole};
use crate::ring::{FilePiece, Ring};

/// Windows, or batches larger than one, that a shard reads before the one in front of them has left. Readers
/// without one read window by window.
const WINDOWS_AHEAD_MAX: usize = 16;

#[derive(Debug)]
pub struct Stream {
    /// The frame without its records, and how far it was sent.
    frame: Vec<u8>,
    frame_sent: usize,
    /// Where records go, and whose.
    holes: VecDeque<(Hole, PlanId)>,
    /// The next bytes of the first hole, not sent yet.
    window: Option<StreamWindow>,
    window_pending: bool,
    /// That window counts as one read ahead.
    ahead: bool,
    /// The plan whose last piece of a file is on its way: until that has left, the file must stay.
    leaving: Option<PlanId>,
}

/// Some of a plan's bytes.
#[derive(Debug)]
pub enum StreamWindow {
    Copied(Vec<u8>),
    File(FilePiece),
}

impl StreamWindow {
    fn len(&self) -> usize {
        match self {
            Self::Copied(bytes) => bytes.len(),
            Self::File(piece) => piece.bytes,
        }
    }
}

/// How far `fill` came.
#[derive(Debug)]
pub enum Filled {
    /// The next bytes are those of a file; nothing else is to be sent before.
    File(FilePiece),
    /// The response has ended.
    Done,
    /// The buffer is full.
    Full,
    /// A window is being read; `fill` goes on when it is here.
    Pending,
    /// Records can't be read any more: the connection has to go.
    Broken,
}

impl Stream {
    pub fn new(frame: FetchFrame, plans: Vec<PlanId>) -> Self {
        assert_eq!(frame.holes.len(), plans.len(), "a hole per plan");
        Self {
            holes: frame.holes.iter().copied().zip(plans).collect(),
            frame: frame.bytes,
            frame_sent: 0,
            window: None,
            window_pending: false,
            ahead: false,
            leaving: None,
        }
    }
}

impl Core {
    fn stream_mut(&mut self, request: Key) -> Option<&mut Stream> {
        match &mut self.requests.get_mut(request)?.pending {
            Pending::Fetch(state) => state.stream.as_mut(),
            _ => None,
        }
    }

    /// Plans not released yet of a stream that is given up.
    pub fn give_up_stream(&mut self, mut stream: Stream) -> Vec<PlanId> {
        self.clients.windows_ahead_count -= usize::from(stream.ahead);
        stream.holes.drain(..).map(|(_, plan)| plan).chain(stream.leaving.take()).collect()
    }

    /// Appends the next bytes of a streamed response to `out`, up to about one send's worth.
    /// What it gave before has left.
    pub fn fill(&mut self, request: Key, out: &mut Vec<u8>) -> Filled {
        // A window is about to leave.
        let mut window_leaves = false;
        if let Some(plan) = self.stream_mut(request).and_then(|stream| stream.leaving.take()) {
            self.release(plan);
        }
        loop {
            let stream = self.stream_mut(request).expect("a streaming request has its stream");
            let piece_end = stream.holes.front().map_or(stream.frame.len(), |(hole, _)| hole.at);
            out.extend_from_slice(&stream.frame[stream.frame_sent..piece_end]);
            copied(Tally::CopySend, piece_end - stream.frame_sent);
            stream.frame_sent = piece_end;
            let Some((hole, plan)) = stream.holes.front_mut() else {
                let done = self.requests.remove(request);
                if let Some(Pending::Fetch(state)) = done.map(|request| request.pending)
                    && let Some(stream) = state.stream
                {
                    self.spare.give(stream.frame);
                }
                return Filled::Done;
            };
            if matches!(stream.window, Some(StreamWindow::File(_))) && !out.is_empty() {
                // What is in front of the piece goes first.
                return Filled::Full;
            }
            if let Some(window) = stream.window.take() {
                assert!(window.len() <= hole.bytes, "a window is part of its plan");
                hole.bytes -= window.len();
                let is_done = hole.bytes == 0;
                let plan = *plan;
                if is_done {
                    stream.holes.pop_front();
                }
                if is_done && matches!(window, StreamWindow::File(_)) {
                    stream.leaving = Some(plan);
                }
                let was_ahead = std::mem::take(&mut stream.ahead);
                self.clients.windows_ahead_count -= usize::from(was_ahead);
                match window {
                    StreamWindow::File(piece) => return Filled::File(piece),
                    StreamWindow::Copied(bytes) if out.is_empty() => {
                        self.spare.give(std::mem::replace(out, bytes));
                    }
                    StreamWindow::Copied(bytes) => {
                        out.extend_from_slice(&bytes);
                        copied(Tally::CopySend, bytes.len());
                        self.spare.give(bytes);
                    }
                }
                if is_done {
                    self.release(plan);
                }
                window_leaves = true;
                continue;
            }
            if stream.window_pending {
                return Filled::Pending;
            }
            // What would still fit would be a small read; a whole window is read while this one leaves.
            if window_leaves && out.len() > SEND_BYTES_MAX / 2 {
                return self.read_ahead(request);
            }
            if out.len() >= SEND_BYTES_MAX {
                return Filled::Full;
            }
            let bytes_max = hole.bytes.min(SEND_BYTES_MAX - out.len());
            let plan = *plan;
            match self.resolve_next(request, plan, bytes_max, out) {
                Some(Resolved::Copied(bytes)) => {
                    let stream = self.stream_mut(request).expect("still there");
                    let (hole, _) = stream.holes.front_mut().expect("still there");
                    hole.bytes -= bytes;
                    if hole.bytes == 0 {
                        stream.holes.pop_front();
                        self.release(plan);
                    }
                }
                Some(Resolved::File(piece)) => {
                    let stream = self.stream_mut(request).expect("still there");
                    stream.window = Some(StreamWindow::File(piece));
                }
                Some(Resolved::Pending) => return Filled::Pending,
                Some(Resolved::Finished) | None => return Filled::Broken,
            }
        }
    }

    /// Has the next window read while the one before it leaves, if the shard has a place for it.
    fn read_ahead(&mut self, request: Key) -> Filled {
        if self.clients.windows_ahead_count >= WINDOWS_AHEAD_MAX {
            return Filled::Full;
        }
        let stream = self.stream_mut(request).expect("a streaming request has its stream");
        let (hole, plan) = stream.holes.front().expect("the caller saw a hole");
        let (bytes_max, plan) = (hole.bytes.min(SEND_BYTES_MAX), *plan);
        let mut bytes = self.spare.take();
        let resolved = self.resolve_next(request, plan, bytes_max, &mut bytes);
        let stream = self.stream_mut(request).expect("still there");
        stream.ahead = true;
        let filled = match resolved {
            Some(Resolved::Pending) => Filled::Pending,
            Some(Resolved::Copied(_)) => {
                stream.window = Some(StreamWindow::Copied(std::mem::take(&mut bytes)));
                Filled::Full
            }
            Some(Resolved::File(piece)) => {
                stream.window = Some(StreamWindow::File(piece));
                Filled::Full
            }
            Some(Resolved::Finished) | None => Filled::Broken,
        };
        self.clients.windows_ahead_count += 1;
        self.spare.give(bytes);
        filled
    }

    /// Resolves the next bytes of a plan, or asks for them: of the disk, or of the shard that has it.
    fn resolve_next(
        &mut self,
        request: Key,
        plan: PlanId,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Option<Resolved> {
        let reply_to = ReplyTo { shard: self.id, request, part: 0 };
        let is_own = plan.shard == self.id;
        let resolved = match is_own {
            true => self.resolve_own(plan, bytes_max, reply_to, out)?,
            false => {
                self.mailbox.post(plan.shard, Mail::Window { plan, bytes_max, reply_to });
                Resolved::Pending
            }
        };
        if matches!(resolved, Resolved::Pending) {
            self.stream_mut(request).expect("its window was asked for").window_pending = true;
            let trace = self.trace_of(request);
            self.traces.pass(trace, Stage::Send, self.now);
            if !is_own {
                self.traces.hop(trace);
            }
        }
        Some(resolved)
    }

    /// Resolves the next window of a plan of this shard into `out`; `None` when the plan is gone.
    pub fn resolve_own(
        &mut self,
        plan: PlanId,
        bytes_max: usize,
        reply_to: ReplyTo,
        out: &mut Vec<u8>,
    ) -> Option<Resolved> {
        self.storage.plans.get_mut(plan.held)?.owner = PlanOwner::Fetch(reply_to, self.now);
        self.storage.resolve_plan(plan.held, bytes_max, Sink::Socket, out)
    }

    /// A window that a stream waits for is here; `None` when it can't be read.
    pub fn on_window(&mut self, ring: &mut Ring, request: Key, window: Option<StreamWindow>) {
        let Some(found) = self.requests.get(request) else { return };
        let connection = found.origin.connection;
        let Some(stream) = self.stream_mut(request) else { return };
        assert!(stream.window_pending, "one window at a time");
        stream.window_pending = false;
        match window {
            Some(window) => {
                stream.window = Some(window);
                self.clients.mark_dirty(connection);
            }
            None => self.drop_connection(ring, connection),
        }
    }
}

impl Shard {
    /// Another shard asks for the next window of a plan held here.
    pub fn on_window_asked(&mut self, plan: PlanId, bytes_max: usize, reply_to: ReplyTo) {
        let mut out = Vec::new();
        let window = match self.core.resolve_own(plan, bytes_max, reply_to, &mut out) {
            Some(Resolved::Copied(_)) => Some(StreamWindow::Copied(out)),
            Some(Resolved::File(piece)) => Some(StreamWindow::File(piece)),
            Some(Resolved::Pending) => return,
            Some(Resolved::Finished) | None => None,
        };
        let (request, times) = (reply_to.request, Times::at(self.core.now));
        self.core.mailbox.post(reply_to.shard, Mail::WindowDone { request, window, times });
    }
}
