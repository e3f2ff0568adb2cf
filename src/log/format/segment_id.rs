//! Segment ids: 64 bits, ordered as the offsets of a partition's segments are.
//!
//! | bits     | field      | meaning                                                          | valid  |
//! |----------|------------|------------------------------------------------------------------|--------|
//! | 24 to 63 | counter    | one more at every create and roll of the lane; 0 before cleaning | >= 0   |
//! |          |            | existed: such segments are never cleaned                         |        |
//! | 0 to 23  | generation | 0: appended to; else one more than the last segment it replaces  | < 2^24 |
//!
//! A segment that replaces the consecutive ones `a..=b` has the counter of `b` and a larger generation:
//! it sorts behind `b` and before whatever follows `b`, so that the order of ids stays that of offsets.

const GENERATION_BITS: u32 = 24;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;

/// The id of the next segment to be appended to, where none has `from` or a larger one yet.
pub(in crate::log) const fn rolled_id(from: u64) -> u64 {
    from.next_multiple_of(1 << GENERATION_BITS)
}

/// The id of a segment that replaces what ends with `last`; `taken` is the largest id in use up to the
/// segment behind `last`. None where the generations are used up, or `last` has no counter.
pub(in crate::log) const fn cleaned_id(last: u64, taken: u64) -> Option<u64> {
    assert!(last <= taken && taken >> GENERATION_BITS == last >> GENERATION_BITS);
    if last >> GENERATION_BITS == 0 || taken & GENERATION_MASK == GENERATION_MASK {
        return None;
    }
    Some(taken + 1)
}

/// What a replacement of `last` may be called is below this.
pub(in crate::log) const fn generations_end(last: u64) -> u64 {
    (last | GENERATION_MASK) + 1
}

const _: () = assert!(GENERATION_BITS == 24);
const _: () = assert!(rolled_id(1) == 1 << 24 && rolled_id(1 << 24) == 1 << 24);
const _: () = assert!(rolled_id((1 << 24) + 1) == 2 << 24);
const _: () = assert!(matches!(cleaned_id(5 << 24, 5 << 24), Some(id) if id == (5 << 24) + 1));
const _: () = assert!(cleaned_id(7, 7).is_none() && cleaned_id(5 << 24, (6 << 24) - 1).is_none());
const _: () = assert!(generations_end(5 << 24) == 6 << 24);
