//! The Maximum Client Lead Time, and that it may change (RFC 8156 sections 4.4 and 6.1.2).

use std::cmp;

use super::Endpoint;
use crate::{FormerMclt, Now, PairHistory, ServerState};

impl Endpoint {
    /// Section 6.1.2: the primary's MCLT is used until it has another one.
    pub(super) fn adopt_mclt(&mut self, mclt: u32, now: Now) {
        // A server without memory has no better idea of what it used before.
        self.mclt_before = cmp::max(self.mclt_before, mclt);
        self.change_mclt(mclt, now);
    }

    /// Goes by this MCLT from now on. Leases may have been given by the one before, and by the
    /// partner still be given by it.
    pub(super) fn change_mclt(&mut self, mclt: u32, now: Now) {
        let former = self.greatest_mclt();
        if mclt == self.record.mclt {
            return;
        }
        self.record.mclt = mclt;
        // Servers that have only just met have given no leases by anything.
        let matters = mclt < former && self.record.history == PairHistory::Run;
        let since = now.wall;
        self.record.former_mclt = matters.then_some(FormerMclt { mclt: former, since });
        self.record_changed = true;
        self.apply_rules();
    }

    /// The MCLT by which leases may have been given that are still about.
    pub(super) fn greatest_mclt(&self) -> u32 {
        let former = self.record.former_mclt.map_or(0, |former| former.mclt);
        cmp::max(self.record.mclt, former)
    }

    /// The partner has connected: from here on it gives leases by the present MCLT.
    pub(super) fn partner_knows_mclt(&mut self, now: Now) {
        if let Some(former) = &mut self.record.former_mclt {
            former.since = now.wall;
            self.record_changed = true;
        }
    }

    /// In NORMAL state what each server has given is told to the other. What was given by a former
    /// MCLT before is over or known when that time has passed, too.
    pub(super) fn forget_former_mclt(&mut self, now: Now) {
        if let Some(FormerMclt { mclt, since }) = self.record.former_mclt
            && self.machine.state() == ServerState::Normal
            && self.flow.settled()
            && now.wall >= since.plus(mclt)
        {
            self.record.former_mclt = None;
            self.record_changed = true;
        }
    }
}
