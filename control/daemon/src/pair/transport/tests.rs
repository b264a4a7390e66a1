//! Real sockets on loopback, real certificates.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    path::Path,
};

use crossbeam::channel::Receiver;
use gemel_wire::{
    Emitter, MessageType, OptionCode, StatusCode, TransactionId,
    failover::{
        Connect, ConnectFlags, ConnectParameters, ConnectReply, FailoverTime, Header, Mclt,
        ProtocolVersion, RelationshipName, StartTls, TcpMessage,
    },
};
use rcgen::{Issuer, KeyPair};
use tempfile::TempDir;

use super::*;
use crate::{ca, config::FailoverTls};

/// More than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(400);

/// A folder with an authority and certificates for `one` and `two`.
fn authority() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    ca::init(folder.path()).unwrap();
    for name in ["one", "two"] {
        ca::issue(folder.path(), name, 100).unwrap();
    }
    folder
}

fn tls(folder: &Path, own: &str, partner: &str) -> Option<Arc<Tls>> {
    let file = |name: &str| folder.join(name);
    let files = FailoverTls {
        ca: file("ca.pem"),
        certificate: file(&format!("{own}.pem")),
        key: file(&format!("{own}.key")),
        partner_name: partner.to_owned(),
    };
    Some(Arc::new(Tls::open(&files).unwrap()))
}

fn peer(role: Role, port: u16, tls: Option<Arc<Tls>>) -> Peer {
    Peer {
        name: "pair".to_owned(),
        role,
        partner: "127.0.0.1".parse().unwrap(),
        port,
        local: Some("127.0.0.1".parse().unwrap()),
        keepalive: Duration::from_secs(3),
        tls,
    }
}

/// A transport and what it tells.
struct Side {
    transport: Transport,
    events: mpsc::Receiver<Event>,
    heard: Receiver<()>,
}

impl Side {
    fn new(peers: Vec<Peer>, handshake_time: Duration) -> Self {
        let (bell, heard) = Bell::new();
        let (transport, events) = Transport::start_with(peers, bell, handshake_time).unwrap();
        Self { transport, events, heard }
    }

    fn secondary(tls: Option<Arc<Tls>>) -> Self {
        Self::new(vec![peer(Role::Secondary, 0, tls)], PATIENCE)
    }

    fn primary(secondary: &Self, tls: Option<Arc<Tls>>) -> Self {
        Self::new(vec![peer(Role::Primary, secondary.port(), tls)], PATIENCE)
    }

