//! Place: a byte of a partition's log, ordered across its segments.

/// A position in a segment. Segment ids only grow, so the order of places is the order of bytes.
/// `(s, final length of s)` and `(t, 0)` of the segment behind it are the same byte; the first
/// form is used for ends, the second for beginnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) position: u64,
}

impl Place {
    pub(super) fn new(segment: u64, position: u64) -> Self {
        Self { segment, position }
    }

    pub(super) fn plus(self, bytes: u64) -> Self {
        Self { segment: self.segment, position: self.position + bytes }
    }
}
