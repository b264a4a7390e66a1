//! Accidents in any order, drawn from a seed. When they are over the pair is in NORMAL, however it
//! got there.

use ServerState as Is;
use gemel_lease::Responsiveness;

use super::*;
use crate::{
    rules::rules,
    testing::{ADDRESSES, MCLT, PREFIXES, PRIMARY, Pair, SECONDARY, secs},
};

/// Numbers that look random (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

fn accident(pair: &mut Pair, dice: &mut Dice) -> String {
    let who = if dice.roll(2) == 0 { PRIMARY } else { SECONDARY };
    let on = pair.servers[who].endpoint.is_some();
    let suspended = on && pair.status(who).suspended;
    let name = match dice.roll(14) {
        0 | 1 if on => {
            pair.kill(who);
            "kill"
        }
        2 if on => {
            pair.wipe(who);
            "kill, everything lost"
        }
        0..=4 if !on => {
            pair.start(who);
            "start"
        }
        3 | 4 => {
            pair.cut();
            "cut"
        }
        5 | 6 => {
            pair.join();
            "join"
        }
        7 => {
            pair.reset();
            "reset"
        }
        8 if on => {
            // It may be refused.
            _ = pair.command(who, Command::PartnerDown);
            "partner-down"
        }
        9 if suspended => {
            pair.command(who, Command::Resume).unwrap();
            "resume"
        }
        9 if on => {
            pair.command(who, Command::Suspend).unwrap();
            "suspend"
        }
        10 if on => {
            _ = pair.command(who, Command::Resync);
            "resync"
        }
        11 => {
            pair.servers[who].disk_is_slow ^= true;
            "slow or fast disk"
        }
        12 if on => {
            _ = pair.command(who, Command::Disconnect);
            "disconnect"
        }
        _ => "nothing",
    };
    format!("{who} {name}")
}

/// Clients get leases where they are answered; new ones every time, and some of them prefixes.
fn serve(pair: &mut Pair, client: &mut u32) {
    for who in [PRIMARY, SECONDARY] {
        let on = pair.servers[who].endpoint.is_some();
        if !on || pair.responsiveness(who) != Responsiveness::Responsive {
            continue;
        }
        for pool in [ADDRESSES, ADDRESSES, PREFIXES] {
            *client += 1;
            pair.grant(who, pool, *client);
        }
    }
}

/// What holds at any time.
fn check(pair: &Pair) {
    for who in [PRIMARY, SECONDARY] {
        let Some(endpoint) = &pair.servers[who].endpoint else { continue };
        let status = pair.status(who);
        let allowed = rules(status.role, status.state, status.mclt);
        assert!(status.rules.responsiveness as u8 <= allowed.responsiveness as u8, "{status:?}");
        assert!(allowed.mclt.is_none() || status.rules.mclt.is_some(), "{status:?}");
        // The disk never promises less than what is done.
        if status.rules.responsiveness != Responsiveness::Unresponsive {
            let disk = pair.servers[who].disk.as_ref().expect("stored before it served");
            let stored = rules(status.role, disk.state, status.mclt);
            assert!(status.rules.responsiveness as u8 <= stored.responsiveness as u8, "{status:?}");
            assert!(status.rules.mclt.is_some() || disk.state == Is::PartnerDown);
            assert!(!status.suspended);
        }
        assert_eq!(endpoint.wants_connection(), !status.suspended && !endpoint.connection.exists());
    }
}

const SEEDS: u64 = 100;

#[test]
fn the_pair_always_finds_back() {
    for seed in 0..SEEDS {
        let mut dice = Dice(seed);
        let mut pair = Pair::new();
        let alone = dice.roll(4);
        pair.servers[PRIMARY].config.start_in_partner_down = alone == 1;
        let auto = (dice.roll(3) == 0).then(|| secs(40));
        pair.servers[SECONDARY].config.auto_partner_down = auto;
        for who in [PRIMARY, SECONDARY] {
            pair.kill(who);
            pair.start(who);
        }
        let (mut story, mut client) = (Vec::new(), 0);
        for _ in 0..40 {
            story.push(accident(&mut pair, &mut dice));
            let time = [0, 1, 3, 8, 30, u64::from(MCLT)][usize::try_from(dice.roll(6)).unwrap()];
            pair.run(time);
            story.push(format!("{time} s"));
            check(&pair);
            serve(&mut pair, &mut client);
        }
        pair.join();
        for who in [PRIMARY, SECONDARY] {
            pair.servers[who].disk_is_slow = false;
            if pair.servers[who].endpoint.is_none() {
                pair.start(who);
            }
            if pair.status(who).suspended {
                pair.command(who, Command::Resume).unwrap();
            }
        }
        pair.run(2 * u64::from(MCLT));
        let states = (pair.state(PRIMARY), pair.state(SECONDARY));
        assert_eq!(states, (Is::Normal, Is::Normal), "seed {seed}: {story:#?}");
        for who in [PRIMARY, SECONDARY] {
            let status = pair.status(who);
            assert!(!status.memory_lost && !status.updates_requested, "seed {seed}: {status:?}");
            assert_eq!(pair.servers[who].disk.as_ref().unwrap().state, Is::Normal);
            assert_eq!(status.partner.unwrap().0, Is::Normal, "seed {seed}");
        }
        println!("seed {seed}: {client} clients");
        pair.assert_agreement();
        assert_eq!(pair.responsiveness(PRIMARY), Responsiveness::Responsive);
        assert_eq!(pair.responsiveness(SECONDARY), Responsiveness::RenewResponsive);
    }
}
