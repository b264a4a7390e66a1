//! Rules of the protocol that a simulated server may break, to prove that the simulator notices.

/// A rule that [`Config::broken`](crate::Config::broken) switches off.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Rule {
    /// Lifetimes end at most the MCLT after what the partner has acknowledged (section 4.4). Not
    /// kept by the endpoint itself: whoever sets up the server leaves the limit out.
    Mclt,
    /// A lease goes to another client only when the partner has agreed, or the wait of section
    /// 8.4.1 is over (section 4.2.2.1).
    ReallocationWait,
    /// Each server gives out addresses of its own parity (section 4.2.1.1). Not kept by the
    /// endpoint itself: whoever sets up the pools ignores it.
    Parity,
    /// A BNDREPLY goes out only when the update is stored (section 7.5.2).
    DurableBeforeReply,
    /// Updates that contradict what is known better are rejected (section 7.5.4).
    ConflictTable,
}
