//! Wire: a raw socket, requests as bytes, answers as bytes.

use corelane::protocol::api_key::ApiKey;
use corelane::protocol::cold::{self, Message};
use corelane::protocol::frame;
use corelane::protocol::reader::Reader;
use corelane::protocol::writer::Writer;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// For what must come: long, so that a slow machine fails no test.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Wire {
    socket: TcpStream,
    pub sent_bytes: usize,
}

/// How the broker ended a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed {
    /// What it said before.
    pub said: Vec<u8>,
}

impl Wire {
    pub fn connect(address: &str) -> Self {
        let socket = TcpStream::connect(address).expect("the broker listens");
        socket.set_nodelay(true).expect("a connected socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a connected socket");
        socket.set_write_timeout(Some(PATIENCE)).expect("a connected socket");
        Self { socket, sent_bytes: 0 }
    }

    /// Sends all of it; the broker may have closed already.
    pub fn send(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(64 * 1024) {
            match self.socket.write_all(chunk) {
                Ok(()) => self.sent_bytes += chunk.len(),
                Err(error) if is_gone(&error) => return,
                Err(error) => panic!("the broker stopped reading: {error}"),
            }
        }
    }

    /// Sends what the broker takes; stops when it takes nothing for a while, or closed.
    pub fn send_what_is_taken(&mut self, bytes: &[u8]) -> usize {
        self.socket.set_write_timeout(Some(Duration::from_secs(2))).expect("a connected socket");
        let mut sent = 0;
        while sent < bytes.len() {
            match self.socket.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(_) => break,
            }
        }
        self.sent_bytes += sent;
        sent
    }

    /// The next answer without its length; `Err` when the broker closed instead.
    pub fn try_answer(&mut self) -> Result<Vec<u8>, Closed> {
        let mut prefix = [0; frame::LENGTH_BYTES];
        self.fill(&mut prefix)?;
        let length = u32::from_be_bytes(prefix) as usize;
        assert!(length < 1 << 28, "an answer of {length} bytes");
        let mut answer = vec![0; length];
        self.fill(&mut answer)?;
        Ok(answer)
    }

    pub fn answer(&mut self) -> Vec<u8> {
        self.try_answer().expect("an answer")
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Closed> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.socket.read(&mut bytes[filled..]) {
                Ok(0) => return Err(Closed { said: bytes[..filled].to_vec() }),
                Ok(count) => filled += count,
                Err(error) if is_gone(&error) => return Err(Closed { said: bytes[..filled].to_vec() }),
                Err(error) => panic!("neither an answer nor a close: {error}"),
            }
        }
        Ok(())
    }

    /// The broker closes, and says nothing before.
    pub fn assert_closed(&mut self, what: impl std::fmt::Debug) {
        let outcome = self.try_answer();
        assert_eq!(outcome, Err(Closed { said: Vec::new() }), "{what:?}");
    }

    /// Sends a cold request and decodes its answer.
    pub fn ask<Q: Message, A: Message>(&mut self, key: ApiKey, version: i16, request: &Q) -> A {
        let mut body = Vec::new();
        cold::encode(version, request, &mut body).expect("the request fits its version");
        self.send(&request_frame(key.number(), version, 1, &body));
        let answer = self.answer();
        cold::decode(version, answer_body(key, version, &answer)).expect("an answer of its version")
    }
}

fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}

/// A whole request of any key, known or not; flexible where the key's version is.
pub fn request_frame(key: i16, version: i16, correlation_id: i32, body: &[u8]) -> Vec<u8> {
    request_frame_of(key, version, correlation_id, Some("bad-input"), body)
}

pub fn request_frame_of(
    key: i16,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    body: &[u8],
) -> Vec<u8> {
    let mut out = Vec::new();
    let at = frame::begin(&mut out);
    let mut writer = Writer::new(&mut out, false);
    writer.i16(key);
    writer.i16(version);
    writer.i32(correlation_id);
    writer.nullable_string(client_id);
    if ApiKey::from_number(key).is_some_and(|key| key.is_flexible(version)) {
        writer.i8(0);
    }
    writer.raw(body);
    frame::end(&mut out, at, 0);
    out
}

pub fn correlation_id(answer: &[u8]) -> i32 {
    Reader::new(answer, false).i32().expect("an answer has a correlation id")
}

/// What follows the header of an answer.
pub fn answer_body(key: ApiKey, version: i16, answer: &[u8]) -> &[u8] {
    let mut reader = Reader::new(answer, key.response_header_version(version) > 0);
    reader.i32().expect("an answer has a header");
    reader.skip_tagged_fields().expect("an answer has a header");
    reader.rest()
}
