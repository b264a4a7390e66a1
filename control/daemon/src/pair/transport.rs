//! Moves whole messages between this server and its partners, over TCP and TLS.
//!
//! One thread with an event loop does it for all relationships. A primary connects when it is told
//! to ([`Transport::dial`]); a secondary listens all the time, and finds out from CONNECT which
//! relationship a connection is for (RFC 8156 section 6.1). Everything else is up to the pair thread,
//! which hears of it as [`Event`]s.
//!
//! Both directions are bounded. While [`EVENTS_MAX`] events wait for the pair thread, nothing more
//! is read, so that the partner's TCP has to wait too. What is to be sent waits in
//! [`Connection`] up to [`QUEUED_MAX`] octets; what is beyond that, the endpoint keeps.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use gemel_failover::Role;
use gemel_lease::AbsoluteTime;
use gemel_worker::submit::Bell;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tracing::warn;

use super::tls::Tls;
use crate::dataplane::short_slices;

mod handshake;
mod listen;
mod stream;
#[cfg(test)]
mod tests;

/// Events that may wait for the pair thread.
pub const EVENTS_MAX: usize = 64;
/// Octets that may wait to be sent on one connection.
pub const QUEUED_MAX: usize = 256 << 10;
/// Connections at once that have not sent their CONNECT yet.
pub const HALF_OPEN_MAX: usize = 16;
/// And of those from one address.
pub const HALF_OPEN_PER_ADDRESS_MAX: usize = 4;
/// How long a connection may take until CONNECT has come or can be sent.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// How long connections have to send what waits, when the server stops.
const GOODBYE_TIME: Duration = Duration::from_secs(2);
/// How often one and the same reason for a refusal is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// What the transport knows of a relationship.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The relationship's name.
    pub name: String,
    /// This server's role.
    pub role: Role,
    /// The partner's address.
    pub partner: IpAddr,
    /// The port that the secondary listens on.
    pub port: u16,
    /// Where to listen, or from where to connect.
    pub local: Option<IpAddr>,
    /// FO_KEEPALIVE_TIME.
    pub keepalive: Duration,
    /// `None` for plain TCP.
    pub tls: Option<Arc<Tls>>,
}

/// Whole messages, in order.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Frames {
    octets: Vec<u8>,
    ends: Vec<usize>,
}

impl Frames {
    /// Adds a message without its size field.
    pub fn push(&mut self, frame: &[u8]) {
        self.octets.extend_from_slice(frame);
        self.ends.push(self.octets.len());
    }

    /// The messages without their size fields.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(&0).chain(&self.ends);
        begins.zip(&self.ends).map(|(begin, end)| &self.octets[*begin..*end])
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames, {} octets", self.ends.len(), self.octets.len())
    }
}

/// What happens on the way to partners.
#[derive(Debug)]
pub enum Event {
    /// A connection stands.
    Connected {
        /// Which relationship, by its place in the configuration.
        relationship: usize,
        /// The connection; dropping it closes it.
        connection: Connection,
    },
    /// What [`Transport::dial`] was to do has failed.
    DialFailed {
        /// Which relationship.
        relationship: usize,
        /// Why, for people.
        reason: String,
        /// The partner is there and does not want us, or we not it.
        refused: bool,
    },
    /// Messages have come in.
    Received {
        /// Which relationship.
        relationship: usize,
        /// On which connection.
        connection: u64,
        /// The messages.
        frames: Frames,
        /// When they were read.
        at: AbsoluteTime,
    },
    /// A connection has ended.
    Closed {
        /// Which relationship.
        relationship: usize,
        /// Which connection.
        connection: u64,
        /// Why, for people.
        reason: String,
        /// As in [`Event::DialFailed`].
        refused: bool,
    },
}

/// A connection that stands. When it is dropped, what waits is sent and the connection closed.
#[derive(Debug)]
pub struct Connection {
    /// Tells connections apart.
    pub id: u64,
    /// The partner's end.
    pub peer: SocketAddr,
    /// What TLS has shown of the partner; `None` for plain TCP.
    pub tls: Option<PeerCertificate>,
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    queued: Arc<AtomicUsize>,
}

