//! Record: one record inside an uncompressed batch body.
//!
//! | field           | encoding                                                  |
//! |-----------------|-----------------------------------------------------------|
//! | length          | varint: bytes of the rest                                 |
//! | attributes      | 1 byte, unused                                            |
//! | timestamp delta | varlong, to the batch's base timestamp                    |
//! | offset delta    | varint, to the batch's base offset                        |
//! | key             | varint length (-1 is null), bytes                         |
//! | value           | varint length (-1 is null), bytes                         |
//! | headers         | varint count; each: key (never null) and value, as above  |
//!
//! Varints are zigzag. Source: Kafka's `DefaultRecord`.

use crate::protocol::reader::{DecodeError, Reader};
use crate::protocol::writer::Writer;

/// One record, borrowed from the body of its batch.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    pub attributes: i8,
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    headers_count: usize,
    headers: Reader<'a>,
    /// The record's bytes from its offset delta on.
    pub(in crate::protocol) behind_time: &'a [u8],
}

/// One header of a record. Keys may repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader<'a> {
    pub key: &'a str,
    pub value: Option<&'a [u8]>,
}

impl<'a> RecordView<'a> {
    pub fn headers(&self) -> impl ExactSizeIterator<Item = RecordHeader<'a>> + use<'a> {
        let mut reader = self.headers;
        (0..self.headers_count).map(move |_| read_header(&mut reader).expect("the record was walked"))
    }
}

/// The records of an uncompressed `body` that promises `count` of them.
///
/// Ends after the first error; a body with bytes behind its last record ends with `Trailing`.
pub fn records(count: i32, body: &[u8]) -> Records<'_> {
    Records { left: count.max(0), reader: Reader::new(body, false), is_done: false }
}

#[derive(Clone, Debug)]
pub struct Records<'a> {
    left: i32,
    reader: Reader<'a>,
    is_done: bool,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        if self.left == 0 {
            self.is_done = true;
            return self.reader.finish().err().map(Err);
        }
        self.left -= 1;
        let record = read_record(&mut self.reader);
        self.is_done = record.is_err();
        Some(record)
    }
}

fn read_record<'a>(reader: &mut Reader<'a>) -> Result<RecordView<'a>, DecodeError> {
    let length = usize::try_from(reader.varint()?).map_err(|_| DecodeError::Length)?;
    let mut inner = Reader::new(reader.take(length)?, false);
    let attributes = inner.i8()?;
    let timestamp_delta = inner.varlong()?;
    let behind_time = inner.rest();
    let offset_delta = inner.varint()?;
    let key = read_blob(&mut inner)?;
    let value = read_blob(&mut inner)?;
    let headers_count = usize::try_from(inner.varint()?).map_err(|_| DecodeError::Length)?;
    // A header has at least two bytes: no count is believed that the record can't hold.
    if headers_count > inner.rest().len() / 2 {
        return Err(DecodeError::Length);
    }
    let headers = inner;
    for _ in 0..headers_count {
        read_header(&mut inner)?;
    }
    inner.finish()?;
    Ok(RecordView {
        attributes,
        timestamp_delta,
        offset_delta,
        key,
        value,
        headers_count,
        headers,
        behind_time,
    })
}

fn read_header<'a>(reader: &mut Reader<'a>) -> Result<RecordHeader<'a>, DecodeError> {
    let key = read_blob(reader)?.ok_or(DecodeError::Length)?;
    let key = std::str::from_utf8(key).map_err(|_| DecodeError::NotUtf8)?;
    Ok(RecordHeader { key, value: read_blob(reader)? })
}

fn read_blob<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, DecodeError> {
    match reader.varint()? {
        -1 => Ok(None),
        length => reader.take(usize::try_from(length).map_err(|_| DecodeError::Length)?).map(Some),
    }
}

/// Appends one record to a body.
pub fn write_record(
    body: &mut Vec<u8>,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[RecordHeader<'_>],
) {
    // The length stands in front and its own size depends on it: the record is written aside first.
    let mut record = Vec::with_capacity(24 + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len));
    let mut writer = Writer::new(&mut record, false);
    writer.i8(0);
    writer.varlong(timestamp_delta);
    writer.varint(offset_delta);
    write_blob(&mut writer, key);
    write_blob(&mut writer, value);
    writer.varint(size(headers.len()));
    for header in headers {
        write_blob(&mut writer, Some(header.key.as_bytes()));
        write_blob(&mut writer, header.value);
    }
    let mut writer = Writer::new(body, false);
    writer.varint(size(record.len()));
    writer.raw(&record);
}

fn write_blob(writer: &mut Writer<'_>, blob: Option<&[u8]>) {
    writer.varint(blob.map_or(-1, |blob| size(blob.len())));
    writer.raw(blob.unwrap_or_default());
}

fn size(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("batches are bounded below 2 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Vec<u8> {
        let mut body = Vec::new();
        let headers = [RecordHeader { key: "h", value: Some(b"1") }, RecordHeader { key: "h", value: None }];
        write_record(&mut body, -3, 0, Some(b"key"), None, &headers);
        write_record(&mut body, 4, 1, None, Some(b"value"), &[]);
        body
    }

    #[test]
    fn records_keep_nulls_and_repeated_headers() {
        let body = body();
        let records: Vec<_> = records(2, &body).collect::<Result<_, _>>().expect("well formed");
        assert_eq!((records[0].timestamp_delta, records[0].offset_delta), (-3, 0));
        assert_eq!((records[0].key, records[0].value), (Some(&b"key"[..]), None));
        let headers: Vec<_> = records[0].headers().map(|header| (header.key, header.value)).collect();
        assert_eq!(headers, [("h", Some(&b"1"[..])), ("h", None)]);
        assert_eq!((records[1].key, records[1].value), (None, Some(&b"value"[..])));
    }

    #[test]
    fn the_count_and_the_bytes_must_agree() {
        let body = body();
        let outcome = |count, bytes| records(count, bytes).collect::<Result<Vec<_>, _>>().err();
        assert_eq!(outcome(1, &body), Some(DecodeError::Trailing));
        assert_eq!(outcome(3, &body), Some(DecodeError::Truncated));
        for end in 0..body.len() {
            assert!(outcome(2, &body[..end]).is_some(), "{end}");
        }
    }

    #[test]
    fn a_header_count_is_compared_with_the_record() {
        // Length 11: attributes, two deltas, null key, null value, 2^31 - 1 headers.
        let body = [20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(records(1, &body).next().map(|record| record.err()), Some(Some(DecodeError::Length)));
    }
}
