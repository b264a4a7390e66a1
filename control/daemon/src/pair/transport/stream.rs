//! A connection that stands: messages in and out until one side ends it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gemel_wire::failover::{FRAME_LEN_MAX, FailoverTime, FrameSplitter, stamp};
use gemel_worker::wall_clock;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};

use super::{Connection, Context, Event, Frames, Peer, PeerCertificate};

/// Octets read at once.
const READ_LEN: usize = 64 << 10;
/// Octets that are stamped and written at once, so that the sent-time is right.
const WRITE_LEN: usize = 16 << 10;
/// Octets that the kernel may hold unsent: what waits there has been stamped.
const UNSENT_MAX: u32 = 128 << 10;
/// How long the partner may take to close its side after we have closed ours.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// Plain TCP or TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection after the handshake.
pub(super) struct Opened {
    pub(super) stream: Box<dyn Stream>,
    pub(super) peer: SocketAddr,
    pub(super) tls: Option<PeerCertificate>,
}

/// Sets what every connection needs.
pub(super) fn set_options(stream: &TcpStream, peer: &Peer) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    // Octets that nobody acknowledges for a few keepalive times: the kernel gives up, too.
    socket.set_tcp_user_timeout(Some(peer.keepalive * 3))?;
    socket.set_tcp_notsent_lowat(UNSENT_MAX)
}

/// Serves the connection until it ends. `first` is the CONNECT that came in on it already.
pub(super) async fn run(
    context: &Arc<Context>,
    relationship: usize,
    opened: Opened,
    first: Option<Vec<u8>>,
) {
    let id = context.next_id.fetch_add(1, Ordering::Relaxed);
    let (sender, outgoing) = mpsc::unbounded_channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let Opened { stream, peer, tls } = opened;
    let connection = Connection { id, peer, tls, outgoing: sender, queued: Arc::clone(&queued) };
    context.tell(Event::Connected { relationship, connection }).await;
    if let Some(first) = first {
        let mut frames = Frames::default();
        frames.push(&first);
        let at = wall_clock();
        context.tell(Event::Received { relationship, connection: id, frames, at }).await;
    }
    let (mut reader, mut writer) = tokio::io::split(stream);
    let end = {
        let read = read(context, relationship, id, &mut reader);
        let write = write(context, &mut writer, outgoing, &queued);
        tokio::select! {
            end = read => Some(end),
            result = write => result.err(),
        }
    };
    let (reason, refused) = match end {
        Some(error) => (explain(&error), is_refusal(&error)),
        None => {
            // Closing at once would make the kernel reset the connection over what it has not
            // read, and the partner lose our last message.
            let _ = tokio::time::timeout(LINGER, discard(&mut reader)).await;
            ("closed by this server".to_owned(), false)
        }
    };
    context.tell(Event::Closed { relationship, connection: id, reason, refused }).await;
}

/// Reads until the connection ends; gives the reason.
async fn read(
    context: &Context,
    relationship: usize,
    connection: u64,
    reader: &mut (impl AsyncRead + Unpin),
) -> io::Error {
    let mut splitter = FrameSplitter::new(vec![0; FRAME_LEN_MAX]);
    let mut buffer = vec![0; READ_LEN];
    loop {
        let len = match reader.read(&mut buffer).await {
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(len) => len,
            Err(error) => return error,
        };
        let at = wall_clock();
        let mut input = &buffer[..len];
        let mut frames = Frames::default();
        loop {
            match splitter.next_frame(&mut input) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return io::Error::new(io::ErrorKind::InvalidData, error),
            }
        }
        if !frames.is_empty() {
            context.tell(Event::Received { relationship, connection, frames, at }).await;
        }
    }
}

/// Writes until there is nothing more to come.
async fn write(
    context: &Context,
    writer: &mut (impl AsyncWrite + Unpin),
    mut outgoing: mpsc::UnboundedReceiver<Vec<u8>>,
    queued: &AtomicUsize,
) -> io::Result<()> {
    while let Some(mut octets) = outgoing.recv().await {
        let mut rest = &mut octets[..];
        while !rest.is_empty() {
            let (piece, next) = rest.split_at_mut(piece_len(rest));
            stamp(piece, FailoverTime(wall_clock().0));
            writer.write_all(piece).await?;
            queued.fetch_sub(piece.len(), Ordering::AcqRel);
            rest = next;
        }
        writer.flush().await?;
        // There is room for more.
        context.bell.ring();
    }
    writer.shutdown().await
}

/// Length of the whole frames at the front that make up [`WRITE_LEN`] or a little more.
fn piece_len(frames: &[u8]) -> usize {
    let mut len = 0;
    while len < WRITE_LEN {
        let rest = frames.get(len..).unwrap_or_default();
        let Some((size, _)) = rest.split_first_chunk::<2>() else { break };
        len += 2 + usize::from(u16::from_be_bytes(*size));
    }
    // What is no whole frame is none of ours; it leaves as it is.
    if len == 0 { frames.len() } else { len.min(frames.len()) }
}

pub(super) async fn discard(reader: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = vec![0; READ_LEN];
    while let Ok(1..) = reader.read(&mut buffer).await {}
}

/// An error as an operator wants to read it.
pub(super) fn explain(error: &io::Error) -> String {
    match tls_error(error) {
        Some(rustls::Error::AlertReceived(alert)) => {
            format!("the partner does not accept this server's certificate (TLS alert {alert:?})")
        }
        Some(error) => format!("TLS: {error}"),
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof => "the partner closed the connection".to_owned(),
            io::ErrorKind::ConnectionReset => "the partner reset the connection".to_owned(),
            _ => error.to_string(),
        },
    }
}

/// Whether it is about what the partners think of each other rather than about the network.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    tls_error(error).is_some() || error.kind() == io::ErrorKind::InvalidData
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_frames() {
        let frame = |len: u16| [&len.to_be_bytes()[..], &vec![0; len.into()]].concat();
        let frames = [frame(8), frame(10_000), frame(8000), frame(9)].concat();
        assert_eq!(piece_len(&frames), 10 + 10_002 + 8002);
        assert_eq!(piece_len(&frames[10 + 10_002 + 8002..]), 11);
        assert_eq!(piece_len(&frame(65_535)), 65_537);
        // Cut off or not frames at all: nothing is lost and nothing loops.
        assert_eq!(piece_len(&frames[..15]), 15);
        assert_eq!(piece_len(&[1]), 1);
    }
}
