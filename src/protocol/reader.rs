//! Reader: Kafka's primitive types out of borrowed bytes.
//!
//! Owns:     the one way to read a length: compared with the bytes that are left before it is used.
//! Promises: never panics, never allocates, never reads twice.
//! Never:    knows a message.
//!
//! Sources: the protocol guide's primitive types; KIP-482 for the flexible forms.

use crate::base::ids::TopicId;
use std::fmt;

/// Why bytes are not the message they should be. All of them are the client's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end inside a field.
    Truncated,
    /// Bytes follow the last field.
    Trailing,
    /// A variable-length integer has more bits than its type.
    Varint,
    /// A negative or null length where the schema has none, or a count no message of this size can hold.
    Length,
    /// A string is not UTF-8.
    NotUtf8,
    /// Tags are not strictly ascending: one of them is a duplicate.
    TagOrder,
    /// The message has no such version.
    Version,
    /// The message is larger than its class may be.
    TooLarge,
    /// A field's value breaks the schema in another way.
    Value,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "message ends inside a field",
            Self::Trailing => "bytes follow the message",
            Self::Varint => "variable-length integer is too long",
            Self::Length => "length is negative or larger than the message",
            Self::NotUtf8 => "string is not UTF-8",
            Self::TagOrder => "tagged fields are repeated or out of order",
            Self::Version => "message has no such version",
            Self::TooLarge => "message is too large",
            Self::Value => "field has an impossible value",
        })
    }
}

impl std::error::Error for DecodeError {}

type Result<T> = std::result::Result<T, DecodeError>;

