//! Log files: each kind of file of a lane, as `corelane log dump` reads it.

use crate::lanes;
use corelane::base::checksum::crc32c;
use corelane::log::dump_file;
use corelane::ring::sim::World;
use corelane::ring::{Completion, IoBuffer, OpenMode, Ring, Token, WriteMode, buffer::ALIGNMENT_BYTES};
use std::path::Path;

const OWNER: u8 = 7;

/// By the first byte of an input.
const KINDS: [&str; 4] = ["journal", "image", "index", "log"];

/// Writes the rest of the input as a file of its kind and dumps it: lines or an error.
pub fn dump(input: &[u8]) {
    let Some((kind, contents)) = input.split_first() else { return };
    let name = format!("/data/0.{}", KINDS[usize::from(*kind) % KINDS.len()]);
    let world = World::new(1);
    world.make_dirs(Path::new("/data"));
    let mut ring = Ring::simulated(&world);
    write_file(&mut ring, Path::new(&name), contents);
    let mut lines = 0usize;
    let outcome = dump_file(&mut ring, Path::new(&name), OWNER, &mut |_| lines += 1);
    assert!(outcome.is_err() || lines <= 16 * (contents.len() + 1), "lines follow the bytes");
}

fn write_file(ring: &mut Ring, path: &Path, contents: &[u8]) {
    let token = Token::new(OWNER, 1);
    ring.open(token, path, OpenMode::CreateNew);
    let Completion::Opened { result: Ok(file), .. } = ring.wait(token) else { panic!("a new file") };
    let aligned = contents.len().next_multiple_of(ALIGNMENT_BYTES);
    if aligned > 0 {
        let mut buffer = IoBuffer::new(aligned);
        buffer[..contents.len()].copy_from_slice(contents);
        ring.write(token, file, 0, buffer, 0..aligned, WriteMode::Durable);
        ring.wait(token);
    }
    ring.truncate(token, file, contents.len() as u64);
    ring.wait(token);
    ring.close(file);
}

/// Files of a lane that has seen some life.
pub fn seeds() -> Vec<Vec<u8>> {
    let world = lanes::lived_in();
    let mut seeds = Vec::new();
    for path in world.files() {
        let kind = kind_of(&path).and_then(|kind| KINDS.iter().position(|other| *other == kind));
        let contents = world.read_file(Path::new(&path)).unwrap_or_default();
        if let Some(kind) = kind.filter(|_| !contents.is_empty()) {
            let used = contents.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let kept = used.next_multiple_of(ALIGNMENT_BYTES).min(contents.len());
            seeds.push([&[kind as u8][..], &contents[..kept]].concat());
        }
    }
    for (kind, name) in KINDS.iter().enumerate() {
        assert!(seeds.iter().any(|seed| usize::from(seed[0]) == kind), "a seed of kind {name}");
    }
    seeds
}

/// Corrects the checksums of what looks like groups, images and indexes, by their format tables.
pub fn reseal(input: &mut [u8]) {
    if let Some((kind, contents)) = input.split_first_mut() {
        reseal_contents(KINDS[usize::from(*kind) % KINDS.len()], contents);
    }
}

/// The kind of a file by its name.
pub fn kind_of(path: &str) -> Option<&'static str> {
    KINDS.into_iter().find(|kind| path.ends_with(&format!(".{kind}")))
}

pub fn reseal_contents(kind: &str, contents: &mut [u8]) {
    match kind {
        "journal" => {
            for at in (0..contents.len()).step_by(ALIGNMENT_BYTES) {
                seal_header(
                    &mut contents[at..],
                    b"CLGROUP\0",
                    Layout { header: 96, length: 68, checksum: 80 },
                );
            }
        }
        "image" => seal_header(contents, b"CLIMAGE\0", Layout { header: 128, length: 88, checksum: 96 }),
        "index" => {
            let rows =
                contents.get(64..68).map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().expect("4")));
            seal_payload(contents, b"CLINDEX\0", 80, rows as usize * 32, 68);
        }
        _ => {}
    }
}

/// Where a header keeps the length of what follows and its checksum.
struct Layout {
    header: usize,
    length: usize,
    checksum: usize,
}

fn seal_header(bytes: &mut [u8], magic: &[u8; 8], layout: Layout) {
    let length = bytes.get(layout.length..layout.length + 4);
    let length = length.map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().expect("4 bytes")) as usize);
    seal_payload(bytes, magic, layout.header, length, layout.checksum);
}

fn seal_payload(bytes: &mut [u8], magic: &[u8; 8], header: usize, payload: usize, checksum_at: usize) {
    if !bytes.starts_with(magic) || bytes.len() < header {
        return;
    }
    if let Some(payload) = bytes.get(header..header.saturating_add(payload)) {
        let checksum = crc32c(payload).to_le_bytes();
        bytes[checksum_at..checksum_at + 4].copy_from_slice(&checksum);
    }
    // Every header has its own checksum at 12, computed with that field zero.
    bytes[12..16].fill(0);
    let checksum = crc32c(&bytes[..header]).to_le_bytes();
    bytes[12..16].copy_from_slice(&checksum);
}

#[test]
fn resealing_an_intact_file_changes_nothing() {
    let recorded = crate::recorded("log_file").map(|(_, input)| input);
    for seed in seeds().into_iter().chain(recorded) {
        let mut sealed = seed.clone();
        reseal(&mut sealed);
        assert!(
            sealed == seed,
            "the layouts here are those of the format, for {}",
            KINDS[usize::from(seed[0])]
        );
    }
}
