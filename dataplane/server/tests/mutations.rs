//! Broken messages by the million, through the codec and the rules.
//!
//! `GEMEL_MUTATIONS` is the number of packets (300,000 unless set; 10,000,000 take about a minute
//! with `--release`), `GEMEL_SEED` the seed. A failure prints both, and the packet.

mod support;

use std::{collections::HashMap, env, sync::Arc};

use gemel_lease::{ClientKey, IaKind, Lease, LeaseTable, PairPolicy, PairRules, Responsiveness};
use gemel_server::{DropReason, Inbound, Outcome, Recall, Service};
use gemel_wire::{
    Ia, IaAddr, IaPrefix, IaTa, MessageType, OptionCode, OptionRequest, Options, Packet, Status,
};
use support::*;

/// xorshift64*; a seed of its own for each packet.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give neighbouring numbers.
        let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((mixed ^ (mixed >> 31)) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from((self.next() >> 16) % limit as u64).unwrap()
    }

    fn octet(&mut self) -> u8 {
        (self.next() >> 32).to_be_bytes()[7]
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// Good messages of all kinds, from a few clients.
fn corpus() -> Vec<Vec<u8>> {
    let mut corpus = Vec::new();
    let oro = [OptionCode::DNS_SERVERS, OptionCode::SOL_MAX_RT, OptionCode(300)];
    for number in 1..=11 {
        for client in [CLIENT, OTHER, &[0, 4, 1, 2, 3]] {
            let msg_type = MessageType(number);
            let build = Build::new(msg_type).client(client);
            let build = match number {
                3 | 5 | 8 | 9 => build.server(SERVER),
                1 => build.rapid(),
                _ => build,
            };
            let build = build.oro(&oro).option(OptionCode::ELAPSED_TIME, &[0, 1]);
            corpus.push(if number == 11 {
                build.done()
            } else {
                build
                    .na(1, &[addr("2001:db8:a::1001"), addr("2001:db8:b::1000")])
                    .pd(2, &[pd("2001:db8:a000:100::/56"), pd("::/60")])
                    .na(3, &[])
                    .ta(4, &[addr("2001:db8:a::1")])
                    .done()
            });
        }
    }
    for build in [MessageType::SOLICIT, MessageType::REQUEST, MessageType::RENEW] {
        corpus.push(Build::valid(build).na(1, &[addr("2001:db8:b::1000")]).pd(1, &[]).done());
    }
    let many = (0..16).fold(Build::valid(MessageType::SOLICIT), |build, iaid| build.na(iaid, &[]));
    corpus.extend(vec![many.done(); 4]);
    let relayed: Vec<_> = corpus.iter().map(|message| relay(&level(0), message)).collect();
    let twice: Vec<_> = relayed.iter().map(|message| relay(&level(1), message)).collect();
    corpus.extend(relayed);
    corpus.extend(twice);
    corpus
}

fn level(hop_count: u8) -> Level {
    let options = vec![
        (OptionCode::INTERFACE_ID, b"port-a".to_vec()),
        (OptionCode::RELAY_PORT, vec![0, 0]),
        (OptionCode::REMOTE_ID, vec![0; 9]),
    ];
    Level { hop_count, link: ip("2001:db8:b::1"), peer: ip("fe80::9"), options }
}

/// Where options begin, at every depth, so far as the bytes can be read as options.
fn option_places(octets: &[u8], at: usize, depth: u8, places: &mut Vec<(usize, usize)>) {
    let mut at = at;
    while let Some([c0, c1, l0, l1]) = octets.get(at..at + 4) {
        let code = OptionCode(u16::from_be_bytes([*c0, *c1]));
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        let end = (at + 4 + len).min(octets.len());
        places.push((at, end));
        let nested = match code {
            OptionCode::IA_NA | OptionCode::IA_PD => Some(12),
            OptionCode::IA_TA => Some(4),
            OptionCode::IA_ADDR => Some(24),
            OptionCode::IA_PREFIX => Some(25),
            OptionCode::RELAY_MSG => octets.get(at + 4).map(|first| match first {
                12 | 13 => 34,
                _ => 4,
            }),
            _ => None,
        };
        if let Some(fixed) = nested
            && depth < 12
        {
            option_places(&octets[..end], at + 4 + fixed, depth + 1, places);
        }
        at = end;
    }
}

fn places(octets: &[u8]) -> Vec<(usize, usize)> {
    let start = if matches!(octets.first(), Some(12 | 13)) { 34 } else { 4 };
    let mut places = Vec::new();
    option_places(octets, start, 0, &mut places);
    places
}

fn mutate(random: &mut Random, corpus: &[Vec<u8>], packet: &mut Vec<u8>) {
    if packet.is_empty() {
        packet.clone_from(random.pick(corpus));
    }
    let at = random.below(packet.len());
    let found = places(packet);
    let place = (!found.is_empty()).then(|| *random.pick(&found));
    match (random.below(14), place) {
        (0, _) => packet[at] ^= 1 << random.below(8),
        (1, _) => packet[at] = random.octet(),
        (2, _) => packet[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        (3, _) => packet.truncate(at),
        (4, _) => {
            let octets: Vec<u8> = (0..random.below(20)).map(|_| random.octet()).collect();
            splice(random, &found, packet, (at, at), &octets);
        }
        (5, _) => packet[0] = (random.below(20)).to_be_bytes()[7],
        (6, _) => {
            let hop = random.below(11).to_be_bytes()[7];
            *packet = relay(&level(hop), packet);
        }
        // A length field: off by a little, or anything.
        (7, Some((start, _))) if start + 4 <= packet.len() => {
            let old = u16::from_be_bytes([packet[start + 2], packet[start + 3]]);
            let new = match random.below(4) {
                0 => old.wrapping_add(1),
                1 => old.wrapping_sub(1),
                2 => u16::from(random.octet()),
                _ => u16::from_be_bytes([random.octet(), random.octet()]),
            };
            packet[start + 2..start + 4].copy_from_slice(&new.to_be_bytes());
        }
        // Another code for an option.
        (8, Some((start, _))) => packet[start + 1] = random.octet() % 40,
        // An option once more, elsewhere.
        (9 | 10, Some((start, end))) => {
            let option = packet[start..end].to_vec();
            let to = random.pick(&found).0;
            splice(random, &found, packet, (to, to), &option);
        }
        // An option of another message.
        (11, Some((to, _))) => {
            let other = random.pick(corpus);
            let theirs = places(other);
            if !theirs.is_empty() {
                let (start, end) = *random.pick(&theirs);
                splice(random, &found, packet, (to, to), &other[start..end]);
            }
        }
        (12, Some(place)) => splice(random, &found, packet, place, &[]),
        _ => repair(packet),
    }
}

/// Replaces octets, and mostly corrects the lengths of the options around them, so that what is
/// inside comes to be looked at.
fn splice(
    random: &mut Random,
    found: &[(usize, usize)],
    packet: &mut Vec<u8>,
    (start, end): (usize, usize),
    with: &[u8],
) {
    if random.below(4) > 0 {
        for (outer, outer_end) in found {
            let around =
                outer + 4 <= start && end <= *outer_end && (start, end) != (*outer, *outer_end);
            if let (true, Some(len)) =
                (around, (outer_end - outer + with.len()).checked_sub(4 + end - start))
            {
                let len = u16::try_from(len).unwrap_or(u16::MAX);
                packet[outer + 2..outer + 4].copy_from_slice(&len.to_be_bytes());
            }
        }
    }
    packet.splice(start..end, with.iter().copied());
}

/// Shortens options that run over the end of what holds them.
fn repair(packet: &mut [u8]) {
    for (start, end) in places(packet) {
        if start + 4 <= end {
            let len = u16::try_from(end - start - 4).unwrap_or(u16::MAX);
            packet[start + 2..start + 4].copy_from_slice(&len.to_be_bytes());
        }
    }
}

/// Looks at everything the codec can see in a message.
fn walk(octets: &[u8], depth: usize) -> usize {
    match Packet::parse(octets) {
        Ok(Packet::Client(message)) => walk_options(message.options, depth),
        Ok(Packet::Relay(message)) => walk_options(message.options, depth),
        Err(_) => 0,
    }
}

fn walk_options(options: Options<'_>, depth: usize) -> usize {
    if depth > 40 {
        return 0;
    }
    let mut seen = 0;
    for option in options {
        let data = option.data;
        seen += 1
            + Ia::parse(data).map_or(0, |ia| walk_options(ia.options, depth + 1))
            + IaTa::parse(data).map_or(0, |ia| walk_options(ia.options, depth + 1))
            + IaAddr::parse(data).map_or(0, |body| walk_options(body.options, depth + 1))
            + IaPrefix::parse(data).map_or(0, |body| walk_options(body.options, depth + 1))
            + OptionRequest::parse(data).map_or(0, |oro| oro.codes().count())
            + Status::parse(data).map_or(0, |status| status.message.len());
        if option.code == OptionCode::RELAY_MSG {
            seen += walk(data, depth + 1);
        }
    }
    seen
}

/// Tells how to repeat a failure.
struct Failure<'a> {
    seed: u64,
    number: u64,
    packet: &'a [u8],
}

impl Drop for Failure<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.packet.iter().map(|octet| format!("{octet:02x}")).collect();
            eprintln!("GEMEL_SEED={} packet {}: {hex}", self.seed, self.number);
        }
    }
}

