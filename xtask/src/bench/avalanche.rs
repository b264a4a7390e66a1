//! `cargo xtask bench avalanche`: everybody comes at once.

use anyhow::Result;
use gemel_tests::bench::run;
use gemel_tests::gemel::{Durability, Mode};
use gemel_tests::{Interface, kea, requirement};
use serde_json::{Value, json};

use super::cases::{BINDINGS, One};
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
    /// Seconds within which they begin.
    #[arg(long, default_value_t = 1.0)]
    within: f64,
    #[command(flatten)]
    cores: Cores,
    /// Install Kea from Debian's packages, if it is missing.
    #[arg(long)]
    install_peers: bool,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
}

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
            println!("{}", json!({"within_s": self.within, "avalanches": report}));
        }
        Ok(())
    }

    fn measure(&self, server: &str, client: &Interface, clients: u32) -> Result<Value> {
        let mut command = client.namespace().command(requirement::binary("gemel-bench")?);
        command.args(["avalanche", "--json", "--interface", client.name()]);
        command.args(["--clients", &clients.to_string(), "--within", &self.within.to_string()]);
        command.args(["--core", &self.cores.generator_core.to_string()]);
        let storm = run(command)?["scenario"].clone();
        let figure = |key: &str| storm[key].as_f64();
        let seconds = |key: &str| match figure(key) {
            Some(seconds) => format!("{seconds:.1} s"),
            None => "never".to_owned(),
        };
        println!(
            "{server}: {} of {clients} clients served; half after {}, 99 % after {}, all after {}; \
             {:.2} messages for each",
            figure("served").unwrap_or(0.0),
            seconds("until_50_s"),
            seconds("until_99_s"),
            seconds("until_all_s"),
            figure("messages_per_served").unwrap_or(f64::NAN),
        );
        let mut line = json!({"server": server});
        for key in ["clients", "served", "until_50_s", "until_99_s", "until_all_s", "sent"] {
            line[key] = storm[key].clone();
        }
        Ok(line)
    }
}
