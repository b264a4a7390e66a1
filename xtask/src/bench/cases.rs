//! What is compared, and how each of it is measured.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gemel_tests::bench::{self, Load, Pace};
use gemel_tests::clients::Wanted;
use gemel_tests::gemel::{Config, Durability, LinkConfig, Mode, Server};
use gemel_tests::pair::{Options, Pair, Role};
use gemel_tests::{Interface, Lab, Link, Process, requirement, wait};
use serde_json::{Value, json};

use super::{Compare, LATENCY_SHARE, peers};

/// One thing that is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Case {
    /// Packets that come back from a reflector: what the rings bear.
    Reflector,
    /// SOLICIT and ADVERTISE, no exchange is ever completed.
    Advertise,
    /// Whole exchanges, UDP sockets, nothing synced.
    Socket,
    /// AF_XDP, nothing synced.
    Process,
    /// AF_XDP, every lease on the disk before the REPLY.
    PowerLoss,
    /// The same with a live partner.
    Pair,
    /// Kea alone, in its best setting on two cores.
    Kea,
    /// Kea as a hot-standby pair.
    KeaPair,
}

/// All of them, in the order of a round.
pub(super) const CASES: [Case; 8] = [
    Case::Reflector,
    Case::Advertise,
    Case::Socket,
    Case::Process,
    Case::PowerLoss,
    Case::Pair,
    Case::Kea,
    Case::KeaPair,
];

/// One measurement of one case.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// Packets or exchanges per second.
    pub(super) per_s: f64,
    /// What ended the search for that rate.
    pub(super) limited_by: &'static str,
    /// The generator was not disturbed in the run at that rate, where it was searched for.
    pub(super) undisturbed: Option<bool>,
    /// The same as fast as answered, where the rate was searched for.
    pub(super) closed_loop_per_s: Option<f64>,
    /// How packets are received and sent.
    pub(super) mode: String,
    /// At [`LATENCY_SHARE`] of the rate, losses counted as late.
    pub(super) advertise_p50_us: Option<f64>,
    pub(super) advertise_p99_us: Option<f64>,
    pub(super) reply_p50_us: Option<f64>,
    pub(super) reply_p99_us: Option<f64>,
    /// Why these latencies may be those of the generator.
    pub(super) latency_invalid: Vec<String>,
    /// How long after the last load the partner knew all leases, s.
    pub(super) caught_up_s: Option<f64>,
}

/// Clients of a load, more than come in one step.
const CLIENTS: u32 = 1_000_000;

/// Bindings that a server makes room for.
pub(super) const BINDINGS: usize = 3_000_000;

/// Share of exchanges that Kea may lose, as its own tool's guide has it.
const KEA_LOSS_MAX: f64 = 0.025;

/// Exchanges outstanding when Kea is asked as fast as it answers.
const KEA_WINDOW: u32 = 64;

/// How long the partner may need to catch up.
const CATCH_UP: Duration = Duration::from_secs(60);

impl Case {
    /// Its name on the command line and in JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Reflector => "reflector",
            Self::Advertise => "advertise",
            Self::Socket => "socket",
            Self::Process => "process",
            Self::PowerLoss => "power-loss",
            Self::Pair => "pair",
            Self::Kea => "kea",
            Self::KeaPair => "kea-pair",
        }
    }

    /// Its name for people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Reflector => "reflector: the rings alone, packets",
            Self::Advertise => "Gemel, SOLICIT to ADVERTISE",
            Self::Socket => "Gemel, UDP sockets, process durability",
            Self::Process => "Gemel, AF_XDP, process durability",
            Self::PowerLoss => "Gemel, AF_XDP, power-loss durability",
            Self::Pair => "Gemel pair, AF_XDP, power-loss durability",
            Self::Kea => "Kea alone",
            Self::KeaPair => "Kea hot-standby pair",
        }
    }

    /// Whether it needs Kea.
    pub(super) const fn is_kea(self) -> bool {
        matches!(self, Self::Kea | Self::KeaPair)
    }

    /// Whether packets are counted, not exchanges.
    pub(super) const fn is_packets(self) -> bool {
        matches!(self, Self::Reflector | Self::Advertise)
    }

    /// Measures it once, in a lab of its own.
    pub(super) fn measure(self, args: &Compare) -> Result<Sample> {
        match self {
            Self::Reflector => reflector(args),
            Self::Advertise => {
                let one =
                    One::start(args.cores.server_core, Mode::Auto, Durability::Process, BINDINGS)?;
                packets(args, &one.client)
            }
            Self::Socket => exchanges(args, Mode::Socket, Durability::Process),
            Self::Process => exchanges(args, Mode::Auto, Durability::Process),
            Self::PowerLoss => exchanges(args, Mode::Auto, Durability::PowerLoss),
            Self::Pair => pair(args),
            Self::Kea => {
                let kea = peers::alone()?;
                search(args, kea.client(), |load| {
                    load.loss_max = KEA_LOSS_MAX;
                    load.window = KEA_WINDOW;
                })
            }
            Self::KeaPair => {
                let kea = peers::pair()?;
                search(args, kea.client(), |load| {
                    load.loss_max = KEA_LOSS_MAX;
                    load.window = KEA_WINDOW;
                })
            }
        }
    }
}

