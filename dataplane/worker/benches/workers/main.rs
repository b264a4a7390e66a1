//! What two workers do that share one lease table, beside one alone, and what a message costs with
//! millions of bindings.
//!
//! Each worker runs its whole loop over a port in memory: messages in, rules, lease table, updates
//! handed over, replies out. The part of the control thread is played by whichever worker has ended a
//! turn, since a third thread would have no core of its own on a small machine. What a system call
//! costs is left out. The messages are written into the frames between the turns, which costs some
//! 50 ns that are counted.
//!
//! Options: `--clients N --seconds S --repetitions N --cores A,B --work NAME --alone --json`.

#[path = "../support/mod.rs"]
mod support;

mod options;
mod queue;

use std::{
    sync::{Arc, Barrier},
    thread,
};

use crossbeam::channel::bounded;
use gemel_lease::LeaseTable;
use options::Options;
use queue::{Control, Pace, Queue, Work};
use serde_json::{Map, Value, json};
use support::Site;

/// The cost of one kind of work, round by round.
#[derive(Default)]
struct Rounds {
    /// Each worker alone, and beside the other.
    alone: [Vec<Pace>; 2],
    beside: [Vec<Pace>; 2],
    /// How often a lock was not free, for each million messages of two workers.
    waits: Vec<f64>,
}

struct Bench {
    options: Options,
    table: Arc<LeaseTable>,
    queues: [Queue; 2],
    control: Control,
}

impl Bench {
    fn new(options: Options) -> Self {
        let Options { clients, .. } = options;
        // Sparse, as a whole /64 is. Room for those that come and go beside those that stay.
        let site = Site::new("2001:db8::ffff:ffff:ffff:ffff", clients as usize * 17 / 16);
        let (sender, submissions) = bounded(64);
        let (control, submitters) = Control::new(sender, submissions);
        let mut number = 0;
        let queues = submitters.map(|submitter| {
            number += 1;
            Queue::new(&site, submitter, (number - 1) * (clients / 2), clients / 2)
        });
        Self { options, table: site.table, queues, control }
    }

    /// Lets the workers that are given run at the same time.
    fn run(&mut self, work: Work, workers: std::ops::Range<usize>) -> [Option<Pace>; 2] {
        let barrier = Barrier::new(workers.len());
        let (options, control) = (&self.options, &self.control);
        let mut paces = [None, None];
        thread::scope(|scope| {
            let threads: Vec<_> = workers
                .clone()
                .zip(&mut self.queues[workers])
                .map(|(number, queue)| {
                    let (barrier, core) = (&barrier, options.cores[number]);
                    let run = move || queue.run(work, core, options.seconds, barrier, control);
                    (number, scope.spawn(run))
                })
                .collect();
            for (number, thread) in threads {
                paces[number] = Some(thread.join().expect("no worker panics"));
            }
        });
        paces
    }

    /// Gives every client its address.
    fn fill(&mut self) {
        let barrier = Barrier::new(2);
        let control = &self.control;
        thread::scope(|scope| {
            for (queue, core) in self.queues.iter_mut().zip(self.options.cores) {
                let barrier = &barrier;
                scope.spawn(move || queue.fill(core, barrier, control));
            }
        });
        assert_eq!(self.table.len(), self.options.clients as usize / 2 * 2);
    }

    fn round(&mut self, work: Work, round: u32, rounds: &mut Rounds) {
        // Who is first changes, in case that matters.
        let mut order = [0..1, 1..2, 0..2];
        order.rotate_left(round as usize % 3);
        for workers in order {
            if self.options.alone && workers != (0..1) {
                continue;
            }
            let before = self.table.lock_waits();
            let paces = self.run(work, workers.clone());
            let waits = self.table.lock_waits() - before;
            let messages: u64 = paces.iter().flatten().map(|pace| pace.messages).sum();
            let side = if workers.len() == 2 { &mut rounds.beside } else { &mut rounds.alone };
            for (side, pace) in side.iter_mut().zip(paces) {
                side.extend(pace);
            }
            if workers.len() == 2 {
                rounds.waits.push(waits as f64 * 1e6 / messages as f64);
            }
        }
    }
}

