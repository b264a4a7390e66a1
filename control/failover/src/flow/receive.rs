//! The partner's updates (RFC 8156 sections 7.5 and 7.6).

use gemel_lease::{BindingStatus, Lease, RecordIter, Verdict};
use gemel_wire::{
    Emitter, Status, StatusCode,
    failover::{
        Binding as WireBinding, BndReply, BndSubject, BndUpd, ClientReply, FailoverError,
        FailoverMessage, FailoverTime, Header, LeaseEntry, LeaseReply, LeaseState, PrefixReply,
    },
};

use super::{Flow, FlowCounters, Pools};
use crate::{
    Config, Env,
    broken::Rule,
    conflict::{self, Decision},
    outbox::Outbox,
    update::{self, Update},
};

fn status(code: StatusCode) -> Status<'static> {
    Status { code, message: &[] }
}

impl Flow {
    /// Takes a BNDUPD and answers it, as soon as what has been accepted is stored.
    ///
    /// # Errors
    /// If there is nothing that an answer could be about.
    pub(crate) fn bndupd(
        &mut self,
        message: &FailoverMessage<'_>,
        env: &mut Env<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), FailoverError> {
        let subject = BndSubject::of(message)?;
        let header = Header {
            transaction_id: message.header.transaction_id,
            sent_time: FailoverTime(env.now.wall.0),
        };
        let before = env.updates.as_bytes().len();
        let mut out = Emitter::new(&mut self.scratch);
        let mut later = Vec::new();
        let mut judge = Judge {
            config: &self.config,
            pools: &self.pools,
            in_doubt: self.in_doubt,
            forgotten: self.recovery.forgotten,
            is_freed_alone: self.recovery.from_partner_down,
            has_names: &mut self.has_names,
            counters: &mut self.counters,
            later: &mut later,
            env,
        };
        let rejected = match BndUpd::parse(message) {
            Err(_) => Some(StatusCode::MISSING_BINDING_INFORMATION),
            Ok(BndUpd::Client(binding)) => judge.client(&binding, header, &mut out).err(),
            Ok(BndUpd::Prefix(prefix)) => match judge.prefix(&prefix) {
                Ok(()) => {
                    BndReply::emit_prefix(&PrefixReply::accept(&prefix), header, &mut out);
                    None
                }
                Err(code) => Some(code),
            },
        };
        if let Some(code) = rejected {
            self.counters.rejected.count(code);
            subject.emit_rejection(status(code), header, &mut out);
        }
        if env.updates.as_bytes().len() != before
            && self.config.broken != Some(Rule::DurableBeforeReply)
        {
            self.held.changed(env.sequence);
        }
        // An answer is no longer than the update was, but for some status codes.
        let len = out.finish().map_err(FailoverError::Wire)?;
        self.held.send(&self.scratch[..len], outbox);
        // It has changed in the open batch, for which all that is sent from here on waits. What
        // somebody else has made of it since then comes by itself when that is stored.
        for record in RecordIter::new(&env.updates.as_bytes()[before..]).flatten() {
            if later.contains(&record.binding.lease) {
                self.enqueue(record.binding.lease, record.stamp);
            }
        }
        Ok(())
    }
}

/// What it takes to judge updates.
struct Judge<'a, 'b> {
    config: &'a Config,
    pools: &'a Pools,
    in_doubt: bool,
    /// See [`Recovery`](super::Recovery).
    forgotten: Option<u32>,
    is_freed_alone: bool,
    has_names: &'a mut bool,
    counters: &'a mut FlowCounters,
    /// Leases of which the partner has to be told something in turn, after the reply.
    later: &'a mut Vec<Lease>,
    env: &'a mut Env<'b>,
}

impl Judge<'_, '_> {
    /// Judges the leases of a client one by one and makes the reply, or nothing if all are rejected
    /// together.
    fn client(
        &mut self,
        binding: &WireBinding<'_>,
        header: Header,
        out: &mut Emitter<'_>,
    ) -> Result<(), StatusCode> {
        if binding.client.vss.is_some() {
            // There are no VPNs here.
            return Err(StatusCode::CONFIGURATION_CONFLICT);
        }
        if binding.leases().any(|entry| entry.is_err()) {
            // What cannot be named cannot be rejected by itself.
            return Err(StatusCode::MISSING_BINDING_INFORMATION);
        }
        let client = ClientReply { client_id: binding.client.client_id, vss: None, status: None };
        let replies = binding.leases().flatten().map(|entry| self.lease(binding, &entry));
        BndReply::emit_client(&client, replies, header, out);
        Ok(())
    }