    /// The port that the kernel has chosen.
    fn port(&self) -> u16 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let listening = self.transport.listening().lock()[0].clone();
            if listening.error.is_none() {
                return listening.address.port();
            }
            assert!(Instant::now() < deadline, "{listening:?}");
            std::thread::yield_now();
        }
    }

    fn next(&mut self) -> Event {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(event) = self.events.try_recv() {
                return event;
            }
            self.heard.recv_deadline(deadline).expect("an event in time");
        }
    }

    fn connected(&mut self) -> Connection {
        match self.next() {
            Event::Connected { connection, .. } => connection,
            other => panic!("{other:?}"),
        }
    }

    fn received(&mut self) -> Frames {
        match self.next() {
            Event::Received { frames, .. } => frames,
            other => panic!("{other:?}"),
        }
    }

    fn closed(&mut self) -> (String, bool) {
        match self.next() {
            Event::Closed { reason, refused, .. } => (reason, refused),
            other => panic!("{other:?}"),
        }
    }

    fn dial_failed(&mut self) -> (String, bool) {
        self.transport.dial(0);
        match self.next() {
            Event::DialFailed { reason, refused, .. } => (reason, refused),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until so many connections have been refused for the reason.
    fn refused(&self, refusal: Refusal, count: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.transport.refusals().count(refusal) < count {
            assert!(Instant::now() < deadline, "{refusal:?}");
            std::thread::yield_now();
        }
        assert_eq!(self.transport.refusals().count(refusal), count);
        let others: u64 =
            Refusal::ALL.iter().map(|refusal| self.transport.refusals().count(*refusal)).sum();
        assert_eq!(others, count, "{:?}", self.transport.refusals());
    }
}

fn message(emit: impl FnOnce(&mut Emitter<'_>)) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    let mut out = Emitter::new(&mut buffer);
    emit(&mut out);
    let len = out.finish().unwrap();
    buffer.truncate(len);
    buffer
}

fn connect(name: Option<&str>) -> Vec<u8> {
    let parameters = ConnectParameters {
        protocol_version: ProtocolVersion::RFC8156,
        mclt: Mclt(3600),
        keepalive_secs: 3,
        max_unacked_bndupd: 10,
        connect_flags: ConnectFlags::FIXED_PD_LENGTH,
    };
    let relationship_name = name.map(|name| RelationshipName::new(name).unwrap());
    let connect = Connect { parameters, relationship_name };
    message(|out| connect.emit(header(1), out))
}

fn header(id: u8) -> Header {
    Header { transaction_id: TransactionId([0, 0, id]), sent_time: FailoverTime(0) }
}

/// Connects both; gives the ends.
fn joined(primary: &mut Side, secondary: &mut Side) -> (Connection, Connection) {
    primary.transport.dial(0);
    let one = primary.connected();
    one.send(connect(Some("pair")));
    let two = secondary.connected();
    let frames = secondary.received();
    let first = frames.iter().next().unwrap().to_vec();
    let TcpMessage::Failover(first) = TcpMessage::parse(&first).unwrap() else { panic!() };
    assert_eq!(first.msg_type, MessageType::CONNECT);
    // Stamped when it left.
    let age = i64::from(gemel_worker::wall_clock().0) - i64::from(first.header.sent_time.0);
    assert!((0..=20).contains(&age), "{age}");
    (one, two)
}

/// A client of its own, for what no transport does.
fn raw(secondary: &Side) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", secondary.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Everything until the other side closes. A reset ends it, too.
fn rest_of(mut stream: TcpStream) -> Vec<u8> {
    let mut octets = Vec::new();
    match stream.read_to_end(&mut octets) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    octets
}

fn rejection(octets: &[u8]) -> StatusCode {
    let TcpMessage::Failover(reply) = TcpMessage::parse(&octets[2..]).unwrap() else { panic!() };
    match ConnectReply::parse(&reply).unwrap() {
        ConnectReply::Rejected(status) => status.code,
        ConnectReply::Accepted(_) => panic!("accepted"),
    }
}

#[test]
fn messages_pass_both_ways() {
    let folder = authority();
    let with_tls = (tls(folder.path(), "one", "two"), tls(folder.path(), "two", "one"));
    for (one, two) in [(None, None), with_tls] {
        let is_tls = one.is_some();
        let mut secondary = Side::secondary(two);
        let mut primary = Side::primary(&secondary, one);
        let (one, two) = joined(&mut primary, &mut secondary);
        for connection in [&one, &two] {
            let name =
                if connection.id == one.id && connection.peer == one.peer { "two" } else { "one" };
            assert_eq!(connection.tls.is_some(), is_tls);
            if let Some(certificate) = &connection.tls {
                assert_eq!(certificate.name, name);
                let left =
                    certificate.expires - crate::status::unix_secs(std::time::SystemTime::now());
                assert!((99 * 86_400..=100 * 86_400).contains(&left));
            }
        }
        two.send(message(|out| header(7).emit_bare(MessageType::CONTACT, out)));
        let frames = primary.received();
        assert_eq!(frames.iter().next().unwrap()[..4], [35, 0, 0, 7]);

        // What was handed over before the end still arrives, and then both hear of the end.
        let body = vec![9; 60_000];
        for id in 0..20 {
            one.send(message(|out| {
                header(id).emit(MessageType::BNDUPD, out, |out| {
                    let mark = out.begin(OptionCode::VENDOR_OPTS);
                    out.bytes(&body);
                    out.end(mark);
                });
            }));
        }
        drop(one);
        let mut ids = Vec::new();
        let reason = loop {
            match secondary.next() {
                Event::Received { frames, .. } => ids.extend(frames.iter().map(|frame| frame[3])),
                Event::Closed { reason, refused, .. } => {
                    assert!(!refused);
                    break reason;
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(ids, (0..20).collect::<Vec<_>>());
        assert!(reason.contains("closed"), "{reason}");
        drop(two);
        assert_eq!(primary.closed(), ("closed by this server".to_owned(), false));
    }
}

#[test]
fn a_slow_reader_makes_the_sender_wait() {
    let mut secondary = Side::secondary(None);
    let mut primary = Side::primary(&secondary, None);
    let (one, _two) = joined(&mut primary, &mut secondary);
    let contact = message(|out| header(1).emit_bare(MessageType::CONTACT, out));
    let chunk = contact.repeat(10_000);
    // Nobody takes the events; the kernel's buffers are finite.
    let mut sent = 0;
    let deadline = Instant::now() + PATIENCE;
    let mut full_since = None;
    while full_since.is_none_or(|since: Instant| since.elapsed() < SHORT) {
        assert!(Instant::now() < deadline, "{sent} were taken");
        if one.has_room() {
            one.send(chunk.clone());
            sent += 10_000;
            full_since = None;
        } else {
            full_since.get_or_insert_with(Instant::now);
            let _ = primary.heard.recv_timeout(SHORT);
        }
    }
    let mut arrived = 0;
    while arrived < sent {
        arrived += secondary.received().len();
    }
    assert_eq!(arrived, sent);
    assert!(one.has_room());
}

#[test]
fn another_name_is_refused() {
    let folder = authority();
    ca::issue(folder.path(), "three", 10).unwrap();
    // The secondary shows the certificate of somebody else.
    let mut secondary = Side::secondary(tls(folder.path(), "three", "one"));
    let mut primary = Side::primary(&secondary, tls(folder.path(), "one", "two"));
    let (reason, refused) = primary.dial_failed();
    assert!(refused && reason.contains("not valid for name \"two\""), "{reason}");
    secondary.refused(Refusal::Tls, 1);
    assert!(secondary.events.try_recv().is_err());

    // So does the primary, which TLS 1.3 lets believe for a moment that all is well.
    let mut secondary = Side::secondary(tls(folder.path(), "two", "one"));
    let mut primary = Side::primary(&secondary, tls(folder.path(), "three", "two"));
    primary.transport.dial(0);
    let _connection = primary.connected();
    let (reason, refused) = primary.closed();
    assert!(refused && reason.contains("does not accept this server's certificate"), "{reason}");
    secondary.refused(Refusal::Tls, 1);
    assert!(secondary.events.try_recv().is_err());
}

#[test]
fn another_authority_is_refused() {
    let (ours, theirs) = (authority(), authority());
    let mut secondary = Side::secondary(tls(theirs.path(), "two", "one"));
    let mut primary = Side::primary(&secondary, tls(ours.path(), "one", "two"));
    let (reason, refused) = primary.dial_failed();
    assert!(refused && reason.contains("invalid peer certificate"), "{reason}");
    secondary.refused(Refusal::Tls, 1);
    assert!(secondary.events.try_recv().is_err());
}

/// A certificate of the right name and authority that has ended, for `two`.
fn expire(folder: &Path, name: &str) {
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let issuer =
        Issuer::from_ca_cert_pem(&read("ca.pem"), KeyPair::from_pem(&read("ca.key")).unwrap());
    let mut params = ca::server_params(name, 1).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 2);
    let key = KeyPair::from_pem(&read(&format!("{name}.key"))).unwrap();
    let certificate = params.signed_by(&key, &issuer.unwrap()).unwrap();
    std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
}

#[test]
fn an_expired_certificate_is_refused_until_it_is_renewed() {
    let folder = authority();
    let good = std::fs::read(folder.path().join("two.pem")).unwrap();
    expire(folder.path(), "two");
    let expired = tls(folder.path(), "two", "one");
    let warning = expired.as_ref().unwrap().expiry_warning(std::time::SystemTime::now());
    assert!(warning.unwrap().contains("has expired"));
    let mut secondary = Side::secondary(expired);
    let mut primary = Side::primary(&secondary, tls(folder.path(), "one", "two"));
    let (reason, refused) = primary.dial_failed();
    assert!(refused && reason.contains("expired"), "{reason}");
    secondary.refused(Refusal::Tls, 1);
    // No restart is needed for the new one.
    std::fs::write(folder.path().join("two.pem"), good).unwrap();
    joined(&mut primary, &mut secondary);
}

#[test]
fn files_that_cannot_be_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = authority();
    let open = |change: &dyn Fn(&mut FailoverTls)| {
        let file = |name: &str| folder.path().join(name);
        let mut files = FailoverTls {
            ca: file("ca.pem"),
            certificate: file("one.pem"),
            key: file("one.key"),
            partner_name: "two".to_owned(),
        };
        change(&mut files);
        Tls::open(&files).map(drop).map_err(|error| format!("{error:#}"))
    };
    assert_eq!(open(&|_| ()), Ok(()));
    let missing = open(&|files| files.key = "/nowhere/one.key".into()).unwrap_err();
    assert!(missing.contains("cannot read /nowhere/one.key (failover.tls.key)"), "{missing}");
    let swapped = open(&|files| std::mem::swap(&mut files.certificate, &mut files.key));
    assert!(swapped.unwrap_err().contains("holds no certificate"));
    let other = open(&|files| files.key = folder.path().join("two.key")).unwrap_err();
    assert!(other.contains("does not fit"), "{other}");
    for (mode, good) in [(0o640, true), (0o604, false), (0o660, false), (0o600, true)] {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(folder.path().join("one.key"), permissions).unwrap();
        let result = open(&|_| ());
        assert_eq!(result.is_ok(), good, "{mode:o}: {result:?}");
        if let Err(error) = result {
            assert!(error.contains("chmod 600"), "{error}");
        }
    }
}

#[test]
fn plain_where_tls_is_required() {
    let folder = authority();
    let secondary = Side::secondary(tls(folder.path(), "two", "one"));
    let mut stream = raw(&secondary);
    stream.write_all(&connect(Some("pair"))).unwrap();
    assert_eq!(rejection(&rest_of(stream)), StatusCode::TLS_CONNECTION_REFUSED);
    secondary.refused(Refusal::TlsRequired, 1);
}

#[test]
fn tls_where_it_is_off() {
    let folder = authority();
    let secondary = Side::secondary(None);
    let mut primary = Side::primary(&secondary, tls(folder.path(), "one", "two"));
    let (reason, refused) = primary.dial_failed();
    assert!(refused && reason.contains("TLSConnectionRefused"), "{reason}");
    secondary.refused(Refusal::TlsOff, 1);
    let mut stream = raw(&secondary);
    let id = TransactionId([1, 2, 3]);
    stream.write_all(&message(|out| StartTls::Request(id).emit(out))).unwrap();
    let refusal = StartTls::Refused(id, StatusCode::TLS_CONNECTION_REFUSED);
    assert_eq!(rest_of(stream), message(|out| refusal.emit(out)));
}

/// What comes with STARTTLS in the clear is not taken for something that came through TLS.
#[test]
fn nothing_is_smuggled_in_before_tls() {
    let folder = authority();
    let mut secondary = Side::secondary(tls(folder.path(), "two", "one"));
    let mut stream = raw(&secondary);
    let id = TransactionId([1, 2, 3]);
    let mut octets = message(|out| StartTls::Request(id).emit(out));
    octets.extend(connect(Some("pair")));
    stream.write_all(&octets).unwrap();
    rest_of(stream);
    secondary.refused(Refusal::Tls, 1);
    assert!(secondary.events.try_recv().is_err());
}

#[test]
fn slow_ones_are_cut_off() {
    for (with_tls, octets) in [(false, &[0, 8, 31][..]), (false, &[]), (true, &[0, 4, 23, 0, 0, 1])]
    {
        let folder = authority();
        let tls = with_tls.then(|| tls(folder.path(), "two", "one")).flatten();
        let secondary = Side::new(vec![peer(Role::Secondary, 0, tls)], SHORT);
        let mut stream = raw(&secondary);
        let begun = Instant::now();
        stream.write_all(octets).unwrap();
        rest_of(stream);
        assert!(begun.elapsed() >= SHORT / 2, "{:?}", begun.elapsed());
        secondary.refused(Refusal::Slow, 1);
    }
}

#[test]
fn a_silent_secondary_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = authority();
    let peers = vec![peer(Role::Primary, port, tls(folder.path(), "one", "two"))];
    let mut primary = Side::new(peers, SHORT);
    assert_eq!(primary.dial_failed(), ("no answer".to_owned(), false));
    drop(listener);
    let (reason, refused) = primary.dial_failed();
    assert!(!refused && reason.contains("refused"), "{reason}");
}

#[test]
fn strangers_are_dropped() {
    let other = Peer { partner: "127.0.0.9".parse().unwrap(), ..peer(Role::Secondary, 0, None) };
    let secondary = Side::new(vec![other], PATIENCE);
    assert!(rest_of(raw(&secondary)).is_empty());
    secondary.refused(Refusal::Stranger, 1);
}

#[test]
fn too_many_at_once_are_dropped() {
    let mut secondary = Side::secondary(None);
    let held: Vec<_> = (0..HALF_OPEN_PER_ADDRESS_MAX).map(|_| raw(&secondary)).collect();
    assert!(rest_of(raw(&secondary)).is_empty());
    secondary.refused(Refusal::TooMany, 1);
    // When one goes on, there is room for the next.
    let mut first = held.into_iter();
    let mut goes_on = first.next().unwrap();
    goes_on.write_all(&connect(None)).unwrap();
    let _one = secondary.connected();
    let mut next = raw(&secondary);
    next.write_all(&connect(Some("pair"))).unwrap();
    assert_eq!(secondary.received().len(), 1);
    let _two = secondary.connected();
}

#[test]
fn connect_names_the_relationship() {
    let named = |name: &str| Peer { name: name.to_owned(), ..peer(Role::Secondary, 0, None) };
    let peers = vec![named("a"), peer(Role::Primary, 9, None), named("b")];
    let mut secondary = Side::new(peers, PATIENCE);
    assert_eq!(secondary.transport.listening().lock().len(), 1);
    let mut streams = Vec::new();
    for (name, expected) in [("b", 2), ("a", 0)] {
        let mut stream = raw(&secondary);
        stream.write_all(&connect(Some(name))).unwrap();
        match secondary.next() {
            Event::Connected { relationship, .. } => assert_eq!(relationship, expected),
            other => panic!("{other:?}"),
        }
        loop {
            // The connection was dropped with its event, so its end follows.
            match secondary.next() {
                Event::Received { relationship, frames, .. } => {
                    assert_eq!((relationship, frames.len()), (expected, 1));
                    stream.shutdown(Shutdown::Both).unwrap();
                }
                Event::Closed { .. } => break,
                other @ (Event::Connected { .. } | Event::DialFailed { .. }) => {
                    panic!("{other:?}")
                }
            }
        }
        streams.push(stream);
    }
    for (count, name) in [Some("c"), Some("pair"), None].into_iter().enumerate() {
        let mut stream = raw(&secondary);
        stream.write_all(&connect(name)).unwrap();
        assert_eq!(rejection(&rest_of(stream)), StatusCode::CONFIGURATION_CONFLICT);
        secondary.refused(Refusal::UnknownRelationship, count as u64 + 1);
    }
}

#[test]
fn what_is_no_connect_is_refused() {
    let secondary = Side::secondary(None);
    let contact = message(|out| header(1).emit_bare(MessageType::CONTACT, out));
    for (count, octets) in
        [&contact[..], &[0xff, 0xff, 31], &[0, 1, 99], &[0, 4, 7, 0, 0, 1]].into_iter().enumerate()
    {
        let mut stream = raw(&secondary);
        stream.write_all(octets).unwrap();
        assert!(rest_of(stream).is_empty());
        secondary.refused(Refusal::Protocol, count as u64 + 1);
    }
}

#[test]
fn an_oversized_flow_of_garbage_ends_the_connection() {
    let mut secondary = Side::secondary(None);
    let mut stream = raw(&secondary);
    stream.write_all(&connect(None)).unwrap();
    let _connection = secondary.connected();
    assert_eq!(secondary.received().len(), 1);
    // Empty frames are frames; the endpoint judges them.
    stream.write_all(&[0; 1000]).unwrap();
    let mut frames = 0;
    while frames < 500 {
        frames += secondary.received().len();
    }
    drop(stream);
    let (reason, _) = secondary.closed();
    assert!(reason.contains("partner"), "{reason}");
}

#[test]
fn an_address_that_is_taken_is_tried_again() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let secondary = Side::new(vec![peer(Role::Secondary, port, None)], PATIENCE);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = secondary.transport.listening().lock()[0].error.clone().unwrap();
        if error.contains("in use") {
            break;
        }
        assert!(Instant::now() < deadline, "{error}");
        std::thread::yield_now();
    }
    drop(taken);
    assert_eq!(secondary.port(), port);
}

#[test]
fn one_log_line_a_minute() {
    let refusals = Refusals::default();
    let from = "127.0.0.1".parse().unwrap();
    for _ in 0..5 {
        refusals.refuse(Refusal::Stranger, from, "");
    }
    assert_eq!(refusals.count(Refusal::Stranger), 5);
    assert_eq!(refusals.quiet.lock()[&Refusal::Stranger].1, 4);
    for (place, refusal) in Refusal::ALL.into_iter().enumerate() {
        assert_eq!(refusal as usize, place);
    }
}
