/// Why bytes could not be read as a DHCPv6 structure, or could not be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WireError {
    /// The structure ends before its fixed part is complete.
    #[error("{what}: {have} octets where at least {need} are needed")]
    Truncated {
        /// Which structure.
        what: &'static str,
        /// Octets present.
        have: usize,
        /// Octets of the fixed part.
        need: usize,
    },
    /// A structure of fixed length has another one.
    #[error("{what}: {have} octets where exactly {need} belong")]
    BadLength {
        /// Which structure.
        what: &'static str,
        /// Octets present.
        have: usize,
        /// Octets of the format.
        need: usize,
    },
    /// An option's length points past the end of what encloses it.
    #[error("option {code} claims {claimed} octets, {have} are left")]
    OptionOverrun {
        /// The option code.
        code: u16,
        /// What its length field says.
        claimed: usize,
        /// Octets left after the length field.
        have: usize,
    },
    /// One to three octets stand where an option header (four octets) would begin.
    #[error("{0} stray octets after the last option")]
    StrayOctets(usize),
    /// A field holds a value that the format does not allow.
    #[error("{what}: {value} is not allowed")]
    BadValue {
        /// Which field.
        what: &'static str,
        /// What it holds.
        value: u32,
    },
    /// The output buffer is too small.
    #[error("the message does not fit into {0} octets")]
    NoSpace(usize),
}
