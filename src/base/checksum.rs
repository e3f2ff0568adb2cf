//! Checksum: CRC-32C (Castagnoli), the polynomial of Kafka's record batches and of our own formats.

/// CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// CRC-32C of bytes that come piece by piece.
pub struct RunningCrc32c(crc_fast::Digest);

impl Default for RunningCrc32c {
    fn default() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }
}

impl RunningCrc32c {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn value(&self) -> u32 {
        self.0.finalize() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;

    #[test]
    fn equals_the_second_implementation_on_every_length() {
        let mut random = Random::new(1);
        let mut bytes = vec![0; 4099];
        random.fill(&mut bytes);
        for end in (0..300).chain([4096, 4097, 4099]) {
            assert_eq!(crc32c(&bytes[..end]), ::crc32c::crc32c(&bytes[..end]));
        }
    }

    #[test]
    fn pieces_give_the_checksum_of_the_whole() {
        let mut random = Random::new(2);
        let mut bytes = vec![0; 1000];
        random.fill(&mut bytes);
        let mut running = RunningCrc32c::default();
        let mut at = 0;
        while at < bytes.len() {
            let end = (at + random.below(70) as usize).min(bytes.len());
            running.update(&bytes[at..end]);
            at = end;
        }
        assert_eq!(running.value(), crc32c(&bytes));
        assert_eq!(RunningCrc32c::default().value(), crc32c(&[]));
    }

    #[test]
    fn equals_the_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
