use std::{sync::Arc, time::Duration};

use gemel_lease::{AbsoluteTime, PairPolicy, PoolId};

use crate::{Config, Env, Now, ServerState, StoredState};

/// One server's end of a failover relationship. See the crate's documentation for the order in
/// which to call what.
#[derive(Debug)]
pub struct Endpoint {}

/// What an operator, or the link monitor, wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// The partner is down, says the operator (section 8.4).
    PartnerDown,
    /// Ask for all of the partner's bindings again (UPDREQALL).
    Resync,
    /// Drop the connection and make a new one.
    Disconnect,
    /// Stop serving and say so to the partner (DISCONNECT), which then serves: for maintenance, or
    /// because the clients cannot be reached (RFC 7031 section 4.7). Until [`Command::Resume`].
    Suspend,
    /// Take service up again, by way of STARTUP.
    Resume,
}

/// Why a command was not followed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommandError {
    /// The state does not allow it.
    #[error("not possible in state {state}: {why}")]
    State {
        /// The present state.
        state: ServerState,
        /// What stands in the way, and what to do.
        why: &'static str,
    },
}

/// What the driver has to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// Write this to stable storage, then call [`Endpoint::persisted`].
    Persist(StoredState),
    /// Send what is in [`Endpoint::outgoing`], then close the connection.
    Close {
        /// For the log.
        reason: String,
        /// The partner has refused us, or we it: connect less often (section 6.1).
        refused: bool,
    },
    /// For the log: one line per transition.
    Transition {
        /// Before.
        from: ServerState,
        /// After.
        to: ServerState,
        /// The partner's state, if known.
        partner: Option<ServerState>,
        /// What brought it about.
        cause: &'static str,
    },
    /// Something that a person should hear of now (sections 8.9 and 8.11, clock skew).
    Alarm(String),
}

/// What an operator sees.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    /// The state, and since when.
    pub state: ServerState,
    /// Start time of the state.
    pub since: AbsoluteTime,
    /// Partner's state and its start time.
    pub partner: Option<(ServerState, AbsoluteTime)>,
    /// Whether communications are "OK".
    pub communications_ok: bool,
    // More counters: see the operator's status in the daemon.
}

impl Endpoint {
    /// An endpoint in STARTUP state (section 8.3), from what stable storage holds. It serves the
    /// pools `pools` of the table, and tells the rules of its links through `policy` what they may
    /// answer.
    #[must_use]
    pub fn new(
        config: Config,
        pools: Vec<PoolId>,
        policy: Arc<PairPolicy>,
        stored: Option<StoredState>,
        now: Now,
    ) -> Self {
        let _ = (config, pools, policy, stored, now);
        todo!()
    }

    /// A connection to the partner stands (TLS done, if there is any). The primary sends CONNECT.
    /// A connection that stood before is forgotten.
    pub fn connected(&mut self, env: &mut Env<'_>) {
        let _ = env;
        todo!()
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, env: &mut Env<'_>) {
        let _ = env;
        todo!()
    }

    /// A whole message without its size field has come in, at `env.now`.
    pub fn received(&mut self, frame: &[u8], env: &mut Env<'_>) {
        let _ = (frame, env);
        todo!()
    }

    /// Updates of others, in their stored form, are durable: the partner has to hear of them.
    pub fn committed(&mut self, updates: &[u8], env: &mut Env<'_>) {
        let _ = (updates, env);
        todo!()
    }

    /// Some of what has been committed was not told to [`Endpoint::committed`], for want of room:
    /// look through the table.
    pub fn missed(&mut self, env: &mut Env<'_>) {
        let _ = env;
        todo!()
    }

    /// The fate of the batches up to `sequence`.
    pub fn stored(&mut self, sequence: u64, stored: bool, env: &mut Env<'_>) {
        let _ = (sequence, stored, env);
        todo!()
    }

    /// The state of the oldest [`Output::Persist`] that has not been confirmed is on stable storage.
    pub fn persisted(&mut self, env: &mut Env<'_>) {
        let _ = env;
        todo!()
    }

    /// [`Endpoint::next_timeout`] has passed.
    pub fn timeout(&mut self, env: &mut Env<'_>) {
        let _ = env;
        todo!()
    }

    /// Follows a command.
    ///
    /// # Errors
    /// If the state forbids it.
    pub fn command(&mut self, command: Command, env: &mut Env<'_>) -> Result<(), CommandError> {
        let _ = (command, env);
        todo!()
    }

    /// Does what has become possible: fills the window of unacknowledged updates, goes on with a
    /// resynchronisation, looks at the pool balance. Bounded; true if there is more to do at once.
    pub fn poll(&mut self, env: &mut Env<'_>) -> bool {
        let _ = env;
        todo!()
    }

    /// The next thing to do.
    pub fn output(&mut self) -> Option<Output> {
        todo!()
    }

    /// Whole frames to be sent, in order; the driver stamps them
    /// ([`gemel_wire::failover::stamp`]) and drains them. While more than some 256 KiB wait here
    /// the endpoint makes no new updates.
    pub fn outgoing(&mut self) -> &mut Vec<u8> {
        todo!()
    }

    /// When to call [`Endpoint::timeout`], on the monotonic clock.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        todo!()
    }

    /// For the operator.
    #[must_use]
    pub fn status(&self, now: Now) -> Status {
        let _ = now;
        todo!()
    }
}
