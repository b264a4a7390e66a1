//! Lets an endpoint live through whatever the input says: connections that come and go, frames of
//! any content (also well-formed ones with mutated parts), time, commands, the fate of what it
//! stored. It must not panic, and what it sends must be whole frames that our own codec reads.
#![no_main]

use std::{net::Ipv6Addr, sync::Arc, time::Duration};

use gemel_failover::{Command, Config, Endpoint, Env, Now, Output, Role};
use gemel_lease::{
    AbsoluteTime, ClientKey, IaKind, LeaseTable, Ownership, PairPolicy, PoolConfig, PoolId,
    PoolRange, PoolSet, TableConfig, Terms, UpdateBatch,
};
use gemel_wire::{
    IaId,
    failover::{FrameSplitter, TcpMessage},
};
use libfuzzer_sys::fuzz_target;

struct World {
    table: LeaseTable,
    endpoint: Endpoint,
    updates: UpdateBatch,
    sequence: u64,
    wall: u32,
    monotonic: Duration,
}

impl World {
    fn new(role: Role) -> Self {
        let ownership = match role {
            Role::Primary => Ownership::Primary,
            Role::Secondary => Ownership::Secondary,
        };
        let address = |bits: u128| Ipv6Addr::from_bits(0x2001_0db8 << 96 | bits);
        let ranges = [
            PoolRange::Addresses { first: address(1), last: address(30) },
            PoolRange::Prefixes { prefix: address(0x10 << 64), prefix_len: 60, delegated_len: 64 },
        ];
        let pools = ranges.map(|range| PoolConfig { range, ownership }).to_vec();
        let pools = PoolSet::new(pools).expect("they fit together");
        let config = TableConfig { client_stripes: 4, ..TableConfig::default() };
        let table = LeaseTable::new(&config, pools);
        let now = Now { wall: AbsoluteTime(800_000_000), monotonic: Duration::ZERO };
        let endpoint = Endpoint::new(
            Config::new("fuzz", role, 60),
            vec![PoolId(0), PoolId(1)],
            Arc::new(PairPolicy::new()),
            None,
            now,
        );
        Self {
            table,
            endpoint,
            updates: UpdateBatch::default(),
            sequence: 1,
            wall: now.wall.0,
            monotonic: Duration::ZERO,
        }
    }

    fn now(&self) -> Now {
        Now { wall: AbsoluteTime(self.wall), monotonic: self.monotonic }
    }

    /// One input, and the rest of the round as the driver makes it.
    fn step(&mut self, input: impl FnOnce(&mut Endpoint, &mut Env<'_>)) {
        let now = self.now();
        let mut env = Env {
            table: &self.table,
            now,
            stored_before: u64::MAX,
            updates: &mut self.updates,
            sequence: self.sequence,
        };
        input(&mut self.endpoint, &mut env);
        while self.endpoint.poll(&mut env) {}
        let mut close = false;
        while let Some(output) = self.endpoint.output() {
            match output {
                Output::Persist(_) => self.endpoint.persisted(&mut env),
                Output::Close { .. } => close = true,
                Output::Transition { .. } | Output::Alarm(_) => {}
            }
        }
        check_frames(self.endpoint.outgoing());
        self.endpoint.outgoing().clear();
        if close {
            self.endpoint.disconnected(&mut env);
        }
        if !self.updates.is_empty() {
            self.updates.clear();
            self.sequence += 1;
        }
    }
}

fn check_frames(octets: &[u8]) {
    let mut splitter = FrameSplitter::new(vec![0; 65_535]);
    let mut input = octets;
    while let Some(frame) = splitter.next_frame(&mut input).expect("a frame of ours") {
        TcpMessage::parse(frame).expect("a message of ours");
    }
    assert_eq!(splitter.pending(), 0, "a frame of ours is cut off");
}

fuzz_target!(|octets: &[u8]| {
    let Some((&first, mut rest)) = octets.split_first() else { return };
    let mut world = World::new(if first & 1 == 0 { Role::Primary } else { Role::Secondary });
    while let Some((&op, tail)) = rest.split_first() {
        rest = tail;
        match op % 10 {
            0 => world.step(|endpoint, env| endpoint.connected(env)),
            1 => world.step(|endpoint, env| endpoint.disconnected(env)),
            2..=4 => {
                let Some((&len, tail)) = rest.split_first() else { return };
                let (frame, tail) = tail.split_at(usize::from(len).min(tail.len()));
                rest = tail;
                world.step(|endpoint, env| endpoint.received(frame, env));
            }
            5 => {
                let last = world.sequence - 1;
                let stored = op & 0x80 == 0;
                world.step(|endpoint, env| endpoint.stored(last, stored, env));
            }
            6 => {
                let secs = u32::from(op / 10);
                world.wall += secs;
                world.monotonic += Duration::from_secs(u64::from(secs));
                world.step(|endpoint, env| endpoint.timeout(env));
            }
            7 => {
                let command = match op / 10 % 5 {
                    0 => Command::PartnerDown,
                    1 => Command::Resync,
                    2 => Command::Disconnect,
                    3 => Command::Suspend,
                    _ => Command::Resume,
                };
                // A refusal is an answer.
                world.step(|endpoint, env| _ = endpoint.command(command, env));
            }
            8 => world.step(|endpoint, env| endpoint.missed(env)),
            _ => {
                let kind = if op & 0x80 == 0 { IaKind::Na } else { IaKind::Pd };
                let pool = PoolId(if kind == IaKind::Na { 0 } else { 1 });
                let terms = Terms { mclt: Some(60), ..Terms::unlimited(300, 600) };
                let duid = [0, 3, 0, 1, op / 10];
                let key = ClientKey { duid: &duid, kind, iaid: IaId(1) };
                let mut granted = UpdateBatch::default();
                let now = world.now().wall;
                world.table.lock(key).grant(pool, None, &terms, now, &mut granted);
                world.step(|endpoint, env| endpoint.committed(granted.as_bytes(), env));
            }
        }
    }
});
