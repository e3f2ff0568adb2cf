//! Topic name: which names are legal, as Kafka's `Topic.validate` has it.

/// Why a name is refused; each prints as the reason a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    Empty,
    Dots,
    TooLong,
    Characters,
}

pub const NAME_BYTES_MAX: usize = 249;

pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// Topics that belong to the broker: clients may read, but not write or create them.
pub fn is_internal(name: &str) -> bool {
    name == OFFSETS_TOPIC || name == TRANSACTIONS_TOPIC
}

pub fn validate(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name == "." || name == ".." {
        return Err(NameError::Dots);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong);
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.bytes().all(legal) { Ok(()) } else { Err(NameError::Characters) }
}

/// The name with `.` and `_` made equal: two topics may not collide in it, since metric names
/// can't tell them apart (Kafka's `Topic.hasCollision`).
pub fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}

impl std::fmt::Display for NameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "topic name is empty",
            Self::Dots => "topic name is '.' or '..'",
            Self::TooLong => "topic name is longer than 249 characters",
            Self::Characters => {
                "topic name has a character other than ASCII letters, digits, '.', '_' and '-'"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_as_kafka_refuses_them() {
        let cases: [(&str, Result<(), NameError>); 11] = [
            ("a", Ok(())),
            ("a.b_c-D9", Ok(())),
            ("", Err(NameError::Empty)),
            (".", Err(NameError::Dots)),
            ("..", Err(NameError::Dots)),
            ("...", Ok(())),
            ("../../etc", Err(NameError::Characters)),
            ("a/b", Err(NameError::Characters)),
            ("a\0", Err(NameError::Characters)),
            ("tópic", Err(NameError::Characters)),
            (&"a".repeat(250), Err(NameError::TooLong)),
        ];
        for (name, expected) in cases {
            assert_eq!(validate(name), expected, "{name:?}");
        }
        assert_eq!(validate(&"a".repeat(249)), Ok(()));
        assert_eq!(collision_key("a.b_c"), collision_key("a_b.c"));
    }
}
