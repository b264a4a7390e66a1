//! The beginning of a connection: STARTTLS, the certificates, and on the secondary the CONNECT (RFC
//! 8156 section 6.1, RFC 7653 sections 8.2 and 9.1).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use gemel_wire::{
    Emitter, MessageType, OptionCode, Status, StatusCode, TransactionId,
    failover::{
        ConnectReply, FailoverMessage, FailoverTime, Header, RelationshipName, StartTls, TcpMessage,
    },
};
use gemel_worker::wall_clock;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    Peer, PeerCertificate, Refusal,
    stream::{LINGER, Opened, discard, explain, is_refusal, set_options},
};
use crate::pair::tls::not_after;

/// The longest message that is taken before a connection is known to be the partner's: a CONNECT
/// with the longest name that can be configured has some hundred octets.
const FIRST_LEN_MAX: usize = 4096;
/// Transaction id of STARTTLS: nothing else is outstanding then.
const STARTTLS_ID: TransactionId = TransactionId([0, 0, 1]);

/// Why a connection could not be opened.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: String,
    /// One of the servers does not want the other.
    pub(super) refused: bool,
}

impl Failure {
    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), refused: false }
    }

    fn refused(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), refused: true }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { reason: explain(&error), refused: is_refusal(&error) }
    }
}

/// The primary's part: connects, and asks for TLS where it is configured.
pub(super) async fn open(peer: &Peer) -> Result<Opened, Failure> {
    let address = SocketAddr::new(peer.partner, peer.port);
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(local) = peer.local {
        socket
            .bind(SocketAddr::new(local, 0))
            .map_err(|error| Failure::failed(format!("cannot connect from {local}: {error}")))?;
    }
    let mut stream = socket.connect(address).await?;
    set_options(&stream, peer)?;
    let Some(tls) = &peer.tls else {
        return Ok(Opened { stream: Box::new(stream), peer: address, tls: None });
    };
    send(&mut stream, |out| StartTls::Request(STARTTLS_ID).emit(out)).await?;
    let answer = match first_frame(&mut stream).await {
        Ok(answer) => answer,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(Failure::refused("the partner hung up when it was asked for TLS"));
        }
        Err(error) => return Err(error.into()),
    };
    match TcpMessage::parse(&answer) {
        Ok(TcpMessage::StartTls(StartTls::Accepted(STARTTLS_ID))) => {}
        Ok(TcpMessage::StartTls(StartTls::Refused(_, code))) => {
            let reason = format!("the partner refuses TLS ({code}): is it off there?");
            return Err(Failure::refused(reason));
        }
        _ => return Err(Failure::refused("the partner answered STARTTLS with something else")),
    }
    let material = tls.material();
    let connector = TlsConnector::from(std::sync::Arc::clone(&material.client));
    let stream = match connector.connect(material.partner.clone(), stream).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(Failure::refused("the partner hung up in the TLS handshake"));
        }
        Err(error) => return Err(error.into()),
    };
    let name = material.partner.to_str().into_owned();
    let tls = peer_certificate(name, stream.get_ref().1.peer_certificates());
    Ok(Opened { stream: Box::new(stream), peer: address, tls })
}

/// Why the secondary does not take a connection.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) detail: String,
}

impl Refused {
    fn new(refusal: Refusal, detail: impl Into<String>) -> Self {
        Self { refusal, detail: detail.into() }
    }

    fn hung_up(error: &io::Error) -> Self {
        Self::new(Refusal::Protocol, explain(error))
    }
}

/// The secondary's part: answers STARTTLS, and waits for CONNECT. `members` are the relationships
/// with the address that the connection comes from, which share their TLS settings. Gives the
/// relationship and the CONNECT.
pub(super) async fn accept(
    peers: &[Peer],
    members: &[usize],
    mut stream: TcpStream,
    from: SocketAddr,
) -> Result<(usize, Opened, Vec<u8>), Refused> {
    let candidates: Vec<&Peer> = members.iter().filter_map(|member| peers.get(*member)).collect();
    let Some(any) = candidates.first() else {
        return Err(Refused::new(Refusal::Stranger, ""));
    };
    set_options(&stream, any).map_err(|error| Refused::hung_up(&error))?;
    let first = first_frame(&mut stream).await.map_err(|error| Refused::hung_up(&error))?;
    let message = TcpMessage::parse(&first)
        .map_err(|error| Refused::new(Refusal::Protocol, error.to_string()))?;
    let Some(tls) = &any.tls else {
        return match message {
            TcpMessage::StartTls(StartTls::Request(id)) => {
                let refusal = StartTls::Refused(id, StatusCode::TLS_CONNECTION_REFUSED);
                goodbye(&mut stream, |out| refusal.emit(out)).await;
                Err(Refused::new(Refusal::TlsOff, "the partner wants TLS, which is off here"))
            }
            TcpMessage::StartTls(_) => Err(Refused::new(Refusal::Protocol, "an answer came first")),
            TcpMessage::Failover(connect) => {
                let member = relationship(peers, members, &connect, &mut stream).await?;
                Ok((member, Opened { stream: Box::new(stream), peer: from, tls: None }, first))
            }
        };
    };
    match message {
        TcpMessage::StartTls(StartTls::Request(id)) => {
            let accepted = send(&mut stream, |out| StartTls::Accepted(id).emit(out)).await;
            accepted.map_err(|error| Refused::hung_up(&error))?;
        }
        TcpMessage::StartTls(_) => {
            return Err(Refused::new(Refusal::Protocol, "an answer came first"));
        }
        TcpMessage::Failover(message) => {
            let text = "TLS is required: STARTTLS comes first";
            refuse(&mut stream, &message, StatusCode::TLS_CONNECTION_REFUSED, text).await;
            return Err(Refused::new(Refusal::TlsRequired, "the partner does not use TLS"));
        }
    }
    let material = tls.material();
    let acceptor = TlsAcceptor::from(std::sync::Arc::clone(&material.server));
    let mut stream = acceptor
        .accept(stream)
        .await
        .map_err(|error| Refused::new(Refusal::Tls, explain(&error)))?;
    let name = material.partner.to_str().into_owned();
    let certificate = peer_certificate(name, stream.get_ref().1.peer_certificates());
    let first = first_frame(&mut stream).await.map_err(|error| match is_refusal(&error) {
        true => Refused::new(Refusal::Tls, explain(&error)),
        false => Refused::hung_up(&error),
    })?;
    match TcpMessage::parse(&first) {
        Ok(TcpMessage::Failover(connect)) => {
            let member = relationship(peers, members, &connect, &mut stream).await?;
            Ok((member, Opened { stream: Box::new(stream), peer: from, tls: certificate }, first))
        }
        Ok(TcpMessage::StartTls(_)) => {
            Err(Refused::new(Refusal::Protocol, "STARTTLS came a second time"))
        }
        Err(error) => Err(Refused::new(Refusal::Protocol, error.to_string())),
    }
}