/// The bytes not read yet. `flexible` chooses between fixed and compact lengths (KIP-482).
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], flexible: bool) -> Self {
        Self { rest: bytes, flexible }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Errors: `Trailing` unless everything was read.
    pub fn finish(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }

    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub fn i8(&mut self) -> Result<i8> {
        self.fixed().map(i8::from_be_bytes)
    }

    pub fn i16(&mut self) -> Result<i16> {
        self.fixed().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32> {
        self.fixed().map(i32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64> {
        self.fixed().map(i64::from_be_bytes)
    }

    pub fn uuid(&mut self) -> Result<TopicId> {
        self.fixed().map(TopicId)
    }

    /// Unsigned LEB128 of at most 32 bits.
    pub fn uvarint(&mut self) -> Result<u32> {
        // One byte is the common case: lengths below 127 and empty tag sections.
        if let Some((&first, rest)) = self.rest.split_first()
            && first < 0x80
        {
            self.rest = rest;
            return Ok(u32::from(first));
        }
        u32::try_from(self.leb128(5)?).map_err(|_| DecodeError::Varint)
    }

    /// Zigzag LEB128 of at most 32 bits, as records use it.
    pub fn varint(&mut self) -> Result<i32> {
        let raw = self.uvarint()?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// Zigzag LEB128 of at most 64 bits.
    pub fn varlong(&mut self) -> Result<i64> {
        let raw = self.leb128(10)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    fn leb128(&mut self, bytes_max: usize) -> Result<u64> {
        let mut value = 0u64;
        for index in 0..bytes_max {
            let [byte] = self.fixed::<1>()?;
            if index == 9 && byte > 1 {
                return Err(DecodeError::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint)
    }

    /// A length of the compact form (n + 1, 0 is null) or the given fixed one (-1 is null).
    fn length(&mut self, fixed: impl FnOnce(&mut Self) -> Result<i32>) -> Result<Option<usize>> {
        if self.flexible {
            return Ok(self.uvarint()?.checked_sub(1).map(|length| length as usize));
        }
        match fixed(self)? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| DecodeError::Length),
        }
    }

    pub fn nullable_string(&mut self) -> Result<Option<&'a str>> {
        let length = self.length(|reader| reader.i16().map(i32::from))?;
        // Kafka's strings have at most 32,767 bytes in either form.
        let Some(length) = length else { return Ok(None) };
        if length > i16::MAX as usize {
            return Err(DecodeError::Length);
        }
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(Some).map_err(|_| DecodeError::NotUtf8)
    }

    pub fn string(&mut self) -> Result<&'a str> {
        self.nullable_string()?.ok_or(DecodeError::Length)
    }

    pub fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>> {
        let length = self.length(Self::i32)?;
        length.map(|length| self.take(length)).transpose()
    }

    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        self.nullable_bytes()?.ok_or(DecodeError::Length)
    }

    /// Count of an array whose elements have at least `element_bytes_min` bytes each.
    ///
    /// Errors: `Length` for null, and for more elements than the rest of the message can hold.
    pub fn array(&mut self, element_bytes_min: usize) -> Result<usize> {
        self.nullable_array(element_bytes_min)?.ok_or(DecodeError::Length)
    }

    pub fn nullable_array(&mut self, element_bytes_min: usize) -> Result<Option<usize>> {
        let Some(count) = self.length(Self::i32)? else { return Ok(None) };
        if count > self.rest.len() / element_bytes_min.max(1) {
            return Err(DecodeError::Length);
        }
        Ok(Some(count))
    }

    /// Skips the tagged fields of a flexible message; does nothing in an older one.
    pub fn skip_tagged_fields(&mut self) -> Result<()> {
        self.tagged_fields(|_, _| Ok(()))
    }

    /// Gives every tagged field to `field`, with a reader over exactly its bytes; does nothing in a message
    /// without tagged fields. A field that is read must be read whole; one that is left alone is unknown.
    pub fn tagged_fields(&mut self, mut field: impl FnMut(u32, &mut Self) -> Result<()>) -> Result<()> {
        if !self.flexible {
            return Ok(());
        }
        let count = self.uvarint()?;
        let mut tag_before = None;
        for _ in 0..count {
            let tag = self.uvarint()?;
            if tag_before.is_some_and(|before| tag <= before) {
                return Err(DecodeError::TagOrder);
            }
            tag_before = Some(tag);
            let bytes = self.uvarint()? as usize;
            let mut inner = Self::new(self.take(bytes)?, true);
            field(tag, &mut inner)?;
            if !inner.is_empty() && inner.rest.len() != bytes {
                return Err(DecodeError::Trailing);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &[u8]) -> Reader<'_> {
        Reader::new(bytes, true)
    }

    #[test]
    fn varints_end_where_their_type_ends() {
        for (bytes, expected) in [
            (&[0x00][..], Ok(0)),
            (&[0x7f], Ok(127)),
            (&[0x80, 0x01], Ok(128)),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], Ok(u32::MAX)),
            (&[0xff, 0xff, 0xff, 0xff, 0x1f], Err(DecodeError::Varint)),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], Err(DecodeError::Varint)),
            (&[0x80], Err(DecodeError::Truncated)),
            (&[], Err(DecodeError::Truncated)),
        ] {
            assert_eq!(reader(bytes).uvarint(), expected, "{bytes:02x?}");
        }
        let min = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(reader(&min).varlong(), Ok(i64::MIN));
        assert_eq!(reader(&[0xff; 10]).varlong(), Err(DecodeError::Varint));
        assert_eq!(reader(&[0x80; 11]).varlong(), Err(DecodeError::Varint));
        assert_eq!(reader(&[0x03]).varint(), Ok(-2));
    }

    #[test]
    fn lengths_are_compared_with_the_bytes_that_are_left() {
        assert_eq!(Reader::new(&[0x7f, 0xff, 0xff, 0xff], false).array(1), Err(DecodeError::Length));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff], false).array(1), Err(DecodeError::Length));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xfe], false).nullable_array(1), Err(DecodeError::Length));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff], false).nullable_array(1), Ok(None));
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]).array(1), Err(DecodeError::Length));
        assert_eq!(reader(&[3, 0, 0]).array(1), Ok(2));
        assert_eq!(reader(&[3, 0, 0]).array(2), Err(DecodeError::Length));
    }

    #[test]
    fn strings_and_bytes_in_both_forms() {
        assert_eq!(reader(&[3, b'a', b'b']).string(), Ok("ab"));
        assert_eq!(reader(&[0]).nullable_string(), Ok(None));
        assert_eq!(reader(&[0]).string(), Err(DecodeError::Length));
        assert_eq!(reader(&[2, 0xff]).string(), Err(DecodeError::NotUtf8));
        assert_eq!(Reader::new(&[0, 2, b'a', b'b'], false).string(), Ok("ab"));
        assert_eq!(Reader::new(&[0xff, 0xff], false).nullable_string(), Ok(None));
        assert_eq!(Reader::new(&[0xff, 0xfe], false).nullable_string(), Err(DecodeError::Length));
        assert_eq!(Reader::new(&[0, 0, 0, 1, 9], false).nullable_bytes(), Ok(Some(&[9][..])));
        assert_eq!(reader(&[1]).nullable_bytes(), Ok(Some(&[][..])));
    }

    #[test]
    fn tags_ascend_and_hold_exactly_their_bytes() {
        let mut seen = Vec::new();
        let bytes = [2, 0, 1, 7, 5, 2, 8, 9];
        let mut all = reader(&bytes);
        all.tagged_fields(|tag, field| {
            if tag == 0 {
                seen.push(field.i8()?);
            }
            Ok(())
        })
        .expect("well formed");
        assert!(all.is_empty());
        assert_eq!(seen, [7]);
        assert_eq!(reader(&[2, 1, 0, 1, 0]).skip_tagged_fields(), Err(DecodeError::TagOrder));
        assert_eq!(reader(&[2, 1, 0, 0, 0]).skip_tagged_fields(), Err(DecodeError::TagOrder));
        assert_eq!(reader(&[1, 0, 9, 0]).skip_tagged_fields(), Err(DecodeError::Truncated));
        let partly = reader(&[1, 0, 2, 0, 0]).tagged_fields(|_, field| field.i8().map(drop));
        assert_eq!(partly, Err(DecodeError::Trailing));
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x0f]).skip_tagged_fields(), Err(DecodeError::Truncated));
    }
}