impl Sample {
    /// For the progress of a run.
    pub(super) fn line(&self) -> String {
        let mut text = format!("{:.0}/s", self.per_s);
        if !self.limited_by.is_empty() {
            text += &format!(" (limit: {})", self.limited_by);
        }
        if let (Some(advertise), Some(reply)) = (self.advertise_p99_us, self.reply_p99_us) {
            text += &format!(", at a fifth p99 ADVERTISE {advertise:.0} us, REPLY {reply:.0} us");
        }
        if !self.latency_invalid.is_empty() {
            text += &format!(" (NOT VALID: {})", self.latency_invalid.join("; "));
        }
        if let Some(seconds) = self.caught_up_s {
            text += &format!(", the partner knew all after {seconds:.2} s");
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "per_s": self.per_s,
            "limited_by": self.limited_by,
            "undisturbed": self.undisturbed,
            "closed_loop_per_s": self.closed_loop_per_s,
            "mode": self.mode,
            "advertise_p50_us": self.advertise_p50_us,
            "advertise_p99_us": self.advertise_p99_us,
            "reply_p50_us": self.reply_p50_us,
            "reply_p99_us": self.reply_p99_us,
            "latency_valid": self.advertise_p99_us.map(|_| self.latency_invalid.is_empty()),
            "latency_invalid_reasons": self.latency_invalid,
            "caught_up_s": self.caught_up_s,
        })
    }
}

/// A server alone and its clients' end of the cable. Dropped from the top: the lab last.
pub(super) struct One {
    pub(super) server: Server,
    /// Where the clients are.
    pub(super) client: Interface,
    _lab: Lab,
}

impl One {
    /// Starts it on a core, with room for so many bindings.
    pub(super) fn start(
        core: u32,
        mode: Mode,
        durability: Durability,
        bindings: usize,
    ) -> Result<Self> {
        let lab = Lab::new("bench")?;
        let (client, server_end) = cable(&lab)?;
        let link = LinkConfig::new("access", 1).for_load(1).on(&server_end);
        let mut config = Config::new(mode, vec![link]);
        config.durability = durability;
        config.pin = Some(core.to_string());
        config.expected_bindings = Some(bindings);
        let server = Server::start(&lab, server_end.namespace(), &config)?;
        if mode == Mode::Auto && server.mode()?.contains("socket") {
            bail!("AF_XDP is not available here: the server fell back to sockets");
        }
        Ok(Self { server, client, _lab: lab })
    }
}

/// A client's namespace and a server's, with a cable between them.
pub(super) fn cable(lab: &Lab) -> Result<(Interface, Interface)> {
    let server = lab.namespace("server")?;
    let client = lab.namespace("client")?;
    Link::default().connect((&client, "gml-c0"), (&server, "gml-s0"))
}

fn exchanges(args: &Compare, mode: Mode, durability: Durability) -> Result<Sample> {
    let one = One::start(args.cores.server_core, mode, durability, BINDINGS)?;
    let mode = one.server.mode()?;
    Ok(Sample { mode, ..search(args, &one.client, |_| ())? })
}

/// The highest rate of exchanges, and the latency at a share of it.
fn search(args: &Compare, client: &Interface, change: impl FnOnce(&mut Load)) -> Result<Sample> {
    let mut load = Load::new(Pace::Window(1), args.seconds, CLIENTS);
    load.wanted = Wanted::Address;
    load.core = Some(args.cores.generator_core);
    load.precision = args.precision;
    change(&mut load);
    let highest = load.highest_rate(client, args.step_seconds, || Ok(()))?;
    load.pace = Pace::Rate(highest.per_s * LATENCY_SHARE);
    load.seed = 1000;
    let quiet = load.run(client)?;
    Ok(Sample {
        per_s: highest.per_s,
        limited_by: highest.limited_by,
        undisturbed: Some(highest.undisturbed),
        closed_loop_per_s: Some(highest.closed_loop_per_s),
        ..latencies(&quiet)
    })
}

