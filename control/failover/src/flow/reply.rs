//! What the partner answers (RFC 8156 section 7.7).

use gemel_lease::{AbsoluteTime, BindingStatus};
use gemel_wire::{
    StatusCode,
    failover::{Ack, BndReply, FailoverError, FailoverMessage},
};

use super::{
    Flow, Phase, RESCAN_INTERVAL,
    window::{Answered, Item},
};
use crate::{Env, balance, broken::Rule};

impl Flow {
    /// Takes a BNDREPLY.
    ///
    /// # Errors
    /// If it cannot be read, so that nobody knows what the partner has taken.
    pub(crate) fn bndreply(
        &mut self,
        message: &FailoverMessage<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), FailoverError> {
        let reply = BndReply::parse(message)?;
        let Some(answered) = self.window.answer(message.header.transaction_id) else {
            self.counters.replies_unknown += 1;
            return Ok(());
        };
        let walks = self.own.iter_mut().chain(&mut self.requests);
        for walk in walks.filter(|walk| walk.tag == answered.tag) {
            walk.unanswered -= 1;
        }
        match reply {
            BndReply::Client(client) => {
                let rejected = client.client.status.filter(|_| client.is_rejected());
                let mut seen = Seen::default();
                // What cannot be read, of a lease or an association, is left out, and so counts as
                // not accepted.
                for lease in client.leases().flatten() {
                    let Some((index, item)) = self.find(answered, &seen, |item| {
                        item.lease.address == lease.head.address
                            && item.lease.prefix_len == lease.head.prefix_len
                    }) else {
                        self.counters.replies_wrong += 1;
                        continue;
                    };
                    seen.insert(index);
                    self.settle(item, rejected.map(|status| status.code), &lease.ack, env);
                }
                self.reject_unseen(answered, &seen, rejected.map(|status| status.code), env);
            }
            BndReply::Prefix(prefix) => {
                let mut seen = Seen::default();
                let is_it = |item: &Item| {
                    (item.lease.address, item.lease.prefix_len)
                        == (prefix.prefix, prefix.prefix_len)
                };
                match self.find(answered, &seen, is_it) {
                    Some((index, item)) => {
                        seen.insert(index);
                        self.settle(item, None, &prefix.ack, env);
                    }
                    None => self.counters.replies_wrong += 1,
                }
                self.reject_unseen(answered, &seen, None, env);
            }
        }
        self.window.forget_answered();
        Ok(())
    }

    /// The lease in the answered message for which `is_it` holds. The partner keeps the order, so
    /// that it is nearly always the first that has not been seen.
    fn find(
        &self,
        answered: Answered,
        seen: &Seen,
        is_it: impl Fn(&Item) -> bool,
    ) -> Option<(usize, Item)> {
        (0..)
            .map_while(|index| self.window.item(answered, index).map(|item| (index, item)))
            .find(|(index, item)| !seen.contains(*index) && is_it(item))
    }

    /// Takes the answer to one lease; `rejected` if the whole message is.
    fn settle(
        &mut self,
        item: Item,
        rejected: Option<StatusCode>,
        ack: &Ack<'_>,
        env: &mut Env<'_>,
    ) {
        let own_status = ack.status.filter(|_| !ack.is_accepted()).map(|status| status.code);
        if let Some(code) = rejected.or(own_status) {
            self.rejected(item, code, env);
            return;
        }
        if ack.binding_status.is_some_and(|status| status.0 != item.status as u8) {
            // Whatever the partner has taken, it is not this.
            self.counters.replies_wrong += 1;
            self.rejected(item, StatusCode::UNSPEC_FAIL, env);
            return;
        }
        let echo = ack.partner_lifetime_sent.map(|time| AbsoluteTime(time.0));
        if echo != item.partner_lifetime {
            self.counters.replies_wrong += 1;
        }
        // Never more than has been told, or than the partner says that it has taken.
        let partner_lifetime =
            echo.and_then(|echo| item.partner_lifetime.map(|sent| sent.min(echo)));
        self.counters.acked += 1;
        if !self.has_to_wait(item, env) {
            let now = env.now.wall;
            env.table.acknowledge(item.lease, item.stamp, partner_lifetime, now, env.updates);
        }
    }

    /// In PARTNER-DOWN state the consent of a partner that comes back does not free a lease: the
    /// partner may have extended it and forgotten (section 4.2.2.1). The lease stays pending, and
    /// the partner hears of it again in NORMAL state.
    fn has_to_wait(&self, item: Item, env: &Env<'_>) -> bool {
        use BindingStatus::{Expired, Released, Reset};
        let Phase::PartnerDown { since, mclt, .. } = self.phase else { return false };
        matches!(item.status, Expired | Released | Reset)
            && !self.is_broken(Rule::ReallocationWait)
            && env
                .table
                .binding(item.lease)
                .is_some_and(|binding| !balance::wait_is_over(&binding, since, mclt, env.now.wall))
    }

    /// What the answer does not mention has not been accepted.
    fn reject_unseen(
        &mut self,
        answered: Answered,
        seen: &Seen,
        rejected: Option<StatusCode>,
        env: &mut Env<'_>,
    ) {
        let mut index = 0;
        while let Some(item) = self.window.item(answered, index) {
            if !seen.contains(index) {
                self.rejected(item, rejected.unwrap_or(StatusCode::UNSPEC_FAIL), env);
            }
            index += 1;
        }
    }

    /// The update is not sent again at once, or the partners might talk for ever (section 7.5.4).
    fn rejected(&mut self, item: Item, code: StatusCode, env: &mut Env<'_>) {
        self.counters.rejected_by_partner.count(code);
        env.table.reject(item.lease, item.stamp, env.updates);
        self.rescan_at.get_or_insert(env.now.monotonic + RESCAN_INTERVAL);
    }
}

/// Which leases of a message have been answered; a message has at most 16.
#[derive(Debug, Default)]
struct Seen(u32);

impl Seen {
    fn insert(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    fn contains(&self, index: usize) -> bool {
        self.0 & 1 << index != 0
    }
}
