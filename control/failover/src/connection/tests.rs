use std::{mem, sync::Arc};

use ServerState as Is;
use gemel_lease::{LeaseTable, PairPolicy, PoolSet, TableConfig, UpdateBatch};
use gemel_wire::{
    Emitter, OptionCode,
    failover::{FrameSplitter, Header, StartTls},
};

use proptest::prelude::*;

use super::*;
use crate::{Command, Endpoint, Env, Output, StoredState, testing::secs};

const MCLT: u32 = 600;
const ID: TransactionId = TransactionId([9, 9, 9]);

/// One endpoint, and a partner of which every message is written by hand.
struct Solo {
    endpoint: Endpoint,
    config: Config,
    table: LeaseTable,
    updates: UpdateBatch,
    now: Now,
    frames: Vec<Vec<u8>>,
    outputs: Vec<Output>,
}

impl Solo {
    fn new(role: Role) -> Self {
        let now = Now { wall: AbsoluteTime(50_000), monotonic: secs(100) };
        let config = Config::new("pair", role, MCLT);
        let stored = StoredState {
            state: Is::CommunicationsInterrupted,
            previous: None,
            since: AbsoluteTime(40_000),
            partner: None,
            last_message: None,
            last_operation: AbsoluteTime(49_000),
            mclt: MCLT,
            former_mclt: None,
            history: crate::PairHistory::Run,
            memory_lost: false,
        };
        let policy = Arc::new(PairPolicy::new());
        let endpoint = Endpoint::new(config.clone(), Vec::new(), policy, Some(stored), now);
        let table_config = TableConfig { client_stripes: 1, ..TableConfig::default() };
        let table = LeaseTable::new(&table_config, PoolSet::new(Vec::new()).unwrap());
        let (updates, frames, outputs) = (UpdateBatch::default(), Vec::new(), Vec::new());
        Self { endpoint, config, table, updates, now, frames, outputs }
    }