/// The latencies of a run, and what is to be said against them.
fn latencies(summary: &Value) -> Sample {
    let time = |pair: &str, key: &str| summary["pairs"][pair]["with_losses"][key].as_f64();
    Sample {
        advertise_p50_us: time("solicit_advertise", "p50_us"),
        advertise_p99_us: time("solicit_advertise", "p99_us"),
        reply_p50_us: time("request_reply", "p50_us"),
        reply_p99_us: time("request_reply", "p99_us"),
        latency_invalid: invalid_reasons(summary),
        ..Sample::default()
    }
}

/// Why the figures of a run may be those of the generator; nothing if they are valid.
pub(super) fn invalid_reasons(summary: &Value) -> Vec<String> {
    if summary["valid"] == true {
        return Vec::new();
    }
    let reasons = summary["invalid_reasons"].as_array();
    let texts = reasons.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() { vec!["the generator gave no reason".into()] } else { texts }
}

fn pair(args: &Compare) -> Result<Sample> {
    let options = Options {
        mclt: 3600,
        // As both of Kea: where the scheduler puts it.
        pins: [Some(args.cores.server_core.to_string()), None],
        expected_bindings: Some(BINDINGS),
        ..Options::default()
    };
    let pair = Pair::start("bench", &options)?;
    let mode = pair.server(Role::Primary).mode()?;
    let sample = search(args, &pair.client, |_| ())?;
    let begin = Instant::now();
    wait::until("the partner to know all leases", CATCH_UP, || {
        let count = |role| bindings(pair.server(role));
        Ok((count(Role::Primary)? == count(Role::Secondary)?).then_some(()))
    })?;
    let caught_up_s = Some(begin.elapsed().as_secs_f64());
    Ok(Sample { mode, caught_up_s, ..sample })
}

/// How many bindings of each status a server knows.
fn bindings(server: &Server) -> Result<Value> {
    Ok(server.status()?["bindings_by_status"].clone())
}

fn reflector(args: &Compare) -> Result<Sample> {
    let lab = Lab::new("bench")?;
    let (client, server) = cable(&lab)?;
    let mut command = server.namespace().command(requirement::binary("gemel-bench")?);
    command.args(["reflector", "--quiet", "--interface", server.name()]);
    command.args(["--core", &args.cores.server_core.to_string()]);
    let mut process = Process::spawn("reflector", command)?;
    process.wait_for_line("reflecting on", Duration::from_secs(10))?;
    packets(args, &client)
}

/// Packets per second that come back.
fn packets(args: &Compare, client: &Interface) -> Result<Sample> {
    let mut command = client.namespace().command(requirement::binary("gemel-bench")?);
    command.args(["packets", "--json", "--interface", client.name()]);
    command.args(["--core", &args.cores.generator_core.to_string()]);
    command.args(["--clients", &CLIENTS.to_string()]);
    command.args(["--seconds", &args.step_seconds.to_string()]);
    let found = bench::run(command)?;
    let per_s = found["packets_per_s"].as_f64().context("no packets_per_s in the report")?;
    let mode = found["mode"].as_str().unwrap_or_default().to_owned();
    Ok(Sample { per_s, mode, ..Sample::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_of_a_run_that_is_not_valid_are_marked() {
        let times = json!({"with_losses": {"p50_us": 5.0, "p99_us": 9.0}});
        let mut summary = json!({"valid": true, "pairs": {"request_reply": times}});
        let good = latencies(&summary);
        assert_eq!((good.reply_p99_us, good.advertise_p99_us), (Some(9.0), None));
        assert!(good.latency_invalid.is_empty());
        summary["valid"] = false.into();
        summary["invalid_reasons"] = json!(["it was late"]);
        let bad = latencies(&summary);
        assert_eq!(bad.latency_invalid, ["it was late"]);
        let bad = Sample { advertise_p99_us: Some(1.0), ..bad };
        assert!(bad.line().contains("NOT VALID: it was late"), "{}", bad.line());
        assert_eq!(bad.json()["latency_valid"], false);
        assert_eq!(Sample::default().json()["latency_valid"], Value::Null);
        assert_eq!(invalid_reasons(&Value::Null).len(), 1);
    }
}
