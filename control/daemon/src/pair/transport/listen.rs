//! Where the secondary waits for its primaries.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use gemel_failover::Role;
use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::{info, warn};

use super::{
    Context, HALF_OPEN_MAX, HALF_OPEN_PER_ADDRESS_MAX, Listening, Peer, Refusal, handshake, stream,
};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 16;
/// How often an address that cannot be listened at is tried.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Pause after the kernel could not accept a connection, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The addresses to listen at, each with the relationships that share it.
pub(super) fn listeners(peers: &[Peer]) -> Vec<(SocketAddr, Vec<usize>)> {
    let mut listeners: Vec<(SocketAddr, Vec<usize>)> = Vec::new();
    for (relationship, peer) in peers.iter().enumerate() {
        if peer.role != Role::Secondary {
            continue;
        }
        let local = peer.local.unwrap_or_else(|| handshake::any_address(peer.partner));
        let address = SocketAddr::new(local, peer.port);
        match listeners.iter_mut().find(|(known, _)| *known == address) {
            Some((_, members)) => members.push(relationship),
            None => listeners.push((address, vec![relationship])),
        }
    }
    listeners
}

/// Connections that have not sent their CONNECT yet, by address.
#[derive(Clone, Debug, Default)]
pub(super) struct HalfOpen(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them.
struct Place {
    all: HalfOpen,
    address: IpAddr,
}

impl HalfOpen {
    fn enter(&self, address: IpAddr) -> Option<Place> {
        let mut open = self.0.lock();
        let of_address = open.get(&address).copied().unwrap_or(0);
        if open.values().sum::<usize>() >= HALF_OPEN_MAX || of_address >= HALF_OPEN_PER_ADDRESS_MAX
        {
            return None;
        }
        open.insert(address, of_address + 1);
        Some(Place { all: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.all.0.lock();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// Listens at an address for as long as the task lives.
pub(super) async fn listen(
    context: Arc<Context>,
    address: SocketAddr,
    members: Vec<usize>,
    half_open: HalfOpen,
    mut tell: impl FnMut(Listening),
) {
    let mut told = None;
    let listener = loop {
        match open(address) {
            Ok(listener) => break listener,
            Err(error) => {
                let error = format!("cannot listen at {address}: {error}");
                if told.as_ref() != Some(&error) {
                    warn!("{error}; trying again each second");
                    told = Some(error.clone());
                }
                tell(Listening { asked: address, address, error: Some(error) });
                tokio::time::sleep(RETRY_EVERY).await;
            }
        }
    };
    let asked = address;
    let address = listener.local_addr().unwrap_or(asked);
    info!(%address, "listening for failover partners");
    tell(Listening { asked, address, error: None });
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                context.refusals.refuse(
                    Refusal::TooMany,
                    address.ip(),
                    &format!("the kernel could not accept a connection: {error}"),
                );
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let ip = from.ip().to_canonical();
        let own: Vec<usize> =
            members.iter().copied().filter(|member| context.peers[*member].partner == ip).collect();
        if own.is_empty() {
            // RFC 8156 section 6.1: MUST drop the connection.
            context.refusals.refuse(Refusal::Stranger, ip, "not the address of a partner");
            continue;
        }
        let Some(place) = half_open.enter(ip) else {
            context.refusals.refuse(Refusal::TooMany, ip, "too many connections without CONNECT");
            continue;
        };
        let context = Arc::clone(&context);
        tokio::spawn(async move { serve(&context, &own, stream, from, place).await });
    }
}

async fn serve(
    context: &Arc<Context>,
    members: &[usize],
    stream: TcpStream,
    from: SocketAddr,
    place: Place,
) {
    let accepted = handshake::accept(&context.peers, members, stream, from);
    match tokio::time::timeout(context.handshake_time, accepted).await {
        Ok(Ok((relationship, opened, connect))) => {
            drop(place);
            stream::run(context, relationship, opened, Some(connect)).await;
        }
        Ok(Err(refused)) => {
            context.refusals.refuse(refused.refusal, from.ip().to_canonical(), &refused.detail);
        }
        Err(_) => {
            let detail = format!("no CONNECT within {:?}", context.handshake_time);
            context.refusals.refuse(Refusal::Slow, from.ip().to_canonical(), &detail);
        }
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
