//! Frame stream: whole answers out of received bytes.

use corelane::net::inbound::{Flow, Inbound};
use corelane::protocol::frame::FrameError;

/// Largest answer believed: a Fetch of 100 MiB and its frame.
const ANSWER_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Gives every frame that is whole now to `each`, until one is an error.
pub fn feed<E: From<FrameError>>(
    stream: &mut Inbound,
    bytes: &[u8],
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut outcome = Ok(());
    let handle = |frame: &[u8]| {
        outcome = each(frame);
        if outcome.is_ok() { Flow::Continue } else { Flow::Pause }
    };
    stream.push(bytes, |_| ANSWER_BYTES_MAX, handle)?;
    outcome
}
