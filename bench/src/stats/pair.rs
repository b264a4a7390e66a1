//! The messages whose distance in time is measured.

named! {
    /// Two messages whose distance in time is measured.
    Pair {
        /// SOLICIT to ADVERTISE.
        SolicitAdvertise = "solicit_advertise",
        /// REQUEST to REPLY.
        RequestReply = "request_reply",
        /// SOLICIT with Rapid Commit to REPLY.
        SolicitReply = "solicit_reply",
        /// RENEW to REPLY.
        RenewReply = "renew_reply",
        /// REBIND to REPLY.
        RebindReply = "rebind_reply",
        /// RELEASE to REPLY.
        ReleaseReply = "release_reply",
        /// DECLINE to REPLY.
        DeclineReply = "decline_reply",
        /// CONFIRM to REPLY.
        ConfirmReply = "confirm_reply",
        /// INFORMATION-REQUEST to REPLY.
        InformReply = "inform_reply",
        /// RENEW to the REPLY to it or to the REBIND that followed it; only where clients go on with
        /// REBIND.
        Renewal = "renewal",
        /// First to last message of an exchange that began with SOLICIT.
        Exchange = "exchange",
    }
}

impl Pair {
    /// Whether it spans several messages, whose times are counted by themselves as well.
    #[must_use]
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Exchange | Self::Renewal)
    }

    /// For people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::SolicitAdvertise => "SOLICIT → ADVERTISE",
            Self::RequestReply => "REQUEST → REPLY",
            Self::SolicitReply => "SOLICIT → REPLY (rapid commit)",
            Self::RenewReply => "RENEW → REPLY",
            Self::RebindReply => "REBIND → REPLY",
            Self::ReleaseReply => "RELEASE → REPLY",
            Self::DeclineReply => "DECLINE → REPLY",
            Self::ConfirmReply => "CONFIRM → REPLY",
            Self::InformReply => "INFORMATION-REQUEST → REPLY",
            Self::Renewal => "whole renewal",
            Self::Exchange => "whole exchange",
        }
    }
}
