//! Writes a failover message again from what was read. Shared with the fuzz target.

use gemel_wire::{
    Emitter, Options, Status, StatusCode,
    failover::{
        BindingReply, BndReply, BndSubject, BndUpd, Body, FailoverMessage, FailoverOption,
        TcpMessage,
    },
};

/// More than any frame, for a message can grow: what an IA says of all its leases is written to
/// each of them.
const ROOM: usize = 1 << 17;

/// Reads the frame (without its size field) and emits what was read; `None` if anything is
/// refused, or the message has outgrown a frame.
pub(crate) fn rewrite(frame: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = vec![0; ROOM];
    let mut out = Emitter::new(&mut buffer);
    match TcpMessage::parse(frame).ok()? {
        TcpMessage::StartTls(message) => message.emit(&mut out),
        TcpMessage::Failover(message) => emit_body(&message, &mut out)?,
    }
    let len = out.finish().ok()?;
    Some(buffer[2..len].to_vec())
}

fn emit_body(message: &FailoverMessage<'_>, out: &mut Emitter<'_>) -> Option<()> {
    let header = message.header;
    match Body::parse(message).ok()? {
        Body::BndUpd(BndUpd::Client(binding)) => {
            let leases: Result<Vec<_>, _> =
                binding.leases().map(|entry| entry.and_then(|entry| entry.lease())).collect();
            BndUpd::emit_client(&binding.client, leases.ok()?, header, out);
        }
        Body::BndUpd(BndUpd::Prefix(prefix)) => BndUpd::emit_prefix(&prefix, header, out),
        Body::BndReply(BndReply::Client(reply)) => {
            let BindingReply { client, .. } = reply;
            let leases: Result<Vec<_>, _> = reply.leases().collect();
            BndReply::emit_client(&client, leases.ok()?, header, out);
        }
        Body::BndReply(BndReply::Prefix(prefix)) => BndReply::emit_prefix(&prefix, header, out),
        Body::Connect(connect) => connect.emit(header, out),
        Body::ConnectReply(reply) => reply.emit(header, out),
        Body::Disconnect(disconnect) => disconnect.emit(header, out),
        Body::State(state) => state.emit(header, out),
        Body::PoolReq
        | Body::PoolResp
        | Body::UpdReq
        | Body::UpdReqAll
        | Body::UpdDone
        | Body::Contact => header.emit_bare(message.msg_type, out),
    }
    Some(())
}

/// What must hold for any frame, whether or not it is sound.
pub(crate) fn check_frame(frame: &[u8]) {
    if let Some(once) = rewrite(frame) {
        let twice = rewrite(&once);
        assert_eq!(twice.as_deref(), Some(&once[..]), "what was written is read as the same");
    }
    let Ok(TcpMessage::Failover(message)) = TcpMessage::parse(frame) else { return };
    assert_eq!(message.options.as_bytes(), &frame[FailoverMessage::HEADER_LEN..]);
    check_options(message.options);
    check_rejection(&message);
}

/// Each option that can be read is written as the same octets, on the levels that can be entered.
fn check_options(options: Options<'_>) {
    for raw in options {
        let Ok(option) = FailoverOption::parse(raw) else { continue };
        assert_eq!(option.code(), raw.code);
        let mut buffer = vec![0; raw.data.len() + 4];
        let mut out = Emitter::new(&mut buffer);
        option.emit(&mut out);
        match option {
            // What does not belong into it is passed over, and the rest put into order.
            FailoverOption::DnsRemovalInfo(_) => assert!(out.finish().is_ok()),
            FailoverOption::ClientData(enclosed) => check_options(enclosed),
            _ => {
                assert_eq!(out.finish(), Ok(raw.data.len() + 4));
                assert_eq!(&buffer[4..], raw.data);
            }
        }
    }
}

/// Whatever says what it is about can be rejected.
fn check_rejection(message: &FailoverMessage<'_>) {
    let Ok(subject) = BndSubject::of(message) else {
        assert!(BndUpd::parse(message).is_err() && BndReply::parse(message).is_err());
        return;
    };
    let status = Status { code: StatusCode::MISSING_BINDING_INFORMATION, message: b"text" };
    let mut buffer = vec![0; ROOM];
    let mut out = Emitter::new(&mut buffer);
    subject.emit_rejection(status, message.header, &mut out);
    let Ok(len) = out.finish() else { return };
    let reply = FailoverMessage::parse(&buffer[2..len]).expect("our own message");
    assert_eq!(reply.header, message.header);
    match BndReply::parse(&reply) {
        Ok(BndReply::Client(reply)) => {
            assert!(reply.is_rejected());
            assert_eq!(reply.client.status, Some(status));
            assert!(reply.leases().all(|lease| lease.is_ok()));
        }
        Ok(BndReply::Prefix(reply)) => assert_eq!(reply.ack.status, Some(status)),
        // A client id that is none is repeated as it is.
        Err(error) => assert!(error.to_string().contains("DUID"), "{error}"),
    }
}
