//! Writer: Kafka's primitive types into a growing buffer.
//!
//! Promises: writes what [`Reader`](crate::protocol::reader::Reader) reads; big-endian.
//! Never:    knows a message, cuts a value short.

use crate::base::ids::TopicId;

/// Appends to `out`. `flexible` chooses between fixed and compact lengths (KIP-482).
#[derive(Debug)]
pub struct Writer<'a> {
    pub out: &'a mut Vec<u8>,
    pub flexible: bool,
}

impl<'a> Writer<'a> {
    pub fn new(out: &'a mut Vec<u8>, flexible: bool) -> Self {
        Self { out, flexible }
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub fn i8(&mut self, value: i8) {
        self.raw(&value.to_be_bytes());
    }

    pub fn i16(&mut self, value: i16) {
        self.raw(&value.to_be_bytes());
    }

    pub fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    pub fn uuid(&mut self, value: TopicId) {
        self.raw(&value.0);
    }

    pub fn uvarint(&mut self, value: u32) {
        self.leb128(u64::from(value));
    }

    /// Zigzag LEB128 of at most 32 bits, as records use it.
    pub fn varint(&mut self, value: i32) {
        self.leb128(u64::from(((value << 1) ^ (value >> 31)) as u32));
    }

    /// Zigzag LEB128 of at most 64 bits.
    pub fn varlong(&mut self, value: i64) {
        self.leb128(((value << 1) ^ (value >> 63)) as u64);
    }

    fn leb128(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// Precondition: at most 32,767 bytes; the names and messages we send are bounded by their makers.
    pub fn string(&mut self, value: &str) {
        self.nullable_string(Some(value));
    }

    pub fn nullable_string(&mut self, value: Option<&str>) {
        let Some(value) = value else {
            return if self.flexible { self.uvarint(0) } else { self.i16(-1) };
        };
        let length = i16::try_from(value.len()).expect("strings we send are bounded by their makers");
        if self.flexible {
            self.uvarint(length as u32 + 1);
        } else {
            self.i16(length);
        }
        self.raw(value.as_bytes());
    }

    pub fn bytes(&mut self, value: &[u8]) {
        self.length(Some(value.len()));
        self.raw(value);
    }

    pub fn nullable_bytes(&mut self, value: Option<&[u8]>) {
        self.length(value.map(<[u8]>::len));
        self.raw(value.unwrap_or_default());
    }

    pub fn array(&mut self, count: usize) {
        self.length(Some(count));
    }

    /// The length of an array or of bytes; the bytes follow, from here or from elsewhere.
    pub fn length(&mut self, length: Option<usize>) {
        let length = length.map(|length| i32::try_from(length).expect("frames are below 2 GiB"));
        if self.flexible {
            self.uvarint(length.map_or(0, |length| length as u32 + 1));
        } else {
            self.i32(length.unwrap_or(-1));
        }
    }

    /// The empty section of tagged fields; nothing in a message without them.
    pub fn no_tagged_fields(&mut self) {
        if self.flexible {
            self.out.push(0);
        }
    }

    /// Header of one tagged field of `bytes` bytes, which follow.
    pub fn tag(&mut self, tag: u32, bytes: usize) {
        self.uvarint(tag);
        self.uvarint(u32::try_from(bytes).expect("frames are below 2 GiB"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;
    use crate::protocol::reader::Reader;

    #[test]
    fn what_is_written_is_read() {
        let mut random = Random::new(3);
        for round in 0..2000 {
            let flexible = round % 2 == 0;
            let shift = random.below(64);
            let number = (random.next_u64() >> shift) as i64 * if random.chance(1, 2) { -1 } else { 1 };
            let text = "é".repeat(random.below(200) as usize);
            let mut out = Vec::new();
            let mut writer = Writer::new(&mut out, flexible);
            writer.varlong(number);
            writer.varint(number as i32);
            writer.uvarint(number as u32);
            writer.nullable_string(Some(&text));
            writer.nullable_string(None);
            writer.nullable_bytes(Some(text.as_bytes()));
            writer.nullable_bytes(None);
            writer.no_tagged_fields();
            let mut reader = Reader::new(&out, flexible);
            assert_eq!(reader.varlong(), Ok(number));
            assert_eq!(reader.varint(), Ok(number as i32));
            assert_eq!(reader.uvarint(), Ok(number as u32));
            assert_eq!(reader.nullable_string(), Ok(Some(text.as_str())));
            assert_eq!(reader.nullable_string(), Ok(None));
            assert_eq!(reader.nullable_bytes(), Ok(Some(text.as_bytes())));
            assert_eq!(reader.nullable_bytes(), Ok(None));
            assert_eq!(reader.skip_tagged_fields(), Ok(()));
            assert_eq!(reader.finish(), Ok(()));
        }
    }
}
