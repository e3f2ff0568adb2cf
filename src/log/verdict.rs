//! Verdict: torn tail or damage? What recovery makes of a group that isn't there as expected.
//!
//! Exactly one group is in flight, and the next one is submitted only after it is durable. So at a
//! crash at most one group is torn, the last one, and nothing acknowledged was in it.
//!
//! | case | what is found at the place of group N                    | verdict       |
//! |------|----------------------------------------------------------|---------------|
//! | A    | group N, intact                                          | replayed      |
//! | B    | no group of this journal, or an older one; nothing later | the end       |
//! | C    | N's header, but not its payload; nothing later           | torn, cut     |
//! | D    | B or C, and an intact group beyond N anywhere            | damage        |
//! | E    | B or C, and the image says that N was durable            | damage        |
//! | F    | the device can't read it                                 | read error    |
//! | G    | a group of a newer format                                | newer version |
//!
//! D: a later group proves that N was durable. E: the image counted it. F is never taken for a torn
//! tail: the bytes may be there tomorrow. After D to G nothing is changed on disk.

/// What is found where group N should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    HeaderOnly,
    Unreadable,
    Newer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    End,
    Torn,
    Damage,
    ReadError,
    NewerVersion,
}

struct Case {
    found: Found,
    /// The image says that N was durable. None: whatever it says.
    counted: Option<bool>,
    /// An intact group with a larger number is there.
    later: Option<bool>,
    verdict: Verdict,
}

const fn case(found: Found, counted: Option<bool>, later: Option<bool>, verdict: Verdict) -> Case {
    Case { found, counted, later, verdict }
}

const CASES: [Case; 8] = [
    case(Found::Nothing, Some(false), Some(false), Verdict::End),
    case(Found::Nothing, Some(false), Some(true), Verdict::Damage),
    case(Found::Nothing, Some(true), None, Verdict::Damage),
    case(Found::HeaderOnly, Some(false), Some(false), Verdict::Torn),
    case(Found::HeaderOnly, Some(false), Some(true), Verdict::Damage),
    case(Found::HeaderOnly, Some(true), None, Verdict::Damage),
    case(Found::Unreadable, None, None, Verdict::ReadError),
    case(Found::Newer, None, None, Verdict::NewerVersion),
];

impl Case {
    fn applies(&self, found: Found, counted: bool, later: bool) -> bool {
        self.found == found
            && self.counted.is_none_or(|expected| expected == counted)
            && self.later.is_none_or(|expected| expected == later)
    }
}

pub(super) fn judge(found: Found, counted: bool, later: bool) -> Verdict {
    let mut cases = CASES.iter().filter(|case| case.applies(found, counted, later));
    cases.next().expect("the cases cover everything").verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_has_exactly_one_case() {
        for found in [Found::Nothing, Found::HeaderOnly, Found::Unreadable, Found::Newer] {
            for counted in [false, true] {
                for later in [false, true] {
                    let count = CASES.iter().filter(|case| case.applies(found, counted, later)).count();
                    assert_eq!(count, 1, "{found:?}, counted {counted}, later {later}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_cut_that_was_durable() {
        for found in [Found::Nothing, Found::HeaderOnly, Found::Unreadable, Found::Newer] {
            for (counted, later) in [(true, false), (false, true), (true, true)] {
                let verdict = judge(found, counted, later);
                assert!(!matches!(verdict, Verdict::End | Verdict::Torn), "{found:?}: {verdict:?}");
            }
        }
    }
}