impl Rounds {
    fn report(&self, work: Work) -> Value {
        if self.beside[0].is_empty() {
            return self.report_alone(work);
        }
        let all = self.beside[0].len();
        let mut rounds = self.undisturbed();
        let undisturbed = rounds.len();
        if rounds.is_empty() {
            // Better than nothing, and said so below.
            rounds = (0..all).collect();
        }
        let median = |paces: &[Pace], value: fn(&Pace) -> f64| {
            let values = rounds.iter().map(|round| value(&paces[*round])).collect();
            spread(values).map_or(f64::NAN, |spread| spread[1])
        };
        let alone = self.alone.each_ref().map(|paces| median(paces, Pace::cpu_ns));
        let rates = self.alone.each_ref().map(|paces| median(paces, Pace::per_s));
        let beside = self.beside.each_ref().map(|paces| median(paces, Pace::cpu_ns));
        // What both do in a second of processor time each, against what one does alone.
        let ratio =
            |rate: fn(&Pace) -> f64| spread(self.ratios(&rounds, rate)).expect("some rounds");
        let by_cpu = ratio(|pace| 1e9 / pace.cpu_ns());
        let by_wall = ratio(Pace::per_s);
        let waits = spread(self.waits.clone()).expect("some rounds");
        println!(
            "{:9} alone {:4.0} and {:4.0} ns of processor time/message, side by side {:4.0} and \
             {:4.0}; two do {:.2} times the work of one ({:.2} to {:.2}; by wall time {:.2}, {:.2} \
             to {:.2}; {} of {} rounds undisturbed); {:.0} waits for a lock in a million messages",
            work.name(),
            alone[0],
            alone[1],
            beside[0],
            beside[1],
            by_cpu[1],
            by_cpu[0],
            by_cpu[2],
            by_wall[1],
            by_wall[0],
            by_wall[2],
            undisturbed,
            all,
            waits[1],
        );
        json!({
            "ns_alone": alone,
            "ns_side_by_side": beside,
            "messages_per_s_alone": rates,
            "ratio": {"low": by_cpu[0], "median": by_cpu[1], "high": by_cpu[2]},
            "ratio_wall": {"low": by_wall[0], "median": by_wall[1], "high": by_wall[2]},
            "rounds": all,
            "rounds_undisturbed": undisturbed,
            "lock_waits_per_million": waits[1],
        })
    }

    /// Of the first worker.
    fn report_alone(&self, work: Work) -> Value {
        let spread_of = |value: fn(&Pace) -> f64| {
            spread(self.alone[0].iter().map(value).collect()).expect("some rounds")
        };
        let (ns, rate) = (spread_of(Pace::cpu_ns), spread_of(Pace::per_s));
        println!(
            "{:9} {:.0} ns of processor time/message ({:.0} to {:.0}), {:.0} messages/s",
            work.name(),
            ns[1],
            ns[0],
            ns[2],
            rate[1],
        );
        json!({
            "ns_per_message": {"low": ns[0], "median": ns[1], "high": ns[2]},
            "messages_per_s": rate[1],
        })
    }

    /// The rounds in which nobody else had the cores: only then have two workers really been at work at
    /// the same time.
    fn undisturbed(&self) -> Vec<usize> {
        let sides = || self.alone.iter().chain(&self.beside);
        let all = 0..self.beside[0].len();
        let is_undisturbed = |round: &usize| sides().all(|paces| paces[*round].is_undisturbed());
        all.filter(is_undisturbed).collect()
    }

    /// Round by round, the rate of two as a multiple of the mean rate of one.
    fn ratios(&self, rounds: &[usize], rate: impl Fn(&Pace) -> f64) -> Vec<f64> {
        let sum = |sides: &[Vec<Pace>; 2], round: usize| -> f64 {
            sides.iter().map(|paces| rate(&paces[round])).sum()
        };
        let ratio = |round: &usize| 2.0 * sum(&self.beside, *round) / sum(&self.alone, *round);
        rounds.iter().map(ratio).collect()
    }
}

/// Lowest, median and highest.
fn spread(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_unstable_by(f64::total_cmp);
    Some([*values.first()?, values[values.len() / 2], *values.last()?])
}

fn main() {
    let options = Options::from_arguments();
    let (repetitions, json, works) = (options.repetitions, options.json, options.works.clone());
    let clients = options.clients;
    let mut bench = Bench::new(options);
    bench.fill();
    let mut all: Vec<(Work, Rounds)> =
        works.into_iter().map(|work| (work, Rounds::default())).collect();
    for round in 0..repetitions {
        for (work, rounds) in &mut all {
            bench.round(*work, round, rounds);
        }
    }
    println!("{clients} clients, {repetitions} repetitions: medians");
    let mut report = Map::new();
    for (work, rounds) in &all {
        report.insert(work.name().to_owned(), rounds.report(*work));
    }
    if json {
        println!("{}", json!({"clients": clients, "repetitions": repetitions, "work": report}));
    }
}
