//! Compression: the four codecs of record batches, both ways.
//!
//! Owns:     the codecs' contexts, made at their first use and kept.
//! Promises: output and memory stay below the caller's cap whatever the input claims; malformed input is
//!           an error. What is written can be read by every client: snappy in xerial framing as Java writes
//!           it, LZ4 in independent blocks of 64 KiB (the Java client can't read linked ones).
//! Never:    looks into records.
//! Called by workers or in bounded slices: compressing a batch takes a shard's whole turn.

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use std::fmt;
use std::io::{Read, Write};
use zstd::zstd_safe::{DCtx, ResetDirective};

/// Room that is made for output at first: a batch of the largest common size.
const FIRST_ROOM_BYTES: usize = 1024 * 1024;

/// Largest window of a zstd frame we decompress: 16 MiB. Level 19 needs 8 MiB; a frame may announce 2 GiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;

/// Level of what we compress: zstd's own default, and Kafka's.
const ZSTD_LEVEL: i32 = 3;

/// First bytes of Java's snappy framing. What follows, two version words, is ignored: some writers have
/// them in the wrong byte order.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];

/// The magic and the two version words.
const XERIAL_HEADER_BYTES: usize = 16;

/// Uncompressed bytes of one xerial block, as Java writes them.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

/// Compression of a batch's records; the number stands in its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Codec {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    pub fn number(self) -> u8 {
        self as u8
    }

    /// The value of `compression.type` that means it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Kafka's name; "uncompressed" is what topics call [`Codec::None`].
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Why bytes can't be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionError {
    /// Not what the codec writes, or cut short.
    Malformed,
    /// More than the cap comes out, or a larger window than ours is needed.
    TooLarge,
}

impl fmt::Display for CompressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "compressed records are malformed",
            Self::TooLarge => "compressed records expand beyond the limit",
        })
    }
}

impl std::error::Error for CompressionError {}

type Result<T> = std::result::Result<T, CompressionError>;

/// The contexts of all codecs. One per thread that compresses.
#[derive(Default)]
pub struct Codecs {
    zstd_in: Option<zstd::bulk::Compressor<'static>>,
    zstd_out: Option<DCtx<'static>>,
    snappy_in: Option<snap::raw::Encoder>,
    snappy_out: snap::raw::Decoder,
}

impl fmt::Debug for Codecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Codecs")
    }
}

impl Codecs {
    /// Appends `input`, compressed, to `out`.
    pub fn compress(&mut self, codec: Codec, input: &[u8], out: &mut Vec<u8>) {
        match codec {
            Codec::None => out.extend_from_slice(input),
            Codec::Gzip => {
                let mut encoder = GzEncoder::new(out, flate2::Compression::default());
                let written = encoder.write_all(input).and_then(|()| encoder.finish().map(drop));
                written.expect("memory takes every byte");
            }
            Codec::Snappy => self.compress_xerial(input, out),
            Codec::Lz4 => {
                let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
                let mut encoder = FrameEncoder::with_frame_info(info, out);
                encoder.write_all(input).expect("memory takes every byte");
                encoder.finish().expect("memory takes every byte");
            }
            Codec::Zstd => self.compress_zstd(input, out),
        }
    }

    /// Appends `input`, decompressed, to `out`; at most `limit` bytes are appended. That much address space
    /// may be taken for a while, so it is a bound of the kind that configurations have.
    ///
    /// After an error `out` may have some of the bytes.
    pub fn decompress(&mut self, codec: Codec, input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<()> {
        match codec {
            Codec::None if input.len() > limit => Err(CompressionError::TooLarge),
            Codec::None => {
                out.extend_from_slice(input);
                Ok(())
            }
            Codec::Gzip => read_capped(MultiGzDecoder::new(input), limit, out),
            Codec::Snappy => self.decompress_snappy(input, limit, out),
            Codec::Lz4 => decompress_lz4(input, limit, out),
            Codec::Zstd => self.decompress_zstd(input, limit, out),
        }
    }

    fn compress_zstd(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let compressor = self.zstd_in.get_or_insert_with(|| {
            zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("the default level exists")
        });
        let compressed = compressor.compress(input).expect("the destination has zstd's own bound");
        out.extend_from_slice(&compressed);
    }

    fn decompress_zstd(&mut self, input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<()> {
        let context = self.zstd_out.get_or_insert_with(DCtx::create);
        // A context that failed half-way would go on with the frame before.
        context.reset(ResetDirective::SessionOnly).map_err(|_| CompressionError::Malformed)?;
        let mut decoder = zstd::stream::read::Decoder::with_context(input, context);
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| CompressionError::Malformed)?;
        read_capped(decoder, limit, out)
    }

    fn compress_xerial(&mut self, input: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&XERIAL_MAGIC);
        out.extend_from_slice(&1u32.to_be_bytes());
        out.extend_from_slice(&1u32.to_be_bytes());
        let encoder = self.snappy_in.get_or_insert_with(snap::raw::Encoder::new);
        for block in input.chunks(XERIAL_BLOCK_BYTES) {
            let at = out.len() + size_of::<u32>();
            out.resize(at + snap::raw::max_compress_len(block.len()), 0);
            let written =
                encoder.compress(block, &mut out[at..]).expect("the destination has snappy's own bound");
            let length = u32::try_from(written).expect("a block is small").to_be_bytes();
            out[at - length.len()..at].copy_from_slice(&length);
            out.truncate(at + written);
        }
    }

