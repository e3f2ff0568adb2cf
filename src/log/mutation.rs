//! Mutation: deliberate mistakes, each of which the tests must find (`tests/mutations.rs`).
//!
//! Compiled away outside of unit tests: `is(…)` is false then, and costs nothing. The mistakes that whole
//! brokers make in `tests/sim` are [`super::options::Control`]s instead.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutation {
    // ---- The journal
    /// A batch counts as durable with its first piece.
    AckFirstPiece,
    /// A failed write of a group is taken for a good one.
    IgnoreFailedGroup,
    /// Groups don't name the partitions of those before them.
    NameNobody,
    /// A file begins its next life under the incarnation of its last one.
    ReuseIncarnation,
    // ---- Segments
    /// A segment's new file is used before its name is flushed.
    ForgetDirFlush,
    /// A partition's new directory is used before its name is flushed.
    ForgetParentFlush,
    /// Bytes count as flushed when they are written.
    FlushedWhenWritten,
    /// A file of a run whose flush failed is written to as if it were new.
    UseStaleFile,
    /// Memory is given up before its bytes are in their segment.
    EvictUnwritten,
    /// The index is there before the segment is flushed.
    SealWithoutFlush,
    /// A segment counts as sealed before its index's name is flushed.
    SealWithoutDirFlush,
    /// Files go before the entry that moved the log start is durable.
    UnlinkBeforeDurable,
    /// Files go before the drop entry is durable.
    DropBeforeDurable,
    // ---- The checkpoint
    /// An image is written before the entries it reflects are durable.
    ImageBeforeEntries,
    /// The newest image is overwritten.
    OverwriteNewestImage,
    /// An image is trusted though no entry calls it durable.
    TrustUnconfirmedImage,
    /// Producers aren't in the image.
    ForgetProducers,
    // ---- Recovery
    /// What is read isn't flushed first.
    RecoverWithoutFlush,
    /// A group needn't follow the one before it.
    SkipChain,
    /// A group's payload isn't compared with its checksum.
    SkipPayloadChecksum,
    /// The journal ends at the first group that isn't as expected.
    EndAtFirstBadGroup,
    /// An incomplete last batch stays.
    KeepIncompleteBatch,
    /// Entries that a row reflects are applied again.
    ApplyTwice,
    /// Bytes of a segment that is gone are loaded.
    RedoIntoDeadSegment,
    /// What an image counts as durable isn't missed.
    IgnoreCounted,
    /// A file that is shorter than it was is taken as it is.
    IgnoreShortFile,
    // ---- Reads
    /// A lookup begins one extent too late.
    WrongIndexFloor,
    /// Bytes from disk are served without a look at their checksum.
    ServeUnverified,
    /// An index that isn't what was written is used.
    TrustDamagedIndex,
}

#[cfg(test)]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Whether the mistake is to be made, on this thread.
#[cfg(test)]
pub(super) fn is(mutation: Mutation) -> bool {
    ACTIVE.get() == Some(mutation)
}

#[cfg(not(test))]
pub(super) const fn is(_mutation: Mutation) -> bool {
    false
}

/// Makes the mistake while `run` runs.
#[cfg(test)]
pub(super) fn with<T>(mutation: Mutation, run: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            ACTIVE.set(None);
        }
    }
    ACTIVE.set(Some(mutation));
    let _reset = Reset;
    run()
}
