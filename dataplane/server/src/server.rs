use std::sync::Arc;

use gemel_lease::{
    AbsoluteTime, Binding, BindingStatus, ClientGuard, IaKind, LeaseTable, PairRules,
    Responsiveness, Terms, UpdateSink,
};
use gemel_wire::{Duid, Emitter, MessageType, OptionCode, StatusCode};

use crate::{
    ConfigError, DropReason, Inbound, Outcome, ReplyInfo, ServerConfig, Service,
    assign::{Exchange, NO_BINDING, Purpose, Scope, Told},
    bounded::Bounded,
    link::Links,
    relay::Relays,
    reply::Reply,
    request::{IaRequest, Request},
    warming::{self, Recall},
};

/// What holds for one answer.
struct Moment<'a> {
    now: AbsoluteTime,
    service: Service,
    /// While the lease table is being filled.
    recall: Option<&'a dyn Recall>,
}

/// The server rules over one lease table. Shared by all workers; nothing in it is locked for
/// longer than one identity association takes.
#[derive(Debug)]
pub struct Server {
    duid: Duid,
    /// The Server Identifier option, ready to be copied.
    server_id_option: Box<[u8]>,
    links: Links,
    accept_unicast: bool,
    table: Arc<LeaseTable>,
}

impl Server {
    /// Checks the configuration against the table's pools and prepares the lookups.
    ///
    /// # Errors
    /// The first thing in the configuration that the rules cannot follow.
    pub fn new(config: ServerConfig, table: Arc<LeaseTable>) -> Result<Self, ConfigError> {
        let mut option = [0; 4 + gemel_wire::DUID_LEN_MAX];
        let mut out = Emitter::new(&mut option);
        out.duid(OptionCode::SERVER_ID, &config.server_duid);
        let len = out.finish().expect("there is room for the longest DUID");
        Ok(Self {
            duid: config.server_duid,
            server_id_option: option[..len].into(),
            links: Links::new(config.links, table.pools())?,
            accept_unicast: config.accept_unicast,
            table,
        })
    }

    /// The lease table that this server works on.
    #[must_use]
    pub fn table(&self) -> &Arc<LeaseTable> {
        &self.table
    }

    /// All links.
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// Number of links.
    #[must_use]
    pub fn link_count(&self) -> usize {
        self.links.len()
    }

    /// Name of a link, by its place in the configuration.
    #[must_use]
    pub fn link_name(&self, link: usize) -> Option<&str> {
        self.links.get(link).map(|link| link.name.as_str())
    }

    /// Ties a link, by its place in the configuration, to the interface with this index, or to
    /// none. For interfaces that appear or vanish while workers are running; an interface belongs
    /// to the link that claimed it last. `false` if there is no such link.
    pub fn set_interface(&self, link: usize, index: Option<u32>) -> bool {
        self.links.set_interface(link, index)
    }

    /// Answers a datagram: writes the reply into `reply` and pushes every change of a binding into
    /// `updates`. Makes no allocation of its own.
    pub fn handle(
        &self,
        inbound: &Inbound<'_>,
        now: AbsoluteTime,
        service: Service,
        reply: &mut [u8],
        updates: &mut impl UpdateSink,
    ) -> Outcome {
        let moment = Moment { now, service, recall: None };
        self.outcome(inbound, &moment, reply, updates)
    }

    /// As [`Server::handle`], while the lease table does not hold every binding yet: `recall` brings
    /// the leases that a RENEW or REBIND names, and the answer extends what was found. No lease is
    /// given or taken back, and none is called lost. What needs the whole table is dropped.
    pub fn handle_warming(
        &self,
        inbound: &Inbound<'_>,
        now: AbsoluteTime,
        service: Service,
        recall: &dyn Recall,
        reply: &mut [u8],
        updates: &mut impl UpdateSink,
    ) -> Outcome {
        let moment = Moment { now, service, recall: Some(recall) };
        self.outcome(inbound, &moment, reply, updates)
    }

    fn outcome(
        &self,
        inbound: &Inbound<'_>,
        moment: &Moment<'_>,
        reply: &mut [u8],
        updates: &mut impl UpdateSink,
    ) -> Outcome {
        match self.answer(inbound, moment, reply, updates) {
            Ok(info) => Outcome::Reply(info),
            Err(reason) => Outcome::Drop(reason),
        }
    }

