//! What several tests need.

use gemel_lease::{AbsoluteTime, Binding, BindingStatus, ClientDuid, IaKind, Lease, Record};
use gemel_wire::IaId;

/// A binding of lease `number`.
pub(crate) fn binding(number: u32, duid_len: usize) -> Binding {
    Binding {
        lease: Lease::address((0x2001_0db8_u128 << 96 | u128::from(number)).into()),
        kind: IaKind::Na,
        status: BindingStatus::Active,
        duid: ClientDuid::new(&vec![7; duid_len]),
        iaid: IaId(number),
        preferred_lifetime: 1,
        valid_lifetime: 2,
        client_last_transaction_time: AbsoluteTime(3),
        expiration_time: AbsoluteTime(4),
        start_time_of_state: AbsoluteTime(5),
        state_expiration_time: AbsoluteTime(6),
        partner_lifetime: AbsoluteTime(7),
        acked_partner_lifetime: AbsoluteTime(8),
        partner_raw_clt_time: AbsoluteTime(9),
        update_pending: false,
    }
}

/// Its stored form.
pub(crate) fn record(binding: &Binding, stamp: u64) -> Vec<u8> {
    let mut octets = Vec::new();
    Record { binding: binding.clone(), stamp }.encode(&mut octets);
    octets
}

/// Random numbers that a seed repeats (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in `n`.
    pub(crate) fn chance(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
