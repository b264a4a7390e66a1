//! What is counted.

named! {
    /// Something that is counted.
    Counter {
        /// Exchanges begun.
        Started = "started",
        /// Exchanges that ended with a valid grant of all that was asked for.
        Completed = "completed",
        /// ... while new ones were still being started: what the rate is made of.
        CompletedInTime = "completed_in_time",
        /// Datagrams sent.
        Sent = "sent",
        /// SOLICIT among them.
        SentSolicit = "sent_solicit",
        /// REQUEST among them.
        SentRequest = "sent_request",
        /// RENEW among them.
        SentRenew = "sent_renew",
        /// REBIND among them.
        SentRebind = "sent_rebind",
        /// RELEASE among them.
        SentRelease = "sent_release",
        /// DECLINE among them.
        SentDecline = "sent_decline",
        /// CONFIRM among them.
        SentConfirm = "sent_confirm",
        /// INFORMATION-REQUEST among them.
        SentInform = "sent_inform",
        /// Retransmissions among them (RFC 8415 section 15).
        SentAgain = "sent_again",
        /// Datagrams received.
        Received = "received",
        /// Valid ADVERTISE.
        Advertise = "advertise",
        /// ADVERTISE that came after another one was taken: those of further servers, and late
        /// ones. A client may do so (RFC 8415 section 18.2.9).
        AdvertiseFurther = "advertise_further",
        /// Valid REPLY.
        Reply = "reply",
        /// SOLICIT without an answer in time (neither ADVERTISE nor, with Rapid Commit, REPLY).
        LostAdvertise = "lost_advertise",
        /// REQUEST without a REPLY in time.
        LostReply = "lost_reply",
        /// RENEW without a REPLY in time.
        LostRenewReply = "lost_renew_reply",
        /// REBIND without a REPLY in time.
        LostRebindReply = "lost_rebind_reply",
        /// RELEASE without a REPLY in time.
        LostReleaseReply = "lost_release_reply",
        /// DECLINE without a REPLY in time.
        LostDeclineReply = "lost_decline_reply",
        /// CONFIRM without a REPLY in time. A server that cannot tell whether the addresses fit the link
        /// does not answer (RFC 8415 section 18.3.3).
        LostConfirmReply = "lost_confirm_reply",
        /// INFORMATION-REQUEST without a REPLY in time.
        LostInformReply = "lost_inform_reply",
        /// REQUEST without a REPLY, after which the client began again with SOLICIT.
        RequestTurned = "request_turned",
        /// RENEW without a REPLY, after which the client went on with REBIND.
        RenewTurned = "renew_turned",
        /// Exchanges that ended in a violation.
        Invalid = "invalid",
        /// Exchanges refused with NoAddrsAvail.
        RefusedNoAddrsAvail = "refused_no_addrs_avail",
        /// Exchanges refused with NoPrefixAvail.
        RefusedNoPrefixAvail = "refused_no_prefix_avail",
        /// Exchanges refused with NoBinding.
        RefusedNoBinding = "refused_no_binding",
        /// Exchanges refused with NotOnLink.
        RefusedNotOnLink = "refused_not_on_link",
        /// Exchanges refused with UnspecFail or another code.
        RefusedOther = "refused_other",
        /// REPLY to a message that is no longer waited for: late, or of a second server.
        Late = "late",
        /// REBIND without a REPLY until the leases had ended, after which the client began again with
        /// SOLICIT (RFC 8415 section 18.2.5).
        RebindTurned = "rebind_turned",
        /// Rapid Commit was asked for and answered with ADVERTISE.
        RapidCommitDeclined = "rapid_commit_declined",
        /// A REPLY granted another lease than the ADVERTISE had offered.
        OfferChanged = "offer_changed",
        /// Leases that a REPLY gave beside the one that the client keeps.
        LeaseFurther = "lease_further",
        /// Grants whose valid lifetime was not above the MCLT (RFC 8156 section 4.4).
        GrantAtMostMclt = "grant_at_most_mclt",
        /// Grants to the holder of the lease that end before the earlier one would have.
        LifetimeShortened = "lifetime_shortened",
        /// Leases that were given out although a client had declined them (RFC 8415 section 18.3.8).
        DeclinedGiven = "declined_given",
        /// Datagrams that came in on the queue of another generator thread and were handed on to it.
        Steered = "steered",
        /// Received frames that are not a DHCPv6 datagram for this generator.
        Foreign = "foreign",
        /// Exchanges not begun because nearly all clients were busy.
        NoClient = "no_client",
        /// Exchanges not begun because too many were outstanding.
        NoSlot = "no_slot",
        /// Times that the port had no room to send; tried again at once.
        PortFull = "port_full",
    }
}

/// All counters, by [`Counter`].
pub type Counters = [u64; Counter::ALL.len()];

/// Messages that were never answered.
#[must_use]
pub fn lost(counters: &Counters) -> u64 {
    sum(counters, &LOST)
}

/// Exchanges that ended without a grant although the server answered.
#[must_use]
pub fn failed(counters: &Counters) -> u64 {
    sum(counters, &FAILED)
}

/// What makes [`lost`].
const LOST: [Counter; 8] = [
    Counter::LostAdvertise,
    Counter::LostReply,
    Counter::LostRenewReply,
    Counter::LostRebindReply,
    Counter::LostReleaseReply,
    Counter::LostDeclineReply,
    Counter::LostConfirmReply,
    Counter::LostInformReply,
];

/// What makes [`failed`].
const FAILED: [Counter; 6] = [
    Counter::Invalid,
    Counter::RefusedNoAddrsAvail,
    Counter::RefusedNoPrefixAvail,
    Counter::RefusedNoBinding,
    Counter::RefusedNotOnLink,
    Counter::RefusedOther,
];

fn sum(counters: &Counters, of: &[Counter]) -> u64 {
    of.iter().map(|counter| counters[*counter as usize]).sum()
}
