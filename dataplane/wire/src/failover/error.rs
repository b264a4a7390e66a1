use crate::{MessageType, OptionCode, WireError};

/// Why a message of the partner could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FailoverError {
    /// Some structure is malformed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A mandatory option is missing.
    #[error("{within}: {option} is missing")]
    Missing {
        /// The message or option that should hold it.
        within: &'static str,
        /// The option.
        option: OptionCode,
    },
    /// None of several options is there, where one is mandatory.
    #[error("{within}: there is none of {options}")]
    MissingOneOf {
        /// The message or option that should hold one.
        within: &'static str,
        /// Their names.
        options: &'static str,
    },
    /// More than one of the options is there, where only one may be.
    #[error("{within}: {option} beside an option that excludes it")]
    NotSingle {
        /// The message that holds them.
        within: &'static str,
        /// The one that is too much.
        option: OptionCode,
    },
    /// The message type has no place on a failover connection, or at this point.
    #[error("{found} has no place here, {expected} is expected")]
    UnexpectedType {
        /// What was expected.
        expected: &'static str,
        /// The type that was found.
        found: MessageType,
    },
}

/// The value of a mandatory option.
pub(super) fn require<T>(
    value: Option<T>,
    within: &'static str,
    option: OptionCode,
) -> Result<T, FailoverError> {
    value.ok_or(FailoverError::Missing { within, option })
}
