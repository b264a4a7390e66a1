//! What a seed decides before anything happens: the pair, its clients, and which faults there are.

use std::str::FromStr;

use crate::clock::{MILLISECOND, Micros, SECOND};
use crate::fault::Fault;
use crate::rng::Rng;

/// Between sending and reception, by the clocks of the two (section 7.1).
const SKEW_ALLOWED: Micros = 5 * SECOND;

/// A rule that is broken on purpose, to show that the checkers would notice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Break {
    /// The servers forget the MCLT (section 4.4).
    Mclt,
    /// A lease that has ended is given to somebody else before the partner has agreed (section
    /// 4.2.2.1).
    ReallocationWait,
    /// The secondary gives out the primary's addresses and prefixes (sections 4.2.1.1 and 4.2.2).
    Parity,
    /// BNDREPLY leaves before the update is stored (section 7.5.2).
    DurableBeforeReply,
    /// Every update is accepted (section 7.5.4).
    ConflictTable,
}

impl Break {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Mclt,
        Self::ReallocationWait,
        Self::Parity,
        Self::DurableBeforeReply,
        Self::ConflictTable,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mclt => "mclt",
            Self::ReallocationWait => "reallocation-wait",
            Self::Parity => "parity",
            Self::DurableBeforeReply => "durable-before-reply",
            Self::ConflictTable => "conflict-table",
        }
    }
}

impl FromStr for Break {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL
            .into_iter()
            .find(|rule| rule.as_str() == text)
            .ok_or_else(|| format!("no rule {text:?}; there are {}", names()))
    }
}

/// What the clients are like.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Mean time between two events in a client's life, apart from renewals.
    pub life: Micros,
    /// How often such an event is a RELEASE.
    pub release: u64,
    /// A DECLINE, of those who have addresses alone.
    pub decline: u64,
    /// The client falls silent and comes back.
    pub silence: u64,
    /// The same, and it has forgotten its leases.
    pub amnesia: u64,
    /// A REBIND out of turn, as after a reboot.
    pub reboot: u64,
    /// How long a client stays away at most.
    pub away_max: Micros,
    /// Parts per million by which clients' clocks are wrong at most.
    pub drift_ppm_max: i64,
}

/// Everything that is fixed when a run begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all of this comes from.
    pub seed: u64,
    /// A rule that the servers break.
    pub broken: Option<Break>,
    /// Number of clients.
    pub clients: usize,
    /// Share of clients with IA_PD alone, and with both kinds, in permille.
    pub pd_only: u64,
    /// See `pd_only`.
    pub both: u64,
    /// Number of addresses in the pool; 0 for a whole /64, which is kept sparse.
    pub addresses: u32,
    /// Number of delegable prefixes as a power of two.
    pub prefixes_log2: u8,
    /// Valid lifetime in seconds.
    pub valid: u32,
    /// Preferred lifetime in seconds.
    pub preferred: u32,
    /// Maximum Client Lead Time in seconds.
    pub mclt: u32,
    /// How long declined addresses are kept out of use, in seconds.
    pub decline_hold: u32,
    /// Whether servers answer to Rapid Commit, and how many clients ask for it, in permille.
    pub rapid_commit: u64,
    /// Whether RENEW creates bindings.
    pub create_on_renew: bool,
    /// FO_KEEPALIVE_TIME in seconds.
    pub keepalive_secs: u32,
    /// Length of STARTUP in seconds.
    pub startup_secs: u64,
    /// Automatic PARTNER-DOWN after so many seconds.
    pub auto_partner_down_secs: Option<u64>,
    /// Part of the secondary in percent.
    pub secondary_share_percent: u8,
    /// Threshold of the balance in percent.
    pub balance_threshold_percent: u8,
    /// Window of unacknowledged BNDUPDs.
    pub window: u32,
    /// When an answer of the partner is overdue, in seconds.
    pub response_secs: u64,
    /// Interval between attempts to connect.
    pub connect_interval: Micros,
    /// When faults begin, and when the last one ends.
    pub faults: (Micros, Micros),
    /// Mean time between faults.
    pub fault_interval: Micros,
    /// How often each fault is chosen, in the order of [`Fault::ALL`].
    pub weights: [u64; Fault::ALL.len()],
    /// Faults that the RFC cannot make good are among them: an operator who says PARTNER-DOWN while
    /// the partner serves, or a timer that does.
    pub careless: bool,
    /// Messages of clients that are lost, in permille, and those that arrive twice.
    pub loss: u64,
    /// See `loss`.
    pub duplication: u64,
    /// The longest time that a message of a client is under way.
    pub delay_max: Micros,
    /// The longest time that a segment between the servers is under way.
    pub segment_delay_max: Micros,
    /// The longest time that a commit takes.
    pub commit_max: Micros,
    /// The pair thread is told late of what was committed, or not at all, in permille.
    pub overflow: u64,
    /// The furthest that a wall clock is off without breaking section 7.1; see [`Plan::offset`].
    pub skew_max: Micros,
    /// Parts per million by which the servers' clocks are wrong at most.
    pub drift_ppm_max: i64,
    /// What the clients are like.
    pub habits: Habits,
}

