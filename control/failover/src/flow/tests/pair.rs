//! Two servers in memory: a table and a flow each, and a connection that can break.

use std::collections::{BTreeMap, VecDeque};

use gemel_lease::{
    Binding, BindingStatus, ClientKey, IaKind, Lease, LeaseTable, Ownership, PoolConfig, PoolSet,
    TableConfig, Terms, UpdateBatch,
};
use gemel_wire::IaId;

pub(super) use super::super::*;
use crate::Role;

pub(super) const T0: u32 = 850_000_000;
pub(super) const MCLT: u32 = 600;
pub(super) const TERMS: Terms = Terms { mclt: Some(MCLT), ..Terms::unlimited(1_000, 2_000) };
/// Pools of every table: addresses, and prefixes.
pub(super) const ADDRESSES: PoolId = PoolId(0);
pub(super) const PREFIXES: PoolId = PoolId(1);

pub(super) fn table(role: Role) -> LeaseTable {
    use gemel_lease::PoolRange::{Addresses, Prefixes};
    let ownership = match role {
        Role::Primary => Ownership::Primary,
        Role::Secondary => Ownership::Secondary,
    };
    let (first, last) = ("2001:db8::".parse().unwrap(), "2001:db8::3:ffff".parse().unwrap());
    let prefix = "2001:db8:8000::".parse().unwrap();
    let pools = vec![
        PoolConfig { range: Addresses { first, last }, ownership },
        PoolConfig { range: Prefixes { prefix, prefix_len: 48, delegated_len: 56 }, ownership },
    ];
    let config = TableConfig { hash_key: [7; 16], client_stripes: 16, expected_bindings: 0 };
    LeaseTable::new(&config, PoolSet::new(pools).unwrap())
}

pub(super) fn duid(number: u32) -> [u8; 10] {
    let mut duid = [0, 3, 0, 1, 2, 0, 0, 0, 0, 0];
    duid[6..].copy_from_slice(&number.to_be_bytes());
    duid
}

/// A server.
pub(super) struct Node {
    pub(super) flow: Flow,
    pub(super) table: LeaseTable,
    pub(super) outbox: Outbox,
    pub(super) now: Now,
    /// The open batch of the flow, and its number.
    updates: UpdateBatch,
    pub(super) sequence: u64,
    /// Numbers of batches that are not stored yet.
    pub(super) unstored: VecDeque<u64>,
    /// What the workers have changed.
    pub(super) workers: UpdateBatch,
    pub(super) phase: Phase,
    /// Frames on their way from here.
    pub(super) sent: Vec<u8>,
    /// UPDDONE and POOLRESP that have come in.
    pub(super) done: Vec<(MessageType, TransactionId)>,
    /// BNDUPD messages that have left and have not been answered.
    pub(super) in_flight: usize,
}

impl Node {
    pub(super) fn new(role: Role) -> Self {
        Self::with(Config::new("pair", role, MCLT))
    }

    pub(super) fn with(config: Config) -> Self {
        Self {
            table: table(config.role),
            flow: Flow::new(&config, vec![ADDRESSES, PREFIXES]),
            outbox: Outbox::new(),
            now: Now { wall: AbsoluteTime(T0), monotonic: Duration::from_secs(100) },
            updates: UpdateBatch::default(),
            sequence: 1,
            unstored: VecDeque::new(),
            workers: UpdateBatch::default(),
            phase: Phase::Normal,
            sent: Vec::new(),
            done: Vec::new(),
            in_flight: 0,
        }
    }

