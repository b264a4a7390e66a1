//! The reply to a client while it is being written.

use gemel_lease::{IaKind, Lease};
use gemel_wire::{Emitter, IaId, MessageType, OptionCode, OptionMark, StatusCode};

use crate::{
    DropReason,
    bounded::Bounded,
    link::Link,
    relay::{Relays, Wrapping},
    request::{IAS_MAX, Request},
};

/// An answer in the making: relay headers, message header, client and server identifier stand
/// already.
#[derive(Debug)]
pub(crate) struct Reply<'b> {
    out: Emitter<'b>,
    wrapping: Wrapping,
    patches: Patches,
}

/// What is known only after the last IA has been written.
#[derive(Debug)]
pub(crate) struct Patches {
    /// Where the message type stands.
    type_at: usize,
    /// Where T1 stands in each IA with leases; T2 follows it.
    times_at: Bounded<usize, IAS_MAX>,
    /// The shortest preferred lifetime among the leases that the client may go on to use.
    shortest: Option<u32>,
}

/// An IA option of the reply that is still open.
#[derive(Debug)]
pub(crate) struct OpenIa {
    mark: OptionMark,
    kind: IaKind,
    t1_at: usize,
    leases: usize,
}

impl<'b> Reply<'b> {
    /// Order of the reply: client identifier, server identifier, IAs, options.
    pub(crate) fn new(
        buffer: &'b mut [u8],
        relays: &Relays<'_>,
        request: &Request<'_>,
        server_id_option: &[u8],
    ) -> Self {
        let mut out = Emitter::new(buffer);
        let wrapping = relays.begin_reply(&mut out);
        let type_at = out.len();
        out.message(MessageType::REPLY, request.message.transaction_id);
        if let Some(client_id) = request.client_id {
            out.option(OptionCode::CLIENT_ID, client_id);
        }
        out.bytes(server_id_option);
        let patches = Patches { type_at, times_at: Bounded::EMPTY, shortest: None };
        Self { out, wrapping, patches }
    }

    /// A status for the message as a whole.
    pub(crate) fn status(&mut self, code: StatusCode, message: &str) {
        self.out.status(code, message);
    }

    pub(crate) fn option(&mut self, code: OptionCode, data: &[u8]) {
        self.out.option(code, data);
    }

    /// The link's options that the client asked for, and those that all clients get.
    pub(crate) fn link_options(&mut self, link: &Link, request: &Request<'_>) {
        let information = request.message.msg_type == MessageType::INFORMATION_REQUEST;
        for option in &link.options {
            // RFC 8415 section 21.23: only in replies to INFORMATION-REQUEST.
            if option.code == OptionCode::INFORMATION_REFRESH_TIME && !information {
                continue;
            }
            if option.always || request.wants(option.code) {
                self.out.bytes(&option.octets);
            }
        }
    }

    pub(crate) fn begin_ia(&mut self, kind: IaKind, iaid: IaId) -> OpenIa {
        let code = match kind {
            IaKind::Na => OptionCode::IA_NA,
            IaKind::Ta => OptionCode::IA_TA,
            IaKind::Pd => OptionCode::IA_PD,
        };
        let mark = self.out.begin(code);
        self.out.u32(iaid.0);
        let t1_at = self.out.len();
        if kind != IaKind::Ta {
            // T1 and T2 come later, when all leases are known.
            self.out.bytes(&[0; 8]);
        }
        OpenIa { mark, kind, t1_at, leases: 0 }
    }

    /// A lease that the client may use, with its lifetimes in seconds.
    pub(crate) fn lease(&mut self, ia: &mut OpenIa, lease: Lease, preferred: u32, valid: u32) {
        let shortest = self.patches.shortest.unwrap_or(u32::MAX);
        self.patches.shortest = Some(shortest.min(preferred));
        self.write_lease(ia, lease, preferred, valid);
    }

    /// A lease that the client must stop using.
    pub(crate) fn lost_lease(&mut self, ia: &mut OpenIa, lease: Lease) {
        self.write_lease(ia, lease, 0, 0);
    }

    fn write_lease(&mut self, ia: &mut OpenIa, lease: Lease, preferred: u32, valid: u32) {
        ia.leases += 1;
        match ia.kind {
            IaKind::Pd => {
                self.out.ia_prefix(lease.address, lease.prefix_len, preferred, valid);
            }
            IaKind::Na | IaKind::Ta => self.out.ia_addr(lease.address, preferred, valid),
        }
    }

    pub(crate) fn end_ia(&mut self, ia: OpenIa, status: Option<(StatusCode, &str)>) {
        if let Some((code, message)) = status {
            self.out.status(code, message);
        }
        self.out.end(ia.mark);
        if ia.leases > 0 && ia.kind != IaKind::Ta {
            // There is room: a message has at most IAS_MAX IAs.
            self.patches.times_at.push(ia.t1_at);
        }
    }

    /// An IA with a status and nothing else.
    pub(crate) fn ia_status(
        &mut self,
        kind: IaKind,
        iaid: IaId,
        status: (StatusCode, &'static str),
    ) {
        let ia = self.begin_ia(kind, iaid);
        self.end_ia(ia, Some(status));
    }

    /// Ends the message; the length of the datagram and what is left to fill in.
    pub(crate) fn finish(mut self) -> Result<(usize, Patches), DropReason> {
        self.wrapping.end(&mut self.out);
        let len = self.out.finish().map_err(|_| DropReason::ReplyTooLarge)?;
        Ok((len, self.patches))
    }
}

impl Patches {
    /// Fills in the message type, and T1 and T2, which must be the same in all IAs (RFC 8415
    /// section 18.3.2). IAs without leases have no use for them and keep 0.
    pub(crate) fn apply(self, buffer: &mut [u8], msg_type: MessageType, link: &Link) {
        if let Some(octet) = buffer.get_mut(self.type_at) {
            *octet = msg_type.0;
        }
        let Some(shortest) = self.shortest else { return };
        let (t1, t2) = link.renewal_times(shortest);
        for at in self.times_at.iter() {
            if let Some(field) = buffer.get_mut(*at..*at + 8) {
                field[..4].copy_from_slice(&t1.to_be_bytes());
                field[4..].copy_from_slice(&t2.to_be_bytes());
            }
        }
    }
}
