use std::time::Duration;

use gemel_lease::{AbsoluteTime, PoolId};
use gemel_wire::{
    MessageType, TransactionId,
    failover::{FailoverError, FailoverMessage},
};

use crate::{Config, Env, Now, outbox::Outbox};

/// What passes between the partners.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FlowCounters {}

#[derive(Debug)]
pub(crate) enum Phase {
    /// No updates of ours are sent (only replies).
    Quiet,
    /// Only the answer to a request.
    Answering,
    /// Updates flow, the balance is kept.
    Normal,
    /// Without a partner.
    PartnerDown { since: AbsoluteTime, mclt: u32 },
}

/// Stand-in: has no bindings, so every request is done at once.
#[derive(Debug)]
pub(crate) struct Flow {
    requests: Vec<TransactionId>,
    pool_requests: Vec<TransactionId>,
}

impl Flow {
    pub(crate) fn new(_: &Config, _: Vec<PoolId>) -> Self {
        Self { requests: Vec::new(), pool_requests: Vec::new() }
    }
    pub(crate) fn connect(&mut self, _: u32) {}
    pub(crate) fn disconnect(&mut self) {
        self.requests.clear();
        self.pool_requests.clear();
    }
    pub(crate) fn committed(&mut self, _: &[u8], _: &mut Env<'_>) {}
    pub(crate) fn missed(&mut self) {}
    pub(crate) fn send_pending(&mut self) {}
    pub(crate) fn answer_request(&mut self, _: bool, id: TransactionId) {
        self.requests.push(id);
    }
    pub(crate) fn bndupd(
        &mut self,
        _: &FailoverMessage<'_>,
        _: &mut Env<'_>,
        _: &mut Outbox,
    ) -> Result<(), FailoverError> {
        Ok(())
    }
    pub(crate) fn bndreply(
        &mut self,
        _: &FailoverMessage<'_>,
        _: &mut Env<'_>,
    ) -> Result<(), FailoverError> {
        Ok(())
    }
    pub(crate) fn pool_request(&mut self, id: TransactionId) {
        self.pool_requests.push(id);
    }
    pub(crate) fn stored(&mut self, _: u64, stored: bool, _: &mut Outbox, _: Now) -> bool {
        stored
    }
    pub(crate) fn poll(&mut self, phase: Phase, env: &mut Env<'_>, outbox: &mut Outbox) -> bool {
        match phase {
            Phase::Quiet => {}
            Phase::PartnerDown { since, mclt } => _ = since.plus(mclt),
            Phase::Answering | Phase::Normal => {
                for id in self.requests.drain(..) {
                    outbox.bare(MessageType::UPDDONE, id, env.now);
                }
                for id in self.pool_requests.drain(..) {
                    outbox.bare(MessageType::POOLRESP, id, env.now);
                }
            }
        }
        false
    }
    pub(crate) fn settled(&self) -> bool {
        true
    }
    pub(crate) fn oldest_unanswered(&self) -> Option<Duration> {
        None
    }
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        None
    }
    pub(crate) fn counters(&self) -> FlowCounters {
        FlowCounters {}
    }
}
