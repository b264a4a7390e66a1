//! A run of datagrams through the rules. The input is cut into datagrams: two octets of length, one
//! that chooses interface, source, service and the passing of time, then the payload.
#![no_main]

// The same three links that the scenarios of the rules use.
#[path = "../../dataplane/server/tests/support/mod.rs"]
mod support;

use gemel_server::{Inbound, Service};
use libfuzzer_sys::fuzz_target;
use support::{Answer, Lab, ip};

fuzz_target!(|input: &[u8]| {
    let mut lab = Lab::new();
    lab.room = 9000;
    let mut rest = input;
    while let [l0, l1, choice, tail @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*l0, *l1])).min(tail.len());
        let (payload, after) = tail.split_at(len);
        rest = after;
        lab.service = if choice & 0x10 == 0 { Service::Full } else { Service::ReadOnly };
        lab.now = lab.now.plus(u32::from(choice >> 5) * 700);
        let source = if choice & 8 == 0 { ip("fe80::9") } else { ip("2001:db8:b::9") };
        let interface = u32::from(choice & 7);
        let inbound = Inbound { interface, source, ..lab.inbound(payload) };
        if let Ok((info, reply)) = lab.handle(&inbound) {
            assert_eq!(Answer::read(&reply).msg_type, info.reply);
            assert!(lab.service == Service::Full || !info.held);
        }
    }
});