    /// Java frames blocks with lengths, librdkafka writes one bare block.
    fn decompress_snappy(&mut self, input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<()> {
        let end = out.len() + limit;
        if !input.starts_with(&XERIAL_MAGIC) {
            return self.decompress_block(input, end, out);
        }
        let mut rest = input.get(XERIAL_HEADER_BYTES..).ok_or(CompressionError::Malformed)?;
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            let (block, behind) = behind.split_at_checked(length).ok_or(CompressionError::Malformed)?;
            self.decompress_block(block, end, out)?;
            rest = behind;
        }
        if rest.is_empty() { Ok(()) } else { Err(CompressionError::Malformed) }
    }

    /// `end` is the largest length `out` may get.
    fn decompress_block(&mut self, block: &[u8], end: usize, out: &mut Vec<u8>) -> Result<()> {
        let length = snap::raw::decompress_len(block).map_err(|_| CompressionError::Malformed)?;
        let at = out.len();
        if length > end - at {
            return Err(CompressionError::TooLarge);
        }
        out.resize(at + length, 0);
        let written =
            self.snappy_out.decompress(block, &mut out[at..]).map_err(|_| CompressionError::Malformed)?;
        if written == length { Ok(()) } else { Err(CompressionError::Malformed) }
    }
}

/// Input that remembers whether it was asked for more than it had: the LZ4 decoder takes the end of its
/// input in front of a block for the end of the frame.
struct Watched<'a, 'b> {
    rest: &'b mut &'a [u8],
    was_short: &'b mut bool,
}

impl Read for Watched<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.rest.read(buffer)?;
        *self.was_short |= read < buffer.len();
        Ok(read)
    }
}