    fn lease(&mut self, binding: &WireBinding<'_>, entry: &LeaseEntry<'_>) -> LeaseReply<'static> {
        let verdict = match entry.lease() {
            Err(_) => Err(StatusCode::MISSING_BINDING_INFORMATION),
            Ok(lease) => {
                self.note_names(&lease.state);
                Update::of_client(&binding.client, &lease, self.env.now.wall)
                    .and_then(|update| self.update(&update))
                    .map(|()| LeaseReply::accept(&lease))
            }
        };
        verdict.unwrap_or_else(|code| {
            self.counters.rejected.count(code);
            LeaseReply::reject(entry, status(code))
        })
    }

    fn prefix(&mut self, prefix: &gemel_wire::failover::PrefixLease<'_>) -> Result<(), StatusCode> {
        if prefix.vss.is_some() {
            return Err(StatusCode::CONFIGURATION_CONFLICT);
        }
        self.note_names(&prefix.state);
        Update::of_prefix(prefix, self.env.now.wall).and_then(|update| self.update(&update))
    }

    /// Section 9: whoever does no DNS update warns when the partner does.
    fn note_names(&mut self, state: &LeaseState<'_>) {
        let has_names = state.client_fqdn.is_some() || state.dns_removal_info.is_some();
        if has_names && !std::mem::replace(self.has_names, true) {
            tracing::warn!(
                relationship = self.config.name,
                "the partner does DNS update, which is not supported here: what it tells of names is \
                 dropped, and it has to remove them itself"
            );
        }
    }

    fn update(&mut self, update: &Update<'_>) -> Result<(), StatusCode> {
        self.counters.received += 1;
        let Env { table, now, updates, .. } = &mut *self.env;
        let (lease, now) = (update.lease, now.wall);
        let pool = table.pools().find(lease, update.kind);
        if !pool.is_some_and(|id| self.pools.contains(id)) {
            return Err(StatusCode::CONFIGURATION_CONFLICT);
        }
        let role = self.config.role;
        let (mut decision, mut was_pending, mut is_pending) = (Decision::Accept, false, false);
        let mut is_conflict = false;
        table.apply(
            lease,
            |ours| {
                was_pending = ours.update_pending;
                is_conflict = ours.is_active(now)
                    && update.status == BindingStatus::Active
                    && !update.is_of_client(ours);
                let is_broken = self.config.broken == Some(Rule::ConflictTable);
                let is_freed = self.is_freed_alone && conflict::is_freed_rightly(ours, update);
                decision = if is_broken || is_freed {
                    Decision::Accept
                } else {
                    conflict::decide(ours, update, role, now)
                };
                if decision != Decision::Accept {
                    return Verdict::Keep;
                }
                if let Some(mclt) = self.forgotten
                    && let Some(binding) = update::still_active(ours, update, mclt, now)
                {
                    decision = Decision::RejectForNow;
                    return Verdict::Store(binding);
                }
                match update::accept(ours, update, role) {
                    Some(mut binding) => {
                        if let Some(mclt) = self.forgotten {
                            update::lengthen(&mut binding, mclt, now);
                        }
                        is_pending = binding.update_pending;
                        Verdict::Store(binding)
                    }
                    None if self.in_doubt => {
                        // Under a new stamp.
                        is_pending = ours.update_pending;
                        Verdict::Store(ours.clone())
                    }
                    None => Verdict::Keep,
                }
            },
            *updates,
        );
        self.counters.conflicts += u64::from(is_conflict);
        match decision {
            Decision::Accept => {
                self.counters.accepted += 1;
                if is_pending {
                    self.later.push(lease);
                }
                Ok(())
            }
            Decision::Reject(code) => {
                // What was pending already is sent by and by; sending it now might make the
                // partner do the same, without end.
                if code == StatusCode::OUTDATED_BINDING_INFORMATION
                    && !was_pending
                    && table.request_update(lease, *updates)
                {
                    self.later.push(lease);
                }
                Err(code)
            }
            Decision::RejectForNow => Err(StatusCode::OUTDATED_BINDING_INFORMATION),
        }
    }
}
