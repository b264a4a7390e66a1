//! `cargo xtask bench avalanche`: everybody comes at once.

use anyhow::Result;
use gemel_tests::bench::run;
use gemel_tests::gemel::{Durability, Mode};
use gemel_tests::{Interface, kea, requirement};
use serde_json::{Value, json};

use super::cases::{BINDINGS, One, invalid_reasons};
use super::peers;
use crate::measuring::Cores;
use crate::setup;

/// Arguments of `cargo xtask bench avalanche`.
#[derive(Debug, clap::Args)]
pub(crate) struct Avalanche {
    /// Clients that come to Gemel.
    #[arg(long, default_value_t = 1_000_000)]
    clients: u32,
    /// Clients that come to Kea, where it is installed, and once more to Gemel.
    #[arg(long, default_value_t = 100_000)]
    few: u32,
    /// Seconds within which they begin [default: 1, or as long as 100 000 clients a second need].
    #[arg(long)]
    within: Option<f64>,
    #[command(flatten)]
    cores: Cores,
    /// Install Kea from Debian's packages, if it is missing.
    #[arg(long)]
    install_peers: bool,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
}

/// Clients that begin in a second, if nothing else is said: with what the server answers that is about
/// what a veth pair and a generator's core carry.
const BEGIN_PER_S: f64 = 100_000.0;

/// SOL_MAX_DELAY (RFC 8415 section 7.6), s: clients do not begin within less.
const WITHIN_MIN: f64 = 1.0;

impl Avalanche {
    pub(super) fn run(&self) -> Result<()> {
        if self.install_peers {
            setup::install_peers()?;
        }
        let mut report = Vec::new();
        for clients in [self.clients, self.few] {
            let one =
                One::start(self.cores.server_core, Mode::Auto, Durability::PowerLoss, BINDINGS)?;
            report.push(self.measure("Gemel, power-loss durability", &one.client, clients)?);
        }
        if kea::is_installed() {
            let kea = peers::alone()?;
            report.push(self.measure("Kea alone", kea.client(), self.few)?);
        }
        if self.json {
            println!("{}", json!({"avalanches": report}));
        }
        Ok(())
    }

    fn measure(&self, server: &str, client: &Interface, clients: u32) -> Result<Value> {
        let mut command = client.namespace().command(requirement::binary("gemel-bench")?);
        command.args(["avalanche", "--json", "--interface", client.name()]);
        let within = self.within(clients);
        command.args(["--clients", &clients.to_string(), "--within", &within.to_string()]);
        command.args(["--core", &self.cores.generator_core.to_string()]);
        let (text, line) = outcome(server, &run(command)?);
        println!("{text}");
        Ok(line)
    }

    /// Seconds within which so many clients begin.
    fn within(&self, clients: u32) -> f64 {
        self.within.unwrap_or_else(|| (f64::from(clients) / BEGIN_PER_S).max(WITHIN_MIN))
    }
}

/// An avalanche in words, and for programs.
fn outcome(server: &str, summary: &Value) -> (String, Value) {
    let storm = &summary["scenario"];
    let figure = |key: &str| storm[key].as_f64();
    let seconds = |key: &str| match figure(key) {
        Some(seconds) => format!("{seconds:.1} s"),
        None => "never".to_owned(),
    };
    let mut text = format!(
        "{server}: {} of {} clients served; all had begun after {}; half after {}, 99 % after {}, \
         all after {}; {:.2} messages for each",
        figure("served").unwrap_or(0.0),
        storm["clients"],
        seconds("all_begun_s"),
        seconds("until_50_s"),
        seconds("until_99_s"),
        seconds("until_all_s"),
        figure("messages_per_served").unwrap_or(f64::NAN),
    );
    let reasons = invalid_reasons(summary);
    if !reasons.is_empty() {
        text += &format!("\n  NOT VALID, part of this is the generator's: {}", reasons.join("; "));
    }
    let mut line = json!({
        "server": server,
        "valid": reasons.is_empty(),
        "invalid_reasons": reasons,
    });
    for key in [
        "clients",
        "served",
        "within_s",
        "all_begun_s",
        "until_50_s",
        "until_99_s",
        "until_all_s",
        "sent",
    ] {
        line[key] = storm[key].clone();
    }
    (text, line)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        avalanche: Avalanche,
    }

    #[test]
    fn clients_begin_as_fast_as_the_host_can_do() {
        let avalanche = |line: &[&str]| Line::parse_from(line).avalanche;
        let default = avalanche(&["x"]);
        assert_eq!((default.within(1_000_000), default.within(100_000)), (10.0, 1.0));
        assert_eq!(default.within(10), 1.0, "never faster than clients do");
        assert_eq!(avalanche(&["x", "--within", "0"]).within(1_000_000), 0.0);
    }

    #[test]
    fn what_is_not_valid_is_said_to_be() {
        let mut summary = json!({
            "valid": true,
            "scenario": {
                "clients": 5, "served": 4, "within_s": 1.0, "all_begun_s": 2.5, "until_50_s": 3.0,
                "until_99_s": null, "messages_per_served": 2.0, "sent": 8,
            },
        });
        let (text, line) = outcome("X", &summary);
        assert!(text.contains("4 of 5") && text.contains("begun after 2.5 s"), "{text}");
        assert!(text.contains("99 % after never") && !text.contains("VALID"), "{text}");
        assert_eq!((&line["valid"], &line["all_begun_s"]), (&json!(true), &json!(2.5)));
        summary["valid"] = false.into();
        summary["invalid_reasons"] = json!(["it was late"]);
        let (text, line) = outcome("X", &summary);
        assert!(text.contains("NOT VALID") && text.contains("it was late"), "{text}");
        assert_eq!(line["invalid_reasons"], json!(["it was late"]));
        assert_eq!(line["valid"], false);
    }
}
