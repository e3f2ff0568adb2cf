//! Checksum: CRC-32C (Castagnoli), the polynomial of Kafka's record batches and of our own formats.

/// CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
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
    fn equals_the_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