/// The partner's certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerCertificate {
    /// The name that was asked for and found in it.
    pub name: String,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
}

impl Connection {
    /// Whether more can be sent now; the bell rings when that becomes true.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queued.load(Ordering::Acquire) < QUEUED_MAX
    }

    /// Sends whole frames. The sent-time is set right before they leave.
    pub fn send(&self, frames: Vec<u8>) {
        self.queued.fetch_add(frames.len(), Ordering::AcqRel);
        // A connection that has ended needs nothing any more; its end is on its way as an event.
        let _ = self.outgoing.send(frames);
    }
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(usize)]
pub enum Refusal {
    /// It came from an address that is no partner's.
    Stranger,
    /// Too many others had not sent their CONNECT yet.
    TooMany,
    /// It took too long to send its CONNECT.
    Slow,
    /// It began without TLS, which is required.
    TlsRequired,
    /// It asked for TLS, which is off.
    TlsOff,
    /// The TLS handshake failed: mostly because of a certificate.
    Tls,
    /// Its CONNECT names a relationship that does not exist with this partner.
    UnknownRelationship,
    /// It sent something else than CONNECT, or hung up.
    Protocol,
}

impl Refusal {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Stranger,
        Self::TooMany,
        Self::Slow,
        Self::TlsRequired,
        Self::TlsOff,
        Self::Tls,
        Self::UnknownRelationship,
        Self::Protocol,
    ];

    /// For metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::TooMany => "too_many",
            Self::Slow => "slow",
            Self::TlsRequired => "tls_required",
            Self::TlsOff => "tls_off",
            Self::Tls => "tls",
            Self::UnknownRelationship => "unknown_relationship",
            Self::Protocol => "protocol",
        }
    }
}

/// Counts refused connections, and logs each reason once a minute at most.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: [AtomicU64; Refusal::ALL.len()],
    /// When each reason may be logged again, and how many have not been meanwhile.
    quiet: Mutex<HashMap<Refusal, (Instant, u64)>>,
}

impl Refusals {
    /// How many connections were refused for a reason.
    #[must_use]
    pub fn count(&self, refusal: Refusal) -> u64 {
        self.counts[refusal as usize].load(Ordering::Relaxed)
    }

    fn refuse(&self, refusal: Refusal, from: IpAddr, detail: &str) {
        self.counts[refusal as usize].fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut quiet = self.quiet.lock();
        let (until, unsaid) = quiet.entry(refusal).or_insert((now, 0));
        if now < *until {
            *unsaid += 1;
            return;
        }
        warn!(%from, reason = refusal.as_str(), detail, unsaid = *unsaid, "connection refused");
        (*until, *unsaid) = (now + LOG_EVERY, 0);
    }
}

/// The thread that moves messages.
#[derive(Debug)]
pub struct Transport {
    dial: Option<mpsc::UnboundedSender<usize>>,
    refusals: Arc<Refusals>,
    listening: Arc<Mutex<Vec<Listening>>>,
    thread: Option<JoinHandle<()>>,
}

/// A place where the secondary listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listening {
    /// The address that was asked for.
    pub asked: SocketAddr,
    /// The address; with the port that the kernel chose, where 0 was asked for.
    pub address: SocketAddr,
    /// Why it does not listen there at present.
    pub error: Option<String>,
}

/// What the tasks of the event loop share.
struct Context {
    peers: Vec<Peer>,
    events: mpsc::Sender<Event>,
    bell: Bell,
    refusals: Arc<Refusals>,
    next_id: AtomicU64,
    handshake_time: Duration,
    /// Every task holds the context, and with it this: the receiver hears when all are gone.
    _alive: mpsc::Sender<()>,
}

impl Context {
    async fn tell(&self, event: Event) {
        // The pair thread is gone only when everything ends.
        let _ = self.events.send(event).await;
        self.bell.ring();
    }
}