    /// Runs `f` with the flow and what it needs.
    pub(super) fn call<T>(
        &mut self,
        f: impl FnOnce(&mut Flow, &mut Env<'_>, &mut Outbox) -> T,
    ) -> T {
        let unstored = self.workers.iter().flatten().map(|record| record.stamp).min();
        let mut env = Env {
            table: &self.table,
            now: self.now,
            stored_before: unstored.unwrap_or(u64::MAX),
            updates: &mut self.updates,
            sequence: self.sequence,
        };
        let result = f(&mut self.flow, &mut env, &mut self.outbox);
        if !self.updates.is_empty() {
            self.updates.clear();
            self.unstored.push_back(self.sequence);
            self.sequence += 1;
        }
        result
    }

    /// Hands what the workers have changed to the flow.
    pub(super) fn commit(&mut self) {
        let workers = std::mem::take(&mut self.workers);
        self.call(|flow, env, _| flow.committed(workers.as_bytes(), env));
    }

    /// The flow's batches are stored.
    pub(super) fn store(&mut self) {
        if let Some(last) = self.unstored.drain(..).next_back() {
            assert!(self.flow.stored(last, true, &mut self.outbox, self.now));
        }
    }

    /// Polls until there is nothing more to do, and moves the frames out.
    pub(super) fn poll(&mut self) {
        let phase = self.phase;
        loop {
            let all_stored = self.unstored.is_empty();
            let more = self.call(|flow, env, outbox| flow.poll(phase, env, outbox));
            if all_stored {
                // What this very call has changed: moves of prefixes, which are told when stored.
                self.store();
            }
            self.take_frames();
            if !more {
                break;
            }
        }
    }

    pub(super) fn take_frames(&mut self) {
        for frame in frames(self.outbox.octets()) {
            self.in_flight += usize::from(frame[0] == MessageType::BNDUPD.0);
        }
        self.sent.append(self.outbox.octets());
    }

    pub(super) fn receive(&mut self, frame: &[u8]) {
        let message = FailoverMessage::parse(frame).unwrap();
        let id = message.header.transaction_id;
        match message.msg_type {
            MessageType::BNDUPD => {
                self.call(|flow, env, outbox| flow.bndupd(&message, env, outbox)).unwrap();
            }
            MessageType::BNDREPLY => {
                self.in_flight -= 1;
                self.call(|flow, env, _| flow.bndreply(&message, env)).unwrap();
            }
            other => self.done.push((other, id)),
        }
    }

    pub(super) fn advance(&mut self, secs: u32) {
        self.now.wall = self.now.wall.plus(secs);
        self.now.monotonic += Duration::from_secs(secs.into());
    }

    pub(super) fn grant(&mut self, pool: PoolId, client: u32) -> Option<Lease> {
        let kind = if pool == PREFIXES { IaKind::Pd } else { IaKind::Na };
        self.grant_ia(pool, client, kind, 1)
    }

    pub(super) fn grant_ia(
        &mut self,
        pool: PoolId,
        client: u32,
        kind: IaKind,
        iaid: u32,
    ) -> Option<Lease> {
        let duid = duid(client);
        let key = ClientKey { duid: &duid, kind, iaid: IaId(iaid) };
        let mut guard = self.table.lock(key);
        guard
            .grant(pool, None, &TERMS, self.now.wall, &mut self.workers)
            .map(|binding| binding.lease)
    }

    /// Runs `f` on the client that has the lease.
    pub(super) fn with_client<T>(
        &mut self,
        lease: Lease,
        f: impl FnOnce(&mut gemel_lease::ClientGuard<'_>, AbsoluteTime, &mut UpdateBatch) -> T,
    ) -> Option<T> {
        let binding = self.table.binding(lease)?;
        let mut guard = self.table.lock(binding.client_key());
        Some(f(&mut guard, self.now.wall, &mut self.workers))
    }

    pub(super) fn renew(&mut self, lease: Lease) -> bool {
        self.with_client(lease, |guard, now, sink| guard.extend(lease, &TERMS, now, sink).is_some())
            == Some(true)
    }

    pub(super) fn release(&mut self, lease: Lease) -> bool {
        self.with_client(lease, |guard, now, sink| guard.release(lease, now, sink)) == Some(true)
    }

    pub(super) fn decline(&mut self, lease: Lease, secs: u32) -> bool {
        self.with_client(lease, |guard, now, sink| guard.decline(lease, now.plus(secs), now, sink))
            == Some(true)
    }

    pub(super) fn sweep(&mut self) {
        while self.table.expire(self.now.wall, 10_000, &mut self.workers).more {}
    }

    pub(super) fn binding(&self, lease: Lease) -> Option<Binding> {
        self.table.binding(lease)
    }

    pub(super) fn status(&self, lease: Lease) -> Option<BindingStatus> {
        self.table.status(lease)
    }

    pub(super) fn counters(&self) -> FlowCounters {
        self.flow.counters()
    }

    pub(super) fn pending(&self) -> u64 {
        self.table.pending_updates(|_| true)
    }

    /// What both servers have to agree about.
    pub(super) fn view(&self) -> BTreeMap<Lease, View> {
        let mut view = BTreeMap::new();
        self.table.for_each(|binding| {
            let client = (binding.duid.as_bytes().to_vec(), binding.kind, binding.iaid.0);
            let times = (binding.start_time_of_state, binding.state_expiration_time);
            let lifetimes = (binding.preferred_lifetime, binding.valid_lifetime);
            view.insert(binding.lease, (binding.status, client, times, lifetimes));
        });
        view
    }
}

/// A binding without what each server knows for itself.
pub(super) type View =
    (BindingStatus, (Vec<u8>, IaKind, u32), (AbsoluteTime, AbsoluteTime), (u32, u32));

/// The frames without their size field.
pub(super) fn frames(mut octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (size, rest) = octets.split_first_chunk::<2>()?;
        let (frame, rest) = rest.split_at(u16::from_be_bytes(*size).into());
        octets = rest;
        Some(frame)
    })
}

