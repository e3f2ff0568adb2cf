//! Verdict: torn tail or damage? What recovery makes of a group that isn't there as expected.
//!
//! Exactly one group is in flight, and the next one is submitted only after it is durable. So at a
//! crash at most one group is torn, the last one, and nothing acknowledged was in it.
//!
//! | case | what is found at the place of group N                     | verdict       |
//! |------|-----------------------------------------------------------|---------------|
//! | A    | group N, intact                                           | replayed      |
//! | B    | no group of this journal, or an older one; nothing later  | the end       |
//! | C    | N's header, but not its payload; nothing later            | torn, cut     |
//! | D    | B or C, and an intact later group that names whom N and   | gap           |
//! |      | all behind it were for                                    |               |
//! | E    | B or C, and a later group that doesn't                    | damage        |
//! | F    | B or C, nothing later, and the image counts N as durable  | gap           |
//! | G    | the file is shorter than it was; else as D                | gap           |
//! | H    | the file is shorter than it was; else as B, C or E        | damage        |
//! | I    | the device can't read it                                  | read error    |
//! | J    | a group of a newer format                                 | newer version |
//!
//! D and E: a later group proves that N was durable. After a gap replay goes on behind it, and the
//! partitions that may have lost something in it are offline, each alone. F: the image's rows reflect
//! what it counts, so they tell. H: any number of durable groups may have been behind the file's end.
//! I is never taken for a torn tail: the bytes may be there tomorrow. After E, H, I and J nothing is changed on disk and the lane isn't served.

/// What is found where group N should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    HeaderOnly,
    /// The file ends before its length.
    Short,
    Unreadable,
    Newer,
}

/// An intact group with a larger number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Later {
    None,
    /// It names the partitions of all groups from N on.
    Names,
    Silent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    End,
    Torn,
    Gap,
    Damage,
    ReadError,
    NewerVersion,
}

struct Case {
    found: Found,
    /// The image says that N was durable. None: whatever it says.
    counted: Option<bool>,
    later: Option<Later>,
    verdict: Verdict,
}

const fn case(found: Found, counted: Option<bool>, later: Option<Later>, verdict: Verdict) -> Case {
    Case { found, counted, later, verdict }
}

const CASES: [Case; 13] = [
    case(Found::Nothing, Some(false), Some(Later::None), Verdict::End),
    case(Found::Nothing, Some(true), Some(Later::None), Verdict::Gap),
    case(Found::Nothing, None, Some(Later::Names), Verdict::Gap),
    case(Found::Nothing, None, Some(Later::Silent), Verdict::Damage),
    case(Found::HeaderOnly, Some(false), Some(Later::None), Verdict::Torn),
    case(Found::HeaderOnly, Some(true), Some(Later::None), Verdict::Gap),
    case(Found::HeaderOnly, None, Some(Later::Names), Verdict::Gap),
    case(Found::HeaderOnly, None, Some(Later::Silent), Verdict::Damage),
    case(Found::Short, None, Some(Later::None), Verdict::Damage),
    case(Found::Short, None, Some(Later::Names), Verdict::Gap),
    case(Found::Short, None, Some(Later::Silent), Verdict::Damage),
    case(Found::Unreadable, None, None, Verdict::ReadError),
    case(Found::Newer, None, None, Verdict::NewerVersion),
];

impl Case {
    fn applies(&self, found: Found, counted: bool, later: Later) -> bool {
        self.found == found
            && self.counted.is_none_or(|expected| expected == counted)
            && self.later.is_none_or(|expected| expected == later)
    }
}

pub(super) fn judge(found: Found, counted: bool, later: Later) -> Verdict {
    let mut cases = CASES.iter().filter(|case| case.applies(found, counted, later));
    cases.next().expect("the cases cover everything").verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: [Found; 5] =
        [Found::Nothing, Found::HeaderOnly, Found::Short, Found::Unreadable, Found::Newer];
    const LATER: [Later; 3] = [Later::None, Later::Names, Later::Silent];

    #[test]
    fn every_combination_has_exactly_one_case() {
        for found in FOUND {
            for counted in [false, true] {
                for later in LATER {
                    let count = CASES.iter().filter(|case| case.applies(found, counted, later)).count();
                    assert_eq!(count, 1, "{found:?}, counted {counted}, later {later:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_cut_that_was_durable() {
        for found in FOUND {
            for counted in [false, true] {
                for later in LATER {
                    let verdict = judge(found, counted, later);
                    let was_durable = counted || later != Later::None;
                    let cut = matches!(verdict, Verdict::End | Verdict::Torn);
                    assert!(!(was_durable && cut), "{found:?}, counted {counted}, later {later:?}");
                }
            }
        }
    }

    #[test]
    fn what_cant_be_read_or_known_changes_nothing() {
        for counted in [false, true] {
            for later in LATER {
                assert_eq!(judge(Found::Unreadable, counted, later), Verdict::ReadError);
                assert_eq!(judge(Found::Newer, counted, later), Verdict::NewerVersion);
            }
            assert_eq!(judge(Found::Nothing, counted, Later::Silent), Verdict::Damage);
            assert_eq!(judge(Found::HeaderOnly, counted, Later::Silent), Verdict::Damage);
        }
    }
}