impl Transport {
    /// Starts the thread, and listens where one of the peers has a secondary's role here. The bell
    /// rings with each event.
    ///
    /// # Errors
    /// If the thread cannot be started. An address that cannot be listened at is tried again each
    /// second.
    pub fn start(peers: Vec<Peer>, bell: Bell) -> Result<(Self, mpsc::Receiver<Event>)> {
        Self::start_with(peers, bell, HANDSHAKE_TIME)
    }

    fn start_with(
        peers: Vec<Peer>,
        bell: Bell,
        handshake_time: Duration,
    ) -> Result<(Self, mpsc::Receiver<Event>)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the event loop of the pair")?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let (dial, dials) = mpsc::unbounded_channel();
        let refusals = Arc::new(Refusals::default());
        let listeners = listen::listeners(&peers);
        let listening = listeners
            .iter()
            .map(|(address, _)| Listening {
                asked: *address,
                address: *address,
                error: Some("not yet".to_owned()),
            })
            .collect();
        let listening = Arc::new(Mutex::new(listening));
        let (alive, gone) = mpsc::channel(1);
        let context = Arc::new(Context {
            peers,
            events,
            bell,
            refusals: Arc::clone(&refusals),
            next_id: AtomicU64::new(1),
            handshake_time,
            _alive: alive,
        });
        let seen = Arc::clone(&listening);
        let thread = std::thread::Builder::new()
            .name("gemel pair io".to_owned())
            .spawn(move || {
                short_slices("pair io");
                runtime.block_on(run(context, listeners, seen, dials, gone));
            })
            .context("cannot start the thread of the pair's connections")?;
        let thread = Some(thread);
        Ok((Self { dial: Some(dial), refusals, listening, thread }, receiver))
    }

    /// Tries once to connect to the partner of a relationship; [`Event::Connected`] or
    /// [`Event::DialFailed`] follows.
    pub fn dial(&self, relationship: usize) {
        if let Some(dial) = &self.dial {
            // The thread ends only when this is dropped.
            let _ = dial.send(relationship);
        }
    }

    /// The refused connections.
    #[must_use]
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// Where it listens.
    #[must_use]
    pub fn listening(&self) -> &Arc<Mutex<Vec<Listening>>> {
        &self.listening
    }
}

/// Ends once the connections that were dropped before have sent what waited.
impl Drop for Transport {
    fn drop(&mut self) {
        self.dial = None;
        if let Some(thread) = self.thread.take() {
            // Nothing in it panics on purpose; if something did, it has been seen.
            let _ = thread.join();
        }
    }
}

async fn run(
    context: Arc<Context>,
    listeners: Vec<(SocketAddr, Vec<usize>)>,
    listening: Arc<Mutex<Vec<Listening>>>,
    mut dials: mpsc::UnboundedReceiver<usize>,
    mut gone: mpsc::Receiver<()>,
) {
    let half_open = listen::HalfOpen::default();
    let mut listen_tasks = Vec::new();
    for (place, (address, members)) in listeners.into_iter().enumerate() {
        let (context, listening) = (Arc::clone(&context), Arc::clone(&listening));
        let half_open = half_open.clone();
        listen_tasks.push(tokio::spawn(async move {
            listen::listen(context, address, members, half_open, |state| {
                listening.lock()[place] = state;
            })
            .await;
        }));
    }
    while let Some(relationship) = dials.recv().await {
        let context = Arc::clone(&context);
        tokio::spawn(async move { dial(&context, relationship).await });
    }
    for task in listen_tasks {
        task.abort();
    }
    drop(context);
    // Dialling tasks hold the context too, and are given up with the rest.
    let _ = tokio::time::timeout(GOODBYE_TIME, gone.recv()).await;
}

async fn dial(context: &Arc<Context>, relationship: usize) {
    let Some(peer) = context.peers.get(relationship) else { return };
    let opened = tokio::time::timeout(context.handshake_time, handshake::open(peer)).await;
    let failure = match opened {
        Ok(Ok(opened)) => {
            stream::run(context, relationship, opened, None).await;
            return;
        }
        Ok(Err(failure)) => failure,
        Err(_) => handshake::Failure::failed("no answer"),
    };
    let (reason, refused) = (failure.reason, failure.refused);
    context.tell(Event::DialFailed { relationship, reason, refused }).await;
}
