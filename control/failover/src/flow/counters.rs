use gemel_wire::StatusCode;

/// What has been exchanged with the partner so far, in leases, and where it stands.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FlowCounters {
    /// Leases sent in BNDUPD messages, those sent again included.
    pub sent: u64,
    /// BNDUPD messages sent.
    pub messages_sent: u64,
    /// Leases that the partner has accepted.
    pub acked: u64,
    /// Leases that the partner has rejected, or left out of its answer.
    pub rejected_by_partner: StatusCounts,
    /// BNDREPLY messages to nothing that is outstanding.
    pub replies_unknown: u64,
    /// Answers to a lease that do not repeat what was sent.
    pub replies_wrong: u64,
    /// Leases received in BNDUPD messages.
    pub received: u64,
    /// Of these: accepted.
    pub accepted: u64,
    /// And rejected, by reason. A BNDUPD that is rejected as a whole counts once.
    pub rejected: StatusCounts,
    /// Updates that gave a lease to another client than the one that has it here, accepted or not.
    pub conflicts: u64,
    /// Times that the queue of leases overflowed, so that the table has to be searched.
    pub overflows: u64,
    /// Requests of the partner (UPDREQ, UPDREQALL) that have been answered in full.
    pub requests_done: u64,
    /// Prefixes given to the secondary.
    pub prefixes_given: u64,
    /// Prefixes asked back from the secondary.
    pub prefixes_reclaimed: u64,
    /// The partner's prefixes taken over in PARTNER-DOWN state.
    pub prefixes_taken_over: u64,
    /// Leases freed in PARTNER-DOWN state after the wait of section 8.4.1.
    pub freed_after_wait: u64,
    /// Leases that wait to be sent, now.
    pub queued: u64,
    /// BNDUPD messages without an answer, now.
    pub unacked: u64,
    /// Messages that wait until an update is stored, now.
    pub replies_waiting: u64,
    /// The request of the partner that is being answered, now.
    pub resync: Option<ResyncProgress>,
}

/// How far the answer to an UPDREQ or UPDREQALL is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ResyncProgress {
    /// UPDREQALL.
    pub all: bool,
    /// Parts of the table that have been looked through.
    pub stripes_done: usize,
    /// Number of parts.
    pub stripes_total: usize,
    /// Leases sent.
    pub sent: u64,
    /// Messages of these that are not answered yet.
    pub unacked: u64,
}

/// Rejected leases by status code (section 5.6).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StatusCounts {
    /// AddressInUse.
    pub address_in_use: u64,
    /// ConfigurationConflict.
    pub configuration_conflict: u64,
    /// MissingBindingInformation.
    pub missing_binding_information: u64,
    /// OutdatedBindingInformation.
    pub outdated_binding_information: u64,
    /// Any other.
    pub other: u64,
}

impl StatusCounts {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.address_in_use
            + self.configuration_conflict
            + self.missing_binding_information
            + self.outdated_binding_information
            + self.other
    }

    pub(super) fn count(&mut self, code: StatusCode) {
        *match code {
            StatusCode::ADDRESS_IN_USE => &mut self.address_in_use,
            StatusCode::CONFIGURATION_CONFLICT => &mut self.configuration_conflict,
            StatusCode::MISSING_BINDING_INFORMATION => &mut self.missing_binding_information,
            StatusCode::OUTDATED_BINDING_INFORMATION => &mut self.outdated_binding_information,
            _ => &mut self.other,
        } += 1;
    }
}
