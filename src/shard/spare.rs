//! Spare: send buffers kept for the next response, so that steady traffic allocates none.

/// Bytes kept at most, and the capacity above which a buffer is given back to the allocator. The sum
/// counts: one client's 512 unread answers would otherwise take as many of the largest buffers.
const KEPT_SUM_BYTES_MAX: usize = 8 * 1024 * 1024;
const KEPT_BYTES_MAX: usize = 512 * 1024;
const KEPT_COUNT_MAX: usize = 256;

#[derive(Debug, Default)]
pub struct Spare {
    buffers: Vec<Vec<u8>>,
    sum_bytes: usize,
}

impl Spare {
    /// An empty buffer.
    pub fn take(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.sum_bytes -= buffer.capacity();
        buffer
    }

    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        let has_room = self.buffers.len() < KEPT_COUNT_MAX && self.sum_bytes + bytes <= KEPT_SUM_BYTES_MAX;
        if has_room && (1..=KEPT_BYTES_MAX).contains(&bytes) {
            buffer.clear();
            self.sum_bytes += bytes;
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_in_sum() {
        let mut spare = Spare::default();
        for bytes in (0..1000).map(|index| index * 1024) {
            spare.give(Vec::with_capacity(bytes));
        }
        let kept: usize = spare.buffers.iter().map(Vec::capacity).sum();
        assert!(kept <= KEPT_SUM_BYTES_MAX && kept == spare.sum_bytes, "{kept}");
        while spare.take().capacity() > 0 {}
        assert_eq!(spare.sum_bytes, 0);
    }
}
