//! What the machine itself takes from whoever runs on its cores.

use std::process::Command;

use anyhow::{Context, Result};
use gemel_tests::{bench, requirement};
use serde_json::{Value, json};

use super::spread;
use crate::measuring::Cores;

/// Gaps of at least this many microseconds count: the latency that is aimed at.
const GAP_US: u64 = 150;
/// Seconds of one look.
const SECONDS: &str = "1";

/// Looks at the two cores, one for each round.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    looks: Vec<[Look; 2]>,
}

/// One core: the share of its time that gaps took, and the longest in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    share: f64,
    longest_us: f64,
}

impl Stalls {
    /// Watches the generator's and the server's core at once, with nothing else running.
    pub(super) fn look(&mut self, cores: &Cores) -> Result<()> {
        let both = format!("{},{}", cores.generator_core, cores.server_core);
        let mut command = Command::new(requirement::binary("gemel-bench")?);
        command.args(["stalls", "--json", "--seconds", SECONDS, "--cores", &both]);
        let value = bench::run(command)?;
        let look = |core: usize| {
            let found = &value["cores"][core];
            let over = found["over"].as_array()?.iter().find(|over| over["us"] == GAP_US)?;
            Some(Look { share: over["share"].as_f64()?, longest_us: found["longest_us"].as_f64()? })
        };
        let looks =
            [look(0), look(1)].map(|look| look.context("gemel-bench stalls said too little"));
        let [generator, server] = looks;
        self.looks.push([generator?, server?]);
        Ok(())
    }

    /// In words.
    pub(super) fn sentence(&self) -> String {
        let share = |core: usize| {
            let (median, low, high) =
                spread(self.looks.iter().map(|look| look[core].share * 100.0));
            format!("{median:.2} % ({low:.2} to {high:.2})")
        };
        let longest = self.looks.iter().flatten().map(|look| look.longest_us).fold(0.0, f64::max);
        format!(
            "Before each round a loop that does nothing ran on both cores for {SECONDS} s: gaps of {GAP_US} \
             us or more took {} of its time on the generator's and {} on the server's, the longest {:.1} \
             ms. What arrives in one waits, whatever the server does: above 1 % no p99 can be below \
             {GAP_US} us.",
            share(0),
            share(1),
            longest / 1000.0
        )
    }

    /// For programs: the shares by round, generator and server.
    pub(super) fn json(&self) -> Value {
        let shares: Vec<_> = self.looks.iter().map(|look| look.map(|core| core.share)).collect();
        json!({ "gap_us": GAP_US, "shares": shares })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_has_medians_and_the_longest() {
        let look = |share, longest_us| Look { share, longest_us };
        let stalls = Stalls {
            looks: vec![
                [look(0.01, 500.0), look(0.0, 0.0)],
                [look(0.03, 9000.0), look(0.002, 100.0)],
                [look(0.02, 10.0), look(0.004, 200.0)],
            ],
        };
        let text = stalls.sentence();
        assert!(text.contains("2.00 % (1.00 to 3.00)"), "{text}");
        assert!(text.contains("0.20 % (0.00 to 0.40)"), "{text}");
        assert!(text.contains("the longest 9.0 ms"), "{text}");
        assert_eq!(stalls.json()["shares"][1][1], 0.002);
    }
}