    /// Does something and collects what comes of it; the disk is fast.
    fn act(&mut self, act: impl FnOnce(&mut Endpoint, &mut Env<'_>)) {
        let (now, table, updates) = (self.now, &self.table, &mut self.updates);
        let mut env = Env { table, now, stored_before: u64::MAX, updates, sequence: 1 };
        act(&mut self.endpoint, &mut env);
        self.endpoint.poll(&mut env);
        while let Some(output) = self.endpoint.output() {
            if matches!(output, Output::Persist(_)) {
                self.endpoint.persisted(&mut env);
                self.endpoint.poll(&mut env);
            }
            self.outputs.push(output);
        }
        let octets = mem::take(self.endpoint.outgoing());
        let (mut splitter, mut input) = (FrameSplitter::new(vec![0; 65_535]), &octets[..]);
        while let Some(frame) = splitter.next_frame(&mut input).unwrap() {
            self.frames.push(frame.to_vec());
        }
    }

    fn receive(&mut self, emit: impl FnOnce(Header, &mut Emitter<'_>)) {
        self.receive_from(0, ID, emit);
    }

    /// A message from a partner whose clock is `ahead_secs` ahead.
    fn receive_from(
        &mut self,
        ahead_secs: i32,
        transaction_id: TransactionId,
        emit: impl FnOnce(Header, &mut Emitter<'_>),
    ) {
        let sent_time = FailoverTime(self.now.wall.0.wrapping_add_signed(ahead_secs));
        let mut buffer = vec![0; 70_000];
        let mut out = Emitter::new(&mut buffer);
        emit(Header { transaction_id, sent_time }, &mut out);
        let len = out.finish().unwrap();
        self.receive_octets(&buffer[2..len]);
    }

    fn receive_octets(&mut self, frame: &[u8]) {
        self.act(|endpoint, env| endpoint.received(frame, env));
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now.monotonic + time;
        while let Some(next) = self.endpoint.next_timeout().filter(|next| *next <= end) {
            let secs = next.as_secs() - self.now.monotonic.as_secs();
            self.now.wall = self.now.wall.plus(u32::try_from(secs).unwrap());
            self.now.monotonic = next;
            self.act(Endpoint::timeout);
        }
        let secs = end.as_secs() - self.now.monotonic.as_secs();
        self.now.wall = self.now.wall.plus(u32::try_from(secs).unwrap());
        self.now.monotonic = end;
    }

    /// Types of the messages sent since the last call.
    fn sent(&mut self) -> Vec<MessageType> {
        mem::take(&mut self.frames).iter().map(|frame| MessageType(frame[0])).collect()
    }

    /// Why the connection was closed, and whether it was refused.
    fn closed(&self) -> Option<(&str, bool)> {
        self.outputs.iter().find_map(|output| match output {
            Output::Close { reason, refused } => Some((reason.as_str(), *refused)),
            _ => None,
        })
    }

    fn theirs(&self) -> ConnectParameters {
        ConnectParameters { keepalive_secs: 60, ..parameters(&self.config, MCLT) }
    }

    /// Brings the connection to a stage.
    fn at(role: Role, stage: At) -> Self {
        let mut solo = Self::new(role);
        solo.act(Endpoint::connected);
        if stage >= At::State {
            let parameters = solo.theirs();
            match role {
                Role::Primary => {
                    let id = FailoverMessage::parse(&solo.frames[0]).unwrap().header.transaction_id;
                    let reply = ConnectReply::Accepted(parameters);
                    solo.receive_from(0, id, |header, out| reply.emit(header, out));
                }
                Role::Secondary => {
                    let connect = Connect { parameters, relationship_name: None };
                    solo.receive(|header, out| connect.emit(header, out));
                }
            }
        }
        if stage == At::Open {
            solo.receive(|header, out| state(Is::CommunicationsInterrupted).emit(header, out));
            assert_eq!(solo.status().state, Is::Normal);
        }
        assert_eq!(solo.closed(), None);
        solo.frames.clear();
        solo.outputs.clear();
        solo
    }

    fn status(&self) -> crate::Status {
        self.endpoint.status(self.now)
    }
}

/// What the endpoint waits for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum At {
    Handshake,
    State,
    Open,
}

fn state(state: ServerState) -> StateMsg {
    StateMsg {
        server_state: gemel_wire::failover::ServerState(state as u8),
        server_flags: ServerFlags::COMMUNICATED,
        start_time_of_state: FailoverTime(49_500),
        partner_down_time: (state == Is::PartnerDown).then_some(FailoverTime(49_500)),
    }
}

/// The frame of a message of each type, as complete as it has to be.
fn any_message(solo: &Solo, msg_type: MessageType, header: Header, out: &mut Emitter<'_>) {
    let parameters = solo.theirs();
    match msg_type {
        MessageType::CONNECT => {
            Connect { parameters, relationship_name: None }.emit(header, out);
        }
        MessageType::CONNECTREPLY => ConnectReply::Accepted(parameters).emit(header, out),
        MessageType::STATE => state(Is::CommunicationsInterrupted).emit(header, out),
        _ => header.emit_bare(msg_type, out),
    }
}

#[test]
fn every_message_at_every_stage() {
    let types = (MessageType::BNDUPD.0..=MessageType::CONTACT.0).map(MessageType);
    for msg_type in types {
        for role in [Role::Primary, Role::Secondary] {
            for stage in [At::Handshake, At::State, At::Open] {
                let mut solo = Solo::at(role, stage);
                let mut buffer = vec![0; 1000];
                let mut out = Emitter::new(&mut buffer);
                let sent_time = FailoverTime(solo.now.wall.0);
                any_message(&solo, msg_type, Header { transaction_id: ID, sent_time }, &mut out);
                let len = out.finish().unwrap();
                solo.receive_octets(&buffer[2..len]);
                let fine = match (stage, msg_type) {
                    (At::Handshake, MessageType::CONNECT) => role == Role::Secondary,
                    // It has the wrong id.
                    (At::Handshake, _) => false,
                    (At::State, MessageType::STATE | MessageType::CONTACT) => true,
                    (At::State, _) => false,
                    // An empty one breaks the rules, or is looked at by the flow of updates.
                    (At::Open, MessageType::BNDUPD | MessageType::BNDREPLY) => continue,
                    (At::Open, MessageType::POOLREQ) => role == Role::Primary,
                    (At::Open, MessageType::POOLRESP) => role == Role::Secondary,
                    (
                        At::Open,
                        MessageType::CONNECT | MessageType::CONNECTREPLY | MessageType::DISCONNECT,
                    ) => false,
                    (At::Open, _) => true,
                };
                let place = format!("{role:?} {stage:?} {msg_type}: {:?}", solo.closed());
                assert_eq!(solo.closed().is_none(), fine, "{place}");
                if fine {
                    continue;
                }
                let (_, refused) = solo.closed().unwrap();
                assert!(refused, "{place}");
                assert!(!solo.status().communications_ok && !solo.status().connected, "{place}");
                let state = solo.status().state;
                let expected =
                    if stage == At::Open { Is::CommunicationsInterrupted } else { Is::Startup };
                assert_eq!(state, expected, "{place}");
                // The partner hears why, unless it was the one who said so.
                let goodbye = solo.sent().contains(&MessageType::DISCONNECT);
                assert_eq!(goodbye, msg_type != MessageType::DISCONNECT, "{place}");
                // What still comes is not looked at.
                let outputs = solo.outputs.len();
                solo.receive(|header, out| header.emit_bare(MessageType::UPDREQ, out));
                assert_eq!((solo.outputs.len(), solo.sent()), (outputs, Vec::new()), "{place}");
            }
        }
    }
}

#[test]
fn garbage() {
    for stage in [At::Handshake, At::State, At::Open] {
        for octets in [
            &[][..],
            &[35],
            &[35, 0, 0, 1, 0, 0, 0],
            &[36, 0, 0, 1, 0, 0, 0, 0],
            // An option that is cut off.
            &[35, 0, 0, 1, 0, 0, 0xc3, 0x50, 0, 13, 0, 4, 0],
            &[1, 0, 0, 1],
        ] {
            let mut solo = Solo::at(Role::Secondary, stage);
            solo.receive_octets(octets);
            assert!(matches!(solo.closed(), Some((_, true))), "{octets:?}");
            assert_eq!(solo.sent(), [MessageType::DISCONNECT]);
        }
        let mut solo = Solo::at(Role::Secondary, stage);
        solo.receive(|header, out| StartTls::Request(header.transaction_id).emit(out));
        assert!(solo.closed().unwrap().0.contains("STARTTLS"));
    }
}

#[test]
fn states_that_are_never_sent() {
    for number in [0, 1, 11, 255] {
        let mut solo = Solo::at(Role::Primary, At::State);
        let server_state = gemel_wire::failover::ServerState(number);
        let message = StateMsg { server_state, ..state(Is::Normal) };
        solo.receive(|header, out| message.emit(header, out));
        assert!(solo.closed().unwrap().0.starts_with("STATE with state"), "{number}");
    }
}

#[test]
fn connect_as_in_the_rfc() {
    let mut solo = Solo::new(Role::Primary);
    solo.act(Endpoint::connected);
    let frame = solo.frames[0].clone();
    let message = FailoverMessage::parse(&frame).unwrap();
    let connect = Connect::parse(&message).unwrap();
    assert_eq!(connect.relationship_name.unwrap().as_str(), "pair");
    let ConnectParameters { protocol_version, mclt, keepalive_secs, .. } = connect.parameters;
    assert_eq!((protocol_version, mclt), (ProtocolVersion::RFC8156, Mclt(MCLT)));
    assert_eq!(keepalive_secs, 3);
    assert!(connect.parameters.connect_flags.contains(ConnectFlags::FIXED_PD_LENGTH));

    // The secondary answers with the same id and MCLT, and says its state at once.
    let mut solo = Solo::at(Role::Secondary, At::Handshake);
    let parameters = ConnectParameters { mclt: Mclt(777), ..solo.theirs() };
    let connect = Connect { parameters, relationship_name: None };
    solo.receive(|header, out| connect.emit(header, out));
    let reply = FailoverMessage::parse(&solo.frames[0]).unwrap();
    assert_eq!(reply.header.transaction_id, ID);
    let ConnectReply::Accepted(parameters) = ConnectReply::parse(&reply).unwrap() else {
        panic!("rejected")
    };
    assert_eq!(parameters.mclt, Mclt(777));
    let message = FailoverMessage::parse(&solo.frames[1]).unwrap();
    let told = StateMsg::parse(&message).unwrap();
    assert_eq!(told.server_state, gemel_wire::failover::ServerState::COMMUNICATIONS_INTERRUPTED);
    assert_eq!(told.start_time_of_state, FailoverTime(40_000));
    assert_eq!(told.server_flags, ServerFlags::STARTUP.with(ServerFlags::COMMUNICATED));
    assert_eq!(solo.status().mclt, 777);
    assert!(solo.outputs.iter().any(|it| matches!(it, Output::Persist(it) if it.mclt == 777)));
}

#[test]
fn connect_that_is_rejected() {
    let good = Solo::new(Role::Secondary).theirs();
    let name = RelationshipName::new("other").ok();
    for (connect, code) in [
        (
            Connect {
                parameters: ConnectParameters {
                    protocol_version: ProtocolVersion { major: 2, minor: 0 },
                    ..good
                },
                relationship_name: None,
            },
            StatusCode::NOT_SUPPORTED,
        ),
        (
            Connect {
                parameters: ConnectParameters { mclt: Mclt(0), ..good },
                relationship_name: None,
            },
            StatusCode::CONFIGURATION_CONFLICT,
        ),
        (Connect { parameters: good, relationship_name: name }, StatusCode::CONFIGURATION_CONFLICT),
    ] {
        let mut solo = Solo::at(Role::Secondary, At::Handshake);
        solo.receive(|header, out| connect.emit(header, out));
        let reply = FailoverMessage::parse(&solo.frames[0]).unwrap();
        let ConnectReply::Rejected(status) = ConnectReply::parse(&reply).unwrap() else {
            panic!("accepted: {connect:?}")
        };
        assert_eq!((status.code, solo.frames.len()), (code, 1));
        assert!(solo.closed().unwrap().1);
    }
    // A newer minor version and either value of the flag are no reason.
    for (minor, connect_flags) in [(7, ConnectFlags::NONE), (0, ConnectFlags::FIXED_PD_LENGTH)] {
        let protocol_version = ProtocolVersion { major: 1, minor };
        let parameters = ConnectParameters { protocol_version, connect_flags, ..good };
        let connect = Connect { parameters, relationship_name: RelationshipName::new("pair").ok() };
        let mut solo = Solo::at(Role::Secondary, At::Handshake);
        solo.receive(|header, out| connect.emit(header, out));
        assert_eq!(solo.closed(), None);
    }
}

#[test]
fn connectreply_that_does_not_do() {
    let good = Solo::new(Role::Primary).theirs();
    let version = ProtocolVersion { major: 2, minor: 0 };
    let refused = Status { code: StatusCode::NOT_SUPPORTED, message: b"no\n" };
    for (reply, id, goodbye, reason) in [
        (
            ConnectReply::Accepted(ConnectParameters { mclt: Mclt(601), ..good }),
            None,
            true,
            "the partner uses an MCLT of 601 s instead of 600 s",
        ),
        (
            ConnectReply::Accepted(ConnectParameters { protocol_version: version, ..good }),
            None,
            true,
            "protocol version 2.0 is not supported",
        ),
        (
            ConnectReply::Rejected(refused),
            None,
            false,
            r"the partner rejects CONNECT: NotSupported: no\n",
        ),
        (ConnectReply::Accepted(good), Some(ID), true, "CONNECTREPLY to another CONNECT"),
    ] {
        let mut solo = Solo::new(Role::Primary);
        solo.act(Endpoint::connected);
        let connect = FailoverMessage::parse(&solo.frames[0]).unwrap();
        let id = id.unwrap_or(connect.header.transaction_id);
        solo.frames.clear();
        solo.receive_from(0, id, |header, out| reply.emit(header, out));
        assert_eq!(solo.closed(), Some((reason, true)));
        let sent: &[_] = if goodbye { &[MessageType::DISCONNECT] } else { &[] };
        assert_eq!(solo.sent(), sent, "{reason}");
    }
}

#[test]
fn skew_at_every_stage() {
    for stage in [At::Handshake, At::State, At::Open] {
        for ahead_secs in [6, -6, i32::MIN] {
            let mut solo = Solo::at(Role::Secondary, stage);
            let connect = Connect { parameters: solo.theirs(), relationship_name: None };
            solo.receive_from(ahead_secs, ID, |header, out| match stage {
                At::Handshake => connect.emit(header, out),
                At::State | At::Open => header.emit_bare(MessageType::CONTACT, out),
            });
            assert!(solo.closed().unwrap().0.starts_with("the clocks are"), "{:?}", solo.closed());
            let alarm = solo.outputs.iter().any(|it| matches!(it, Output::Alarm(_)));
            assert!(alarm);
            assert_eq!(solo.status().skew_secs, Some(ahead_secs));
            let answer = match stage {
                At::Handshake => MessageType::CONNECTREPLY,
                At::State | At::Open => MessageType::DISCONNECT,
            };
            let frame = solo.frames[0].clone();
            assert_eq!(solo.sent(), [answer]);
            let message = FailoverMessage::parse(&frame).unwrap();
            assert_eq!(Status::of(&message.options), StatusCode::EXCESSIVE_TIME_SKEW);
        }
        let mut solo = Solo::at(Role::Secondary, stage);
        solo.receive_from(-9, ID, |header, out| Disconnect { status: None }.emit(header, out));
        assert_eq!(solo.closed().unwrap().0, "the partner disconnects: no reason given");
    }
}

/// Section 6.6: our partner wants to hear something every 60 seconds, we every 3.
#[test]
fn keepalive_both_ways() {
    let mut solo = Solo::at(Role::Primary, At::Open);
    for _ in 0..60 {
        solo.wait(secs(2));
        solo.receive(|header, out| header.emit_bare(MessageType::CONTACT, out));
    }
    assert_eq!(solo.closed(), None);
    let contacts = solo.sent();
    assert_eq!(contacts, vec![MessageType::CONTACT; 120 / 15]);
    solo.wait(secs(3));
    assert_eq!(solo.closed(), Some(("nothing was heard for 3 s", false)));
    assert_eq!(solo.status().state, Is::CommunicationsInterrupted);

    // So it is with a partner that does not even begin.
    for (role, stage) in [(Role::Primary, At::Handshake), (Role::Secondary, At::State)] {
        let mut solo = Solo::at(role, stage);
        solo.wait(secs(3));
        assert_eq!(solo.closed(), Some(("nothing was heard for 3 s", false)));
    }
}

#[test]
fn a_request_without_progress() {
    let mut solo = Solo::at(Role::Primary, At::Open);
    solo.act(|endpoint, env| endpoint.command(Command::Resync, env).unwrap());
    assert_eq!(solo.sent(), [MessageType::UPDREQALL]);
    assert!(solo.status().updates_requested);
    let repeated = |endpoint: &mut Endpoint, env: &mut Env<'_>| {
        assert!(endpoint.command(Command::Resync, env).is_err());
    };
    solo.act(repeated);
    // An UPDDONE to something else is none.
    solo.receive(|header, out| header.emit_bare(MessageType::UPDDONE, out));
    assert!(solo.status().updates_requested);
    for _ in 0..14 {
        solo.wait(secs(2));
        solo.receive(|header, out| header.emit_bare(MessageType::CONTACT, out));
    }
    assert_eq!(solo.closed(), None);
    solo.wait(secs(2));
    assert_eq!(solo.closed(), Some(("the update request is not answered", false)));
}

/// In NORMAL an answer to UPDREQALL ends it and changes nothing else.
#[test]
fn resync_is_answered() {
    let mut solo = Solo::at(Role::Primary, At::Open);
    solo.act(|endpoint, env| endpoint.command(Command::Resync, env).unwrap());
    let id = FailoverMessage::parse(&solo.frames[0]).unwrap().header.transaction_id;
    solo.receive_from(0, id, |header, out| header.emit_bare(MessageType::UPDDONE, out));
    assert!(!solo.status().updates_requested);
    assert_eq!((solo.closed(), solo.status().state), (None, Is::Normal));
}

#[test]
fn acknowledges_the_partners_startup() {
    let mut solo = Solo::at(Role::Secondary, At::State);
    let flags = ServerFlags::STARTUP;
    let message = StateMsg { server_flags: flags, ..state(Is::CommunicationsInterrupted) };
    solo.receive(|header, out| message.emit(header, out));
    let told = FailoverMessage::parse(&solo.frames[0]).unwrap();
    let told = StateMsg::parse(&told).unwrap();
    let expected = ServerFlags::ACK_STARTUP.with(ServerFlags::COMMUNICATED);
    assert_eq!(told.server_flags, expected);
    // It waits with NORMAL until the partner has said what it becomes.
    assert_eq!(solo.status().state, Is::CommunicationsInterrupted);
    assert!(solo.status().communications_ok);
    solo.receive(|header, out| state(Is::CommunicationsInterrupted).emit(header, out));
    assert_eq!(solo.status().state, Is::Normal);
}

/// Options as they might come, some of them of the right length.
fn options() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    let data = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (0_u8..12).prop_map(|octet| vec![octet]),
        any::<u16>().prop_map(|it| it.to_be_bytes().to_vec()),
        prop_oneof![0_u32..700, 49_990_u32..50_010, any::<u32>()]
            .prop_map(|it| it.to_be_bytes().to_vec()),
    ];
    prop::collection::vec((prop_oneof![112_u16..137, 1_u16..50], data), 0..8)
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Primary), Just(Role::Secondary)]
}

fn stage() -> impl Strategy<Value = At> {
    prop_oneof![Just(At::Handshake), Just(At::State), Just(At::Open)]
}

proptest! {
    /// Whatever comes in, the endpoint goes on or closes the connection, and a new one works.
    #[test]
    fn anything_may_come(
        role in role(),
        stage in stage(),
        messages in prop::collection::vec((20_u8..40, options()), 1..12),
    ) {
        let mut solo = Solo::at(role, stage);
        for (msg_type, options) in messages {
            solo.receive(|header, out| {
                header.emit(MessageType(msg_type), out, |out| {
                    options.iter().for_each(|(code, data)| out.option(OptionCode(*code), data));
                });
            });
            let crate::Status { connected, communications_ok, .. } = solo.status();
            prop_assert_eq!(connected, solo.closed().is_none());
            prop_assert!(connected || !communications_ok);
        }
        if solo.closed().is_some() {
            solo.act(Endpoint::disconnected);
            prop_assert!(solo.endpoint.wants_connection());
        }
        solo.act(Endpoint::connected);
        prop_assert!(solo.status().connected);
    }
}