fn decompress_lz4(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<()> {
    let (mut rest, mut was_short) = (input, false);
    let watched = Watched { rest: &mut rest, was_short: &mut was_short };
    // The decoder stops at the end of the frame; what follows is nobody's.
    let mut decoder = FrameDecoder::new(watched);
    read_capped(&mut decoder, limit, out)?;
    drop(decoder);
    if was_short || !rest.is_empty() { Err(CompressionError::Malformed) } else { Ok(()) }
}

/// Reads to the end. What doesn't fit the first room gets all it may have at once: pages are committed as
/// they are written, and nothing is copied from one doubling to the next.
fn read_capped(mut decoder: impl Read, limit: usize, out: &mut Vec<u8>) -> Result<()> {
    let end = out.len().saturating_add(limit).saturating_add(1);
    loop {
        if out.len() == out.capacity() {
            let wanted = if out.len() < FIRST_ROOM_BYTES { FIRST_ROOM_BYTES } else { end };
            out.reserve_exact(wanted.min(end) - out.len());
        }
        let room = (out.capacity().min(end) - out.len()) as u64;
        let read = decoder.by_ref().take(room).read_to_end(out).map_err(|_| CompressionError::Malformed)?;
        if out.len() == end {
            return Err(CompressionError::TooLarge);
        }
        if (read as u64) < room {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;

    /// Half noise, half text, so that every codec finds something and nothing.
    fn sample(bytes: usize) -> Vec<u8> {
        let mut random = Random::new(bytes as u64);
        let mut noise = vec![0; bytes / 2];
        random.fill(&mut noise);
        noise.extend(b"the log end offset ".iter().cycle().take(bytes - bytes / 2));
        noise
    }

    fn compressed(codec: Codec, input: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Codecs::default().compress(codec, input, &mut out);
        out
    }

    fn decompressed(codecs: &mut Codecs, codec: Codec, input: &[u8], limit: usize) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        codecs.decompress(codec, input, limit, &mut out).map(|()| out)
    }

    #[test]
    fn what_is_compressed_comes_back_and_not_one_byte_above_the_cap() {
        let mut codecs = Codecs::default();
        for codec in Codec::ALL {
            for bytes in [0, 1, 100, 32 * 1024, 65536, 200_000] {
                let input = sample(bytes);
                let small = compressed(codec, &input);
                assert_eq!(decompressed(&mut codecs, codec, &small, bytes), Ok(input), "{codec:?} {bytes}");
                if bytes > 0 {
                    let outcome = decompressed(&mut codecs, codec, &small, bytes - 1);
                    assert_eq!(outcome, Err(CompressionError::TooLarge), "{codec:?} {bytes}");
                }
            }
        }
    }

    #[test]
    fn every_truncation_is_noticed_and_the_contexts_stay_usable() {
        let input = sample(70_000);
        let mut codecs = Codecs::default();
        for codec in &Codec::ALL[1..] {
            let small = compressed(*codec, &input);
            for end in (0..small.len()).step_by(97).chain(small.len() - 20..small.len()) {
                let outcome = decompressed(&mut codecs, *codec, &small[..end], 1 << 20);
                // Xerial blocks carry no total: a cut between two of them is for the record count to find.
                let is_whole_prefix = outcome.as_ref().is_ok_and(|out| input.starts_with(out));
                assert!(outcome.is_err() || (*codec == Codec::Snappy && is_whole_prefix), "{codec:?} {end}");
            }
            assert_eq!(decompressed(&mut codecs, *codec, &small, 1 << 20), Ok(input.clone()));
        }
    }

    #[test]
    fn bombs_stop_at_the_cap() {
        let zeros = vec![0; 64 << 20];
        let mut codecs = Codecs::default();
        for codec in &Codec::ALL[1..] {
            let bomb = compressed(*codec, &zeros);
            assert!(bomb.len() < zeros.len() / 15, "{codec:?}");
            let mut out = Vec::new();
            let outcome = codecs.decompress(*codec, &bomb, 1 << 20, &mut out);
            assert_eq!(outcome, Err(CompressionError::TooLarge), "{codec:?}");
            assert!(out.capacity() <= 4 << 20, "{codec:?} {}", out.capacity());
        }
        // A raw snappy block that claims 4 GiB.
        let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert_eq!(
            decompressed(&mut codecs, Codec::Snappy, &claim, 1 << 20),
            Err(CompressionError::TooLarge)
        );
    }

    #[test]
    fn a_zstd_window_above_the_cap_is_refused() {
        for (window_log, is_refused) in [(24, false), (27, true)] {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("level");
            encoder.window_log(window_log).expect("permitted");
            encoder.write_all(&sample(1000)).expect("memory");
            let small = encoder.finish().expect("memory");
            let outcome = decompressed(&mut Codecs::default(), Codec::Zstd, &small, 1 << 20);
            assert_eq!(outcome.is_err(), is_refused, "{window_log}");
        }
    }

    #[test]
    fn snappy_is_read_bare_and_framed_whatever_the_version_words() {
        let input = sample(100_000);
        let bare = snap::raw::Encoder::new().compress_vec(&input).expect("small");
        let mut codecs = Codecs::default();
        assert_eq!(decompressed(&mut codecs, Codec::Snappy, &bare, 1 << 20).as_ref(), Ok(&input));
        let mut framed = compressed(Codec::Snappy, &input);
        assert_eq!(framed[..16], *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
        framed[8..16].copy_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(decompressed(&mut codecs, Codec::Snappy, &framed, 1 << 20), Ok(input));
    }

    #[test]
    fn lz4_is_written_in_independent_blocks_of_64_kib_and_read_in_all_shapes() {
        let input = sample(300_000);
        let small = compressed(Codec::Lz4, &input);
        // FLG: version 1, independent blocks, no checksums, no size; BD: 64 KiB.
        assert_eq!((small[4] & 0b1111_1101, small[5]), (0b0110_0000, 0x40));
        let mut codecs = Codecs::default();
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
                for checksums in [false, true] {
                    let info = FrameInfo::new()
                        .block_mode(mode)
                        .block_size(size)
                        .block_checksums(checksums)
                        .content_checksum(checksums);
                    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                    encoder.write_all(&input).expect("memory");
                    let small = encoder.finish().expect("memory");
                    let outcome = decompressed(&mut codecs, Codec::Lz4, &small, 1 << 20);
                    assert_eq!(outcome.as_ref(), Ok(&input));
                }
            }
        }
    }
}
