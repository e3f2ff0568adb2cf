//! Frame stream: whole answers out of received bytes.

use corelane::base::ids::MonotonicNs;
use corelane::net::inbound::{Flow, FrameBuffers, Inbound};
use corelane::protocol::frame::FrameError;

/// Largest answer believed: a Fetch of 100 MiB and its frame.
const ANSWER_BYTES_MAX: usize = 128 * 1024 * 1024;

/// What one connection received and isn't whole yet.
#[derive(Default)]
pub struct FrameStream {
    inbound: Inbound,
    buffers: FrameBuffers,
}

impl FrameStream {
    /// Gives every frame that is whole now to `each`, until one is an error.
    pub fn feed<E: From<FrameError>>(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut outcome = Ok(());
        let handle = |frame: &[u8], _| {
            outcome = each(frame);
            if outcome.is_ok() { Flow::Continue } else { Flow::Pause }
        };
        let now = MonotonicNs::default();
        self.inbound.push(bytes, now, &mut self.buffers, |_| ANSWER_BYTES_MAX, handle)?;
        outcome
    }
}