    fn answer<S: UpdateSink>(
        &self,
        inbound: &Inbound<'_>,
        moment: &Moment<'_>,
        buffer: &mut [u8],
        updates: &mut S,
    ) -> Result<ReplyInfo, DropReason> {
        let mut relays = Relays::NONE;
        let message = relays.unwrap(inbound.payload)?;
        let mut request = Request::new(message);
        request.read(&self.duid)?;
        if !self.accept_unicast && relays.is_empty() && !inbound.destination.is_multicast() {
            return Err(DropReason::Unicast);
        }
        let link = relays.find_link(&self.links, inbound).ok_or(DropReason::NoLink)?;
        // Once, so that one message is answered by one set of rules.
        let rules = link.pair.as_ref().map(|policy| policy.load());
        admit(rules, &request)?;
        let Moment { now, service, recall } = *moment;
        if let Some(recall) = recall {
            warming::admit(request.message.msg_type)?;
            warming::recall_named(&self.table, link, &request, recall);
        }
        let mut exchange = Exchange {
            link,
            terms: Terms { mclt: rules.and_then(|rules| rules.mclt), ..link.terms },
            scope: match rules.map(|rules| rules.responsiveness) {
                _ if recall.is_some() => Scope::Warming,
                None => Scope::Alone,
                Some(Responsiveness::RenewRecorded) => Scope::Recorded,
                Some(_) => Scope::Pair,
            },
            table: &self.table,
            duid: request.client_id.unwrap_or_default(),
            now,
            service,
            updates: Noticed { sink: updates, any: false },
            offered: Bounded::EMPTY,
        };
        let mut reply = Reply::new(buffer, &relays, &request, &self.server_id_option);
        let msg_type = exchange.answer(&request, &mut reply)?;
        let (len, patches) = reply.finish()?;
        let held = exchange.updates.any;
        patches.apply(buffer, msg_type, link);
        Ok(ReplyInfo {
            len,
            destination_port: relays.destination_port(inbound.source_port),
            request: message.msg_type,
            reply: msg_type,
            held,
        })
    }
}

/// Which messages the failover state allows to answer (RFC 8156 section 8.1).
fn admit(rules: Option<PairRules>, request: &Request<'_>) -> Result<(), DropReason> {
    let standby = |answer: bool| if answer { Ok(()) } else { Err(DropReason::FailoverStandby) };
    match rules.map(|rules| rules.responsiveness) {
        None | Some(Responsiveness::Responsive) => Ok(()),
        Some(Responsiveness::RenewResponsive) => standby(request.names_server()),
        Some(Responsiveness::RenewRecorded) => {
            standby(request.message.msg_type == MessageType::RENEW)
        }
        Some(Responsiveness::Unresponsive) => Err(DropReason::FailoverUnresponsive),
    }
}

/// A sink that remembers whether anything was pushed.
struct Noticed<'s, S> {
    sink: &'s mut S,
    any: bool,
}

impl<S: UpdateSink> UpdateSink for Noticed<'_, S> {
    fn push(&mut self, binding: &Binding, stamp: u64) {
        self.any = true;
        self.sink.push(binding, stamp);
    }
}