/// Both servers.
pub(super) struct Pair {
    /// Primary and secondary.
    pub(super) nodes: [Node; 2],
}

impl Pair {
    /// Both in NORMAL state.
    pub(super) fn new() -> Self {
        let mut pair = Self::unconnected();
        pair.connect(1024);
        pair.run();
        // The secondary has got its prefixes; that is not what most tests count.
        pair.nodes.iter_mut().for_each(|node| node.flow.counters = FlowCounters::default());
        pair
    }

    pub(super) fn unconnected() -> Self {
        Self { nodes: [Node::new(Role::Primary), Node::new(Role::Secondary)] }
    }

    pub(super) fn primary(&mut self) -> &mut Node {
        &mut self.nodes[0]
    }

    pub(super) fn secondary(&mut self) -> &mut Node {
        &mut self.nodes[1]
    }

    /// Connects, and has both send what is pending.
    pub(super) fn connect(&mut self, max_unacked: u32) {
        self.disconnect();
        for node in &mut self.nodes {
            node.flow.connect(max_unacked);
            node.flow.send_pending();
        }
    }

    pub(super) fn disconnect(&mut self) {
        for node in &mut self.nodes {
            node.flow.disconnect();
            node.outbox.clear();
            node.sent.clear();
            node.in_flight = 0;
        }
    }

    /// One server sends what it can.
    pub(super) fn send(&mut self, from: usize) {
        let node = &mut self.nodes[from];
        node.commit();
        node.store();
        node.poll();
    }

    /// Up to `limit` frames arrive.
    pub(super) fn deliver(&mut self, from: usize, limit: usize) -> usize {
        let octets = std::mem::take(&mut self.nodes[from].sent);
        let (mut at, mut count) = (0, 0);
        for frame in frames(&octets).take(limit) {
            self.nodes[1 - from].receive(frame);
            at += 2 + frame.len();
            count += 1;
        }
        self.nodes[from].sent = octets[at..].to_vec();
        count
    }

    /// Until both are silent; returns the number of frames.
    pub(super) fn run(&mut self) -> usize {
        let mut total = 0;
        loop {
            let mut count = 0;
            for from in 0..2 {
                self.send(from);
                count += self.deliver(from, usize::MAX);
            }
            if count == 0 {
                return total;
            }
            total += count;
            assert!(total < 10_000_000, "they never stop");
        }
    }

    pub(super) fn advance(&mut self, secs: u32) {
        self.nodes.iter_mut().for_each(|node| node.advance(secs));
    }

    pub(super) fn assert_agree(&self) {
        let [a, b] = &self.nodes;
        let (mut mine, mut theirs) = (a.view(), b.view());
        // Only what differs is worth a look.
        let same: Vec<_> =
            mine.keys().filter(|l| mine.get(*l) == theirs.get(*l)).copied().collect();
        for lease in same {
            mine.remove(&lease);
            theirs.remove(&lease);
        }
        assert_eq!(mine, theirs);
        for at in 0..256_u128 {
            let base = "2001:db8:8000::".parse::<std::net::Ipv6Addr>().unwrap().to_bits();
            let lease = Lease::prefix((base + (at << 72)).into(), 56);
            assert_eq!(a.status(lease), b.status(lease), "{lease}");
        }
        assert_eq!((a.pending(), b.pending()), (0, 0));
    }
}

use gemel_wire::failover::FailoverMessage;
