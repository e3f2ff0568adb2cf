//! Spare: send buffers kept for the next response, so that steady traffic allocates none.

/// Buffers kept at most, and the capacity above which one is given back to the allocator.
const KEPT_COUNT_MAX: usize = 256;
const KEPT_BYTES_MAX: usize = 512 * 1024;

#[derive(Debug, Default)]
pub struct Spare {
    buffers: Vec<Vec<u8>>,
}

impl Spare {
    /// An empty buffer.
    pub fn take(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if self.buffers.len() < KEPT_COUNT_MAX && (1..=KEPT_BYTES_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}
