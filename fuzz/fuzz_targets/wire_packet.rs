//! Reads everything in a packet, writes it again from what was read, and wants the same octets.
#![no_main]

use gemel_wire::{
    Emitter, Ia, IaAddr, IaPrefix, IaTa, OptionCode, OptionRequest, Options, Packet, RawOption,
    Status,
};
use libfuzzer_sys::fuzz_target;

/// Relay agents and IAs nest; a datagram has room for about 1,800 relay headers.
const DEPTH_MAX: usize = 64;

fuzz_target!(|octets: &[u8]| {
    let mut buffer = vec![0; octets.len()];
    let mut out = Emitter::new(&mut buffer);
    if packet(octets, &mut out, 0) {
        let len = out.finish().expect("no longer than what was read");
        assert_eq!(&buffer[..len], octets);
    }
});

fn packet(octets: &[u8], out: &mut Emitter<'_>, depth: usize) -> bool {
    let read = match Packet::parse(octets) {
        Ok(Packet::Client(message)) => {
            out.message(message.msg_type, message.transaction_id);
            message.options
        }
        Ok(Packet::Relay(message)) => {
            assert_eq!(message.relayed(), message.options.first(OptionCode::RELAY_MSG));
            let (link, peer) = (message.link_address, message.peer_address);
            out.relay_message(message.msg_type, message.hop_count, link, peer);
            message.options
        }
        Err(_) => return false,
    };
    options(read, out, depth);
    true
}

fn options(read: Options<'_>, out: &mut Emitter<'_>, depth: usize) {
    for option in read {
        let mark = out.begin(option.code);
        if depth >= DEPTH_MAX || !body(option, out, depth + 1) {
            out.bytes(option.data);
        }
        out.end(mark);
    }
}

/// Writes the body of an option that has a structure; `false` if nothing was written.
fn body(RawOption { code, data }: RawOption<'_>, out: &mut Emitter<'_>, depth: usize) -> bool {
    match code {
        OptionCode::RELAY_MSG => return packet(data, out, depth),
        OptionCode::IA_NA | OptionCode::IA_PD => {
            let Ok(ia) = Ia::parse(data) else { return false };
            [ia.iaid.0, ia.t1, ia.t2].into_iter().for_each(|number| out.u32(number));
            options(ia.options, out, depth);
        }
        OptionCode::IA_TA => {
            let Ok(ia) = IaTa::parse(data) else { return false };
            out.u32(ia.iaid.0);
            options(ia.options, out, depth);
        }
        OptionCode::IA_ADDR => {
            let Ok(body) = IaAddr::parse(data) else { return false };
            out.address(body.address);
            out.u32(body.preferred);
            out.u32(body.valid);
            options(body.options, out, depth);
        }
        OptionCode::IA_PREFIX => {
            let Ok(body) = IaPrefix::parse(data) else { return false };
            assert!(body.prefix_len <= 128);
            out.u32(body.preferred);
            out.u32(body.valid);
            out.u8(body.prefix_len);
            out.address(body.prefix);
            options(body.options, out, depth);
        }
        OptionCode::ORO => {
            let Ok(oro) = OptionRequest::parse(data) else { return false };
            oro.codes().for_each(|code| out.u16(code.0));
        }
        OptionCode::STATUS_CODE => {
            let Ok(status) = Status::parse(data) else { return false };
            out.u16(status.code.0);
            out.bytes(status.message);
        }
        _ => return false,
    }
    true
}