fn number_from(variable: &str, default: u64) -> u64 {
    match env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => default,
    }
}

/// A store that has nothing.
#[derive(Debug)]
struct Empty;

impl Recall for Empty {
    fn recall(&self, _: &LeaseTable, _: ClientKey<'_>, _: Lease) {}
}

#[test]
fn mutated_packets_never_panic_and_replies_are_well_formed() {
    let count = number_from("GEMEL_MUTATIONS", 300_000);
    let seed = number_from("GEMEL_SEED", 0x6765_6d65_6c00);
    let corpus = corpus();
    let policy = Arc::new(PairPolicy::new());
    let mut lab = Lab::with(|config| config.links[2].pair = Some(Arc::clone(&policy)));
    let mut reply = vec![0; 65_536];
    let mut drops: HashMap<DropReason, u64> = HashMap::new();
    let (mut replies, mut leases, mut seen) = (0_u64, 0_usize, 0_usize);
    for number in 0..count {
        let mut random = Random::new(seed.wrapping_add(number));
        let mut packet = random.pick(&corpus).clone();
        for _ in 0..random.below(5) {
            mutate(&mut random, &corpus, &mut packet);
            packet.truncate(9000);
        }
        let failure = Failure { seed, number, packet: &packet };
        seen += walk(&packet, 0);
        let inbound = Inbound {
            payload: &packet,
            source: *random.pick(&[ip("fe80::9"), ip("2001:db8:a::5"), ip("2001:db9::1")]),
            source_port: 546,
            destination: gemel_wire::ALL_RELAY_AGENTS_AND_SERVERS,
            interface: *random.pick(&[ALPHA, BETA, GAMMA, 77]),
        };
        let service = if random.below(8) == 0 { Service::ReadOnly } else { Service::Full };
        let room = if random.below(10) == 0 { random.below(300) } else { 9000 };
        if random.below(50) == 0 {
            lab.now = lab.now.plus(400);
            lab.server.table().expire(lab.now, 1000, &mut lab.updates);
            let responsiveness = *random.pick(&[
                Responsiveness::Unresponsive,
                Responsiveness::RenewRecorded,
                Responsiveness::RenewResponsive,
                Responsiveness::Responsive,
            ]);
            policy.set(PairRules { responsiveness, mclt: Some(600) });
        }
        lab.updates.clear();
        let (now, room) = (lab.now, &mut reply[..room]);
        let outcome = if random.below(20) == 0 {
            lab.server.handle_warming(&inbound, now, service, &Empty, room, &mut lab.updates)
        } else {
            lab.server.handle(&inbound, now, service, room, &mut lab.updates)
        };
        match outcome {
            Outcome::Reply(info) => {
                assert_eq!(info.held, !lab.updates.is_empty());
                assert!(service == Service::Full || lab.updates.is_empty());
                let answer = Answer::read(&reply[..info.len]);
                assert_eq!(answer.msg_type, info.reply);
                replies += 1;
                for (ia, (lease, _, valid)) in
                    answer.ias.iter().flat_map(|ia| ia.leases.iter().map(move |l| (ia, l)))
                {
                    leases += 1;
                    // Whatever a client may use after a REPLY is in the table, for it alone.
                    if *valid > 0 && info.reply == MessageType::REPLY {
                        let binding = lab.binding(*lease).expect("a binding");
                        assert_eq!((binding.iaid.0, binding.kind), (ia.iaid, ia.kind));
                        assert!(ia.kind != IaKind::Ta);
                    }
                }
            }
            Outcome::Drop(reason) => {
                assert!(reason == DropReason::ReplyTooLarge || lab.updates.is_empty());
                *drops.entry(reason).or_default() += 1;
            }
        }
        drop(failure);
    }
    let mut counts: Vec<_> = drops.iter().map(|(reason, count)| (*count, reason)).collect();
    counts.sort_unstable_by_key(|(count, reason)| (*count, reason.index()));
    println!("{count} packets: {replies} replies, {leases} leases, {seen} options; {counts:?}");
    if count >= 100_000 {
        // The packets are not so broken that they tell nothing.
        assert!(replies > count / 10 && leases > 1000);
        let unseen: Vec<_> = DropReason::ALL
            .iter()
            .filter(|reason| !drops.contains_key(reason))
            .filter(|reason| **reason != DropReason::Unicast)
            .collect();
        assert!(unseen.is_empty(), "causes never met: {unseen:?}");
    }
}