/// Which relationship a CONNECT is for (RFC 8156 section 6.2).
async fn relationship(
    peers: &[Peer],
    members: &[usize],
    connect: &FailoverMessage<'_>,
    stream: &mut (impl AsyncWrite + AsyncRead + Unpin),
) -> Result<usize, Refused> {
    if connect.msg_type != MessageType::CONNECT {
        let detail = format!("{} came in place of CONNECT", connect.msg_type);
        return Err(Refused::new(Refusal::Protocol, detail));
    }
    let name = connect.options.first(OptionCode::F_RELATIONSHIP_NAME);
    let name = name.map(RelationshipName::parse).transpose();
    let named = |name: &str| members.iter().find(|member| peers[**member].name == name);
    let (found, asked) = match name {
        Ok(Some(name)) => (named(name.as_str()), format!("\"{}\"", name.as_str().escape_debug())),
        // There is only one, it says (section 6.1.1).
        Ok(None) if members.len() == 1 => (members.first(), String::new()),
        Ok(None) => (None, "without a name".to_owned()),
        Err(_) => (None, "with a name that cannot be read".to_owned()),
    };
    if let Some(member) = found {
        return Ok(*member);
    }
    let known: Vec<_> = members.iter().map(|member| peers[*member].name.as_str()).collect();
    let detail = format!(
        "there is no relationship {asked} with this partner in which this server is the \
         secondary, only {}",
        known.join(", ")
    );
    let text = "no relationship of this name and role";
    refuse(stream, connect, StatusCode::CONFIGURATION_CONFLICT, text).await;
    Err(Refused::new(Refusal::UnknownRelationship, detail))
}

/// Answers a message with a CONNECTREPLY that rejects it.
async fn refuse(
    stream: &mut (impl AsyncWrite + AsyncRead + Unpin),
    message: &FailoverMessage<'_>,
    code: StatusCode,
    text: &str,
) {
    let header = Header {
        transaction_id: message.header.transaction_id,
        sent_time: FailoverTime(wall_clock().0),
    };
    let reply = ConnectReply::Rejected(Status { code, message: text.as_bytes() });
    goodbye(stream, |out| reply.emit(header, out)).await;
}

/// Sends a last message, and waits a little for the partner to close, so that it gets to read it.
async fn goodbye(
    stream: &mut (impl AsyncWrite + AsyncRead + Unpin),
    emit: impl FnOnce(&mut Emitter<'_>),
) {
    // A partner that is gone does not read it.
    if send(stream, emit).await.is_ok() && stream.shutdown().await.is_ok() {
        let _ = tokio::time::timeout(LINGER, discard(stream)).await;
    }
}

async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    emit: impl FnOnce(&mut Emitter<'_>),
) -> io::Result<()> {
    let mut buffer = [0; 256];
    let mut out = Emitter::new(&mut buffer);
    emit(&mut out);
    let len = out.finish().map_err(io::Error::other)?;
    stream.write_all(&buffer[..len]).await?;
    stream.flush().await
}

/// One message and not an octet more, since TLS may begin after it.
async fn first_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let len = usize::from(stream.read_u16().await?);
    if len > FIRST_LEN_MAX {
        let text = format!("its first message has {len} octets");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut frame = vec![0; len];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

fn peer_certificate(
    name: String,
    chain: Option<&[rustls::pki_types::CertificateDer<'_>]>,
) -> Option<PeerCertificate> {
    // What was verified can be read.
    let expires = chain?.first().and_then(|certificate| not_after(certificate).ok()).unwrap_or(0);
    Some(PeerCertificate { name, expires })
}

/// Any address of the same family as the partner's.
pub(super) fn any_address(partner: IpAddr) -> IpAddr {
    match partner {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
