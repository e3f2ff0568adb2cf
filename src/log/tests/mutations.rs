//! Mutations: each deliberate mistake is found by an instrument, or its survival is explained here.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{damage, power_cut};
use crate::log::mutation::{self, Mutation};
use crate::log::options::Control;

enum Instrument {
    /// Power cuts, with so many seeds at most.
    PowerCuts(u64),
    /// As many, which take minutes: looked for with `CORELANE_MUTATIONS` only.
    Rare(u64),
    /// Bits flipped and files cut at rest.
    Damage,
    /// Not found, and why that is so.
    Survives(&'static str),
}

use Instrument::{Damage, PowerCuts, Rare, Survives};

/// `CORELANE_MUTATIONS=1` looks for the rare ones, too, and says by what each is found.
const MUTATIONS: [(Mutation, Instrument); 29] = [
    (Mutation::AckFirstPiece, PowerCuts(400)),
    (Mutation::IgnoreFailedGroup, PowerCuts(400)),
    (Mutation::NameNobody, Damage),
    (
        Mutation::ReuseIncarnation,
        Survives("number and previous checksum refuse a group of an earlier life, too"),
    ),
    (Mutation::ForgetDirFlush, PowerCuts(400)),
    (Mutation::ForgetParentFlush, PowerCuts(400)),
    (Mutation::FlushedWhenWritten, PowerCuts(400)),
    (Mutation::UseStaleFile, Rare(100_000)),
    (Mutation::EvictUnwritten, PowerCuts(400)),
    (
        Mutation::SealWithoutFlush,
        Survives("its bytes were flushed before; the exact length alone may be lost, and no read needs it"),
    ),
    (Mutation::SealWithoutDirFlush, Survives("an index that is missing is made again from its segment")),
    (Mutation::UnlinkBeforeDurable, PowerCuts(400)),
    (Mutation::DropBeforeDurable, PowerCuts(400)),
    (Mutation::ImageBeforeEntries, PowerCuts(4_000)),
    (Mutation::OverwriteNewestImage, PowerCuts(400)),
    (Mutation::TrustUnconfirmedImage, Rare(100_000)),
    (Mutation::ForgetProducers, PowerCuts(400)),
    (Mutation::RecoverWithoutFlush, Rare(100_000)),
    (
        Mutation::SkipChain,
        Survives(
            "the number and the log id refuse what doesn't follow; a second line for misdirected writes",
        ),
    ),
    (Mutation::SkipPayloadChecksum, PowerCuts(400)),
    (Mutation::EndAtFirstBadGroup, Damage),
    (Mutation::KeepIncompleteBatch, PowerCuts(400)),
    (Mutation::ApplyTwice, PowerCuts(400)),
    (
        Mutation::RedoIntoDeadSegment,
        Survives(
            "ids only grow, so that what is gone lies in front of what is flushed, and is skipped by that",
        ),
    ),
    (Mutation::IgnoreCounted, Damage),
    (Mutation::IgnoreShortFile, Damage),
    (Mutation::WrongIndexFloor, PowerCuts(400)),
    (Mutation::ServeUnverified, Damage),
    (Mutation::TrustDamagedIndex, Damage),
];

/// What found it; None: nothing did.
fn found(mutation: Mutation, instrument: &Instrument) -> Option<String> {
    let fails = |run: &dyn Fn()| catch_unwind(AssertUnwindSafe(|| mutation::with(mutation, run))).is_err();
    match instrument {
        PowerCuts(seeds_max) | Rare(seeds_max) => {
            let seed = (0..*seeds_max).find(|seed| {
                fails(&|| {
                    power_cut::run(*seed, Control::None);
                })
            });
            seed.map(|seed| format!("seed {seed}"))
        }
        Damage => fails(&damage::check_all).then(|| "damage at rest".to_owned()),
        Survives(why) => fails(&|| {
            assert!(!why.is_empty());
            (0..30).for_each(|seed| {
                power_cut::run(seed, Control::None);
            });
            damage::check_all();
        })
        .then(|| "what was said not to find it".to_owned()),
    }
}

#[test]
fn every_mutation_is_found_or_explained() {
    let told = std::env::var("CORELANE_MUTATIONS").is_ok();
    let mut wrong = Vec::new();
    for (mutation, instrument) in &MUTATIONS {
        if matches!(instrument, Rare(_)) && !told {
            continue;
        }
        let found = found(*mutation, instrument);
        if told {
            eprintln!("{mutation:?}: {found:?}");
        }
        if found.is_none() != matches!(instrument, Survives(_)) {
            wrong.push((mutation, found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn without_a_mutation_nothing_is_found() {
    damage::check_all();
}