impl Plan {
    /// A pair without faults and without clients, for scenarios.
    #[must_use]
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            broken: None,
            clients: 0,
            pd_only: 0,
            both: 1000,
            addresses: 32,
            prefixes_log2: 4,
            valid: 600,
            preferred: 400,
            mclt: 60,
            decline_hold: 300,
            rapid_commit: 0,
            create_on_renew: true,
            keepalive_secs: 6,
            startup_secs: 5,
            auto_partner_down_secs: None,
            secondary_share_percent: 25,
            balance_threshold_percent: 10,
            window: 64,
            response_secs: 30,
            connect_interval: 2 * SECOND,
            faults: (0, 0),
            fault_interval: SECOND,
            weights: [0; Fault::ALL.len()],
            careless: false,
            loss: 0,
            duplication: 0,
            delay_max: 20 * MILLISECOND,
            segment_delay_max: 5 * MILLISECOND,
            commit_max: 5 * MILLISECOND,
            overflow: 0,
            skew_max: 0,
            drift_ppm_max: 0,
            habits: Habits {
                life: 1_000_000 * SECOND,
                release: 0,
                decline: 0,
                silence: 0,
                amnesia: 0,
                reboot: 0,
                away_max: 0,
                drift_ppm_max: 0,
            },
        }
    }

    /// What this seed decides.
    #[must_use]
    pub fn random(seed: u64, broken: Option<Break>) -> Self {
        let mut rng = Rng::new(seed);
        let rng = &mut rng;
        let crowd = match rng.below(20) {
            0 => rng.range(100, 250),
            1..=4 => rng.range(40, 80),
            _ => rng.range(4, 30),
        };
        let valid = pick(rng, &[300, 600, 600, 900]);
        let mclt = pick(rng, &[30, 60, 60, 120]);
        let careless = rng.chance(250);
        let begin = rng.range(5, 150) * SECOND;
        let fault_interval = rng.range(5, 40) * SECOND;
        let end = begin + rng.range(600, 2400) * SECOND;
        // Not every fault in every run: what is rare among many is common among few.
        let weights = std::array::from_fn(|index| {
            let fault = Fault::ALL[index];
            let wanted = !fault.is_careless() || careless;
            if wanted && rng.chance(600) { rng.range(1, 10) } else { 0 }
        });
        let auto = careless && rng.chance(400);
        let connect_interval = rng.range(500, 4000) * MILLISECOND;
        let segment_delay_max = pick(rng, &[1, 10, 100, 400]) * MILLISECOND;
        let commit_max = pick(rng, &[1, 5, 20, 200]) * MILLISECOND;
        // Long enough to find a partner that is there (section 8.3.2 step 3).
        let startup = connect_interval + 10 * segment_delay_max + 6 * commit_max;
        Self {
            seed,
            broken,
            clients: usize::try_from(crowd).unwrap_or(4),
            pd_only: rng.range(0, 400),
            both: rng.range(0, 600),
            addresses: if rng.chance(100) {
                0
            } else {
                u32::try_from(crowd * rng.range(60, 250) / 100).unwrap_or(8).max(4)
            },
            prefixes_log2: u8::try_from(rng.range(2, 6)).unwrap_or(4),
            valid,
            preferred: valid * 2 / 3,
            mclt,
            decline_hold: pick(rng, &[60, 300]),
            rapid_commit: if rng.chance(300) { rng.range(100, 1000) } else { 0 },
            create_on_renew: rng.chance(700),
            keepalive_secs: pick(rng, &[3, 6, 6, 12, 20]),
            startup_secs: startup / SECOND + rng.range(1, 4),
            auto_partner_down_secs: auto.then(|| rng.range(40, 300)),
            secondary_share_percent: pick(rng, &[10, 20, 50]),
            balance_threshold_percent: pick(rng, &[0, 5, 20]),
            window: pick(rng, &[1, 2, 16, 256]),
            response_secs: rng.range(10, 40),
            connect_interval,
            faults: (begin, end),
            fault_interval,
            weights,
            careless,
            loss: pick(rng, &[0, 10, 50, 200]),
            duplication: pick(rng, &[0, 10, 100]),
            delay_max: pick(rng, &[5, 50, 500, 1500]) * MILLISECOND,
            segment_delay_max,
            commit_max,
            overflow: pick(rng, &[0, 0, 5, 50, 300]),
            skew_max: pick(rng, &[0, 500, 2400]) * MILLISECOND,
            drift_ppm_max: i64::try_from(pick(rng, &[0_u64, 50, 150])).unwrap_or(0),
            habits: Habits {
                life: rng.range(100, 2000) * SECOND,
                release: rng.below(4),
                decline: rng.below(2),
                silence: rng.below(4),
                amnesia: rng.below(2),
                reboot: rng.below(3),
                away_max: rng.range(50, 1500) * SECOND,
                drift_ppm_max: i64::try_from(pick(rng, &[0_u64, 100, 1000])).unwrap_or(0),
            },
        }
    }

    /// Of a clock that is to be within what section 7.1 allows: this much ahead, or a bit less. The
    /// time that a message is under way counts with the difference of the clocks, and so does what
    /// they drift until all has been told.
    #[must_use]
    pub fn offset(&self, drawn: i64) -> i64 {
        let drift = 200 * MILLISECOND;
        let most = (SKEW_ALLOWED - self.segment_delay_max - drift) / 2;
        let most = i64::try_from(most).unwrap_or(0);
        drawn.clamp(-most, most)
    }

    /// How long two clients may believe in one lease without anybody being to blame: lifetimes are
    /// whole seconds, and a server's clock may run fast.
    #[must_use]
    pub fn slack(&self) -> Micros {
        2 * SECOND
    }
}

fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.index(choices.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_names() {
        for rule in Break::ALL {
            assert_eq!(rule.as_str().parse(), Ok(rule));
        }
        assert!("mclt2".parse::<Break>().unwrap_err().contains("durable-before-reply"));
    }

    #[test]
    fn clocks_that_are_right_keep_no_servers_apart() {
        for seed in 0..200 {
            let plan = Plan::random(seed, None);
            let skew_max = i64::try_from(plan.skew_max).unwrap();
            let offset = plan.offset(skew_max);
            assert!(offset <= skew_max && plan.offset(-skew_max) == -offset);
            let apart = u64::try_from(2 * offset).unwrap() + plan.segment_delay_max;
            assert!(apart < SKEW_ALLOWED, "seed {seed}: {apart}");
        }
    }

    #[test]
    fn careful_operators_do_nothing_careless() {
        for seed in 0..200 {
            let plan = Plan::random(seed, None);
            let careless = Fault::ALL.iter().zip(plan.weights);
            assert!(plan.careless || careless.clone().all(|(it, w)| w == 0 || !it.is_careless()));
            assert!(plan.careless || plan.auto_partner_down_secs.is_none());
        }
    }
}
