//! Descriptors: room for as many sockets as a run has connections.

use crate::Failure;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// For everything but the connections.
const OTHERS_COUNT: u64 = 64;

/// Raises the soft limit of open files, up to the hard one, so that `connections` more can be opened.
///
/// Errors: the hard limit is too low; says how to raise it.
pub fn reserve(connections: usize) -> Result<(), Failure> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let needed = connections as u64 + OTHERS_COUNT;
    if needed > hard {
        return Err(Failure::new(format!(
            "{connections} connections need {needed} open files, and the hard limit (RLIMIT_NOFILE) is {hard}: \
             raise it with `ulimit -Hn {needed}` as root or LimitNOFILE={needed} in the unit"
        )));
    }
    if needed > soft {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard)?;
    }
    Ok(())
}