impl<S: UpdateSink> Exchange<'_, S> {
    /// Writes what follows the identifiers; the type of the answer.
    fn answer(
        &mut self,
        request: &Request<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<MessageType, DropReason> {
        match request.message.msg_type {
            MessageType::SOLICIT => return self.solicit(request, reply),
            MessageType::REQUEST => {
                self.serve_all(request, Purpose::Request, reply)?;
                reply.link_options(self.link, request);
            }
            MessageType::RENEW => {
                self.serve_all(request, Purpose::Renew, reply)?;
                reply.link_options(self.link, request);
            }
            MessageType::REBIND => {
                // Section 18.3.5: no reply that tells the client nothing. Where the client is not
                // known at all, the server that gave it its leases may still hear it.
                if self.serve_all(request, Purpose::Rebind, reply)? == Told::Unknown {
                    return Err(DropReason::RebindUnknown);
                }
                reply.link_options(self.link, request);
            }
            MessageType::CONFIRM => self.confirm(request, reply)?,
            MessageType::RELEASE => self.give_back(request, reply, Self::release)?,
            MessageType::DECLINE => self.give_back(request, reply, Self::decline)?,
            MessageType::INFORMATION_REQUEST => reply.link_options(self.link, request),
            _ => return Err(DropReason::UnknownMessageType),
        }
        Ok(MessageType::REPLY)
    }

    /// Sections 18.3.1 and 18.3.9.
    fn solicit(
        &mut self,
        request: &Request<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<MessageType, DropReason> {
        // Nothing can be committed while nothing can be stored.
        let rapid = request.rapid_commit && self.link.rapid_commit && self.service == Service::Full;
        let purpose = if rapid { Purpose::RapidCommit } else { Purpose::Advertise };
        let told = self.serve_all(request, purpose, reply)?;
        // Where nothing was committed, an ADVERTISE says so and leaves the client free to turn to
        // another server.
        if rapid && (told == Told::Leases || request.ias().is_empty()) {
            reply.option(OptionCode::RAPID_COMMIT, &[]);
            reply.link_options(self.link, request);
            return Ok(MessageType::REPLY);
        }
        if self.link.preference > 0 {
            reply.option(OptionCode::PREFERENCE, &[self.link.preference]);
        }
        reply.link_options(self.link, request);
        Ok(MessageType::ADVERTISE)
    }

    /// Answers all IAs; the most that any of them was told.
    fn serve_all(
        &mut self,
        request: &Request<'_>,
        purpose: Purpose,
        reply: &mut Reply<'_>,
    ) -> Result<Told, DropReason> {
        let mut most = Told::Unknown;
        for ia in request.ias() {
            most = match (most, self.serve(ia, purpose, reply)) {
                (Told::Leases, _) | (_, Told::Leases) => Told::Leases,
                (Told::NoLeases, _) | (_, Told::NoLeases) => Told::NoLeases,
                (Told::Unknown, Told::Unknown) => Told::Unknown,
            };
        }
        if self.scope.extends_only() && most != Told::Leases {
            let warming = self.scope == Scope::Warming;
            return Err(if warming { DropReason::Warming } else { DropReason::FailoverStandby });
        }
        if self.service == Service::ReadOnly && most != Told::Leases && !request.ias().is_empty() {
            return Err(DropReason::StoreReadOnly);
        }
        Ok(most)
    }

    /// Section 18.3.3.
    fn confirm(&self, request: &Request<'_>, reply: &mut Reply<'_>) -> Result<(), DropReason> {
        let addresses = request
            .ias()
            .iter()
            .flat_map(IaRequest::leases)
            .filter(|named| named.is_address && named.is_specified());
        let mut verdict = Err(DropReason::NothingToConfirm);
        for named in addresses {
            let lease = named.lease;
            let on_link = self.link.is_on_link(lease.address);
            // An address of a pool belongs to the link, whatever the prefixes say.
            match on_link {
                _ if self.link.pool_of(self.table, lease, IaKind::Na).is_some() => {
                    verdict = Ok(());
                }
                Some(true) => verdict = Ok(()),
                Some(false) => {
                    reply.status(
                        StatusCode::NOT_ON_LINK,
                        "an address is not appropriate for this link",
                    );
                    return Ok(());
                }
                None => return Err(DropReason::NothingToConfirm),
            }
        }
        verdict?;
        reply.status(StatusCode::SUCCESS, "all addresses are appropriate for this link");
        Ok(())
    }

    /// Sections 18.3.7 and 18.3.8: RELEASE and DECLINE differ in what is done with a lease.
    fn give_back(
        &mut self,
        request: &Request<'_>,
        reply: &mut Reply<'_>,
        change: fn(&mut Self, &IaRequest<'_>, &mut ClientGuard<'_>),
    ) -> Result<(), DropReason> {
        if self.service == Service::ReadOnly {
            return Err(DropReason::StoreReadOnly);
        }
        reply.status(StatusCode::SUCCESS, "");
        for ia in request.ias() {
            let mut guard = self.table.lock(self.key(ia));
            if guard.bindings().any(|binding| binding.status == BindingStatus::Active) {
                change(self, ia, &mut guard);
            } else {
                reply.ia_status(ia.kind, ia.iaid, NO_BINDING);
            }
        }
        Ok(())
    }

    /// Leases that are not the client's are passed over.
    fn release(&mut self, ia: &IaRequest<'_>, guard: &mut ClientGuard<'_>) {
        for named in ia.leases() {
            guard.release(named.lease, self.now, &mut self.updates);
        }
    }

    /// Only addresses can be declined (section 18.2.8).
    fn decline(&mut self, ia: &IaRequest<'_>, guard: &mut ClientGuard<'_>) {
        let until = self.now.plus(self.link.decline_hold_secs);
        for named in ia.leases().filter(|named| named.is_address) {
            guard.decline(named.lease, until, self.now, &mut self.updates);
        }
    }
}
