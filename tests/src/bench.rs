//! The load generator, `gemel-bench`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::clients::{Lease, Wanted};
use crate::{Interface, Process, requirement};

/// How a load is paced.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// Open loop: this many exchanges per second.
    Rate(f64),
    /// Closed loop: this many exchanges outstanding.
    Window(u32),
}

/// Exchanges outstanding in a closed loop, enough to keep any server busy.
const WINDOW: u32 = 256;

/// Share of a rate that must really have been offered for the rate to count.
const STARTED_MIN: f64 = 0.97;

/// Share of what was offered, and not lost, that must have been done before the load ended: more
/// left open is a queue that grows. Not nearer to all of it: in a load of one second a machine that stands
/// still for 20 ms at the end leaves 2 % open. What counts as borne is what was done.
pub const DONE_MIN: f64 = 0.97;

/// Rates that are tried at most.
const STEPS_MAX: u32 = 14;

/// The outcome of [`Load::highest_rate`].
#[derive(Clone, Debug)]
pub struct Highest {
    /// The highest rate without more loss than [`Load::loss_max`], open loop, exchanges per second:
    /// as it was offered, or as it was done if that was less.
    pub per_s: f64,
    /// What ended the search: `server` when it lost more, `generator` when it could not offer more.
    pub limited_by: &'static str,
    /// The generator had its core to itself in the run at that rate.
    pub undisturbed: bool,
    /// Exchanges per second in a closed loop.
    pub closed_loop_per_s: f64,
}

/// One run of the load generator.
#[derive(Clone, Debug)]
pub struct Load {
    /// How it is paced.
    pub pace: Pace,
    /// Its length in seconds.
    pub seconds: f64,
    /// Number of clients.
    pub clients: u32,
    /// What they ask for.
    pub wanted: Wanted,
    /// Share of renewals, 0 to 1.
    pub renew_share: f64,
    /// Seed of the clients' identities.
    pub seed: u64,
    /// `auto`, `xdp`, `xdp-generic` or `socket`.
    pub mode: &'static str,
    /// The core that the generator is bound to.
    pub core: Option<u32>,
    /// Share of the exchanges that may fail at the highest rate.
    pub loss_max: f64,
    /// The search ends when its bounds are this close, as a share of the rate.
    pub precision: f64,
    /// Exchanges outstanding in the closed loop with which the search for that rate begins.
    pub window: u32,
    /// Folder for histograms, JSON and the HTML page.
    pub out: Option<PathBuf>,
    /// File that receives every grant.
    pub grants: Option<PathBuf>,
}

impl Load {
    /// A load with the generator's usual settings.
    #[must_use]
    pub fn new(pace: Pace, seconds: f64, clients: u32) -> Self {
        Self {
            pace,
            seconds,
            clients,
            wanted: Wanted::Both,
            renew_share: 0.0,
            seed: 1,
            mode: "auto",
            core: None,
            loss_max: 0.001,
            precision: 0.05,
            window: WINDOW,
            out: None,
            grants: None,
        }
    }

    /// The command that puts this load on an interface.
    ///
    /// # Errors
    /// When the generator has not been built.
    pub fn command(&self, interface: &Interface) -> Result<Command> {
        let mut command = interface.namespace().command(requirement::binary("gemel-bench")?);
        match self.pace {
            Pace::Rate(rate) => {
                command.args(["run", "--rate", &rate.to_string()]);
                command.args(["--seconds", &self.seconds.to_string()]);
            }
            Pace::Window(window) => {
                command.args(["run", "--window", &window.to_string()]);
                command.args(["--seconds", &self.seconds.to_string()]);
            }
        }
        command.args(["--renew-share", &self.renew_share.to_string()]);
        let &Self { mode, clients, wanted, seed, core, .. } = self;
        let (out, grants) = (self.out.as_deref(), self.grants.as_deref());
        Common { mode, clients, wanted, seed, core, out, grants }.add_to(&mut command, interface);
        Ok(command)
    }

    /// Runs to the end, with the progress on standard error, and returns the summary.
    ///
    /// # Errors
    /// When the generator fails, or finds that the server broke a rule.
    pub fn run(&self, interface: &Interface) -> Result<Value> {
        run(self.command(interface)?)
    }
}

impl Load {
    /// Looks for the highest rate of this kind of load: first in a closed loop, then in open loops
    /// around that, each with clients of its own. `each` is called after every run, for what lies in [`Self::grants`].
    ///
    /// # Errors
    /// As [`Self::run`], and when the server bears no load at all.
    pub fn highest_rate(
        &self,
        interface: &Interface,
        step_seconds: f64,
        mut each: impl FnMut() -> Result<()>,
    ) -> Result<Highest> {
        let mut load = self.clone();
        load.pace = Pace::Window(self.window);
        load.seconds = step_seconds;
        let closed = load.run(interface)?;
        each()?;
        let closed_loop_per_s = closed["exchanges_per_s"].as_f64().unwrap_or(0.0);
        if closed_loop_per_s <= 0.0 {
            bail!("no exchange was completed: {closed}");
        }
        // The generator's own search refuses every run on a machine that has other work, too. Here
        // a run counts when the load was offered and answered; how late that was, the latencies
        // tell.
        let mut best = None;
        let (mut good, mut bad, mut limited_by) = (0.0, f64::INFINITY, "server");
        let mut rate = closed_loop_per_s / 2.0;
        for _ in 0..STEPS_MAX {
            // Clients that have not been here yet: to grant is more work than to extend.
            load.seed += 1;
            load.pace = Pace::Rate(rate);
            let summary = load.run(interface)?;
            each()?;
            match judge(&summary, rate, self.loss_max)? {
                Verdict::Borne(per_s) => {
                    good = rate;
                    best = Some((per_s, summary["valid"] == true));
                }
                Verdict::TooMuch(limit) => {
                    bad = rate;
                    limited_by = limit;
                }
            }
            if bad.is_finite() && bad - good <= self.precision * bad {
                break;
            }
            rate = if bad.is_finite() { f64::midpoint(good, bad) } else { rate * 2.0 };
        }
        let (per_s, undisturbed) = best.context("the server bore no rate at all")?;
        Ok(Highest { per_s, limited_by, undisturbed, closed_loop_per_s })
    }
}

/// What a run at a rate says of that rate.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    /// It was borne; so many exchanges per second were done.
    Borne(f64),
    /// It was not; this was the limit.
    TooMuch(&'static str),
}

fn judge(summary: &Value, rate: f64, loss_max: f64) -> Result<Verdict> {
    let figure =
        |key: &str| summary[key].as_f64().with_context(|| format!("no {key} in the summary"));
    let (loss, started, done) =
        (figure("loss")?, figure("started_per_s")?, figure("exchanges_per_s")?);
    Ok(if started < STARTED_MIN * rate {
        Verdict::TooMuch("generator")
    } else if loss > loss_max || done < (DONE_MIN - loss_max) * started {
        Verdict::TooMuch("server")
    } else {
        Verdict::Borne(done.min(rate))
    })
}

/// A fixed load on a pair of servers, in the middle of which things happen: `gemel-bench failover`.
#[derive(Clone, Debug)]
pub struct Disturbed {
    /// Exchanges per second.
    pub rate: f64,
    /// Its length in seconds.
    pub seconds: f64,
    /// Share of exchanges of clients that come back.
    pub returning: f64,
    /// Number of clients.
    pub clients: u32,
    /// What they ask for.
    pub wanted: Wanted,
    /// Seed of the clients' identities.
    pub seed: u64,
    /// `auto`, `xdp`, `xdp-generic` or `socket`.
    pub mode: &'static str,
    /// The core that the generator is bound to.
    pub core: Option<u32>,
    /// The pair's MCLT, seconds.
    pub mclt: u32,
    /// Shell commands with the seconds at which they are run.
    pub at: Vec<(f64, String)>,
    /// Folder for histograms, JSON and the HTML page.
    pub out: Option<PathBuf>,
    /// File that receives every grant.
    pub grants: Option<PathBuf>,
}

impl Disturbed {
    /// A load in which nothing happens yet.
    #[must_use]
    pub fn new(rate: f64, seconds: f64) -> Self {
        Self {
            rate,
            seconds,
            returning: 0.5,
            clients: 100_000,
            wanted: Wanted::Both,
            seed: 1,
            mode: "auto",
            core: None,
            mclt: 60,
            at: Vec::new(),
            out: None,
            grants: None,
        }
    }

    /// The command that puts this load on an interface.
    ///
    /// # Errors
    /// When the generator has not been built.
    pub fn command(&self, interface: &Interface) -> Result<Command> {
        let mut command = interface.namespace().command(requirement::binary("gemel-bench")?);
        command.args(["failover", "--rate", &self.rate.to_string()]);
        command.args(["--seconds", &self.seconds.to_string()]);
        command.args(["--returning", &self.returning.to_string()]);
        command.args(["--mclt", &self.mclt.to_string()]);
        for (seconds, what) in &self.at {
            command.args(["--at", &format!("{seconds}:{what}")]);
        }
        let &Self { mode, clients, wanted, seed, core, .. } = self;
        let (out, grants) = (self.out.as_deref(), self.grants.as_deref());
        Common { mode, clients, wanted, seed, core, out, grants }.add_to(&mut command, interface);
        Ok(command)
    }

    /// Starts the load. [`Disturbed::finish`] has the outcome.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, interface: &Interface) -> Result<Process> {
        Process::spawn("gemel-bench", self.command(interface)?)
    }

    /// Waits for the end of a load and returns its summary.
    ///
    /// # Errors
    /// When the generator fails, a command of [`Disturbed::at`] does, or a server broke a rule.
    pub fn finish(&self, mut process: Process) -> Result<Value> {
        let timeout = Duration::from_secs_f64(self.seconds + 60.0);
        process.wait_success(timeout)?;
        summary(&process.stdout().join("\n"))
    }

    /// Runs the load to its end.
    ///
    /// # Errors
    /// As [`Disturbed::finish`].
    pub fn run(&self, interface: &Interface) -> Result<Value> {
        self.finish(self.start(interface)?)
    }
}

/// What loads of all kinds have on their command line.
struct Common<'a> {
    mode: &'a str,
    clients: u32,
    wanted: Wanted,
    seed: u64,
    core: Option<u32>,
    out: Option<&'a Path>,
    grants: Option<&'a Path>,
}

impl Common<'_> {
    fn add_to(&self, command: &mut Command, interface: &Interface) {
        command.args(["--interface", interface.name(), "--mode", self.mode, "--json"]);
        command.args(["--clients", &self.clients.to_string(), "--seed", &self.seed.to_string()]);
        command.args(["--ia", ia(self.wanted)]);
        if let Some(core) = self.core {
            command.args(["--core", &core.to_string()]);
        }
        if let Some(out) = self.out {
            command.arg("--out").arg(out);
        }
        if let Some(grants) = self.grants {
            command.arg("--grants").arg(grants);
        }
    }
}

/// The generator's word for what is asked for.
fn ia(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Address => "na",
        Wanted::Prefix => "pd",
        Wanted::Both => "both",
    }
}

/// Starts the generator on an interface; the words of its command line are apart by blanks.
///
/// # Errors
/// When it cannot be started.
pub fn start(interface: &Interface, words: &str) -> Result<Process> {
    let mut command = interface.namespace().command(requirement::binary("gemel-bench")?);
    command.args(words.split_whitespace()).args(["--interface", interface.name()]);
    Process::spawn("gemel-bench", command)
}

/// How long the generator may take for what needs no network.
const OFFLINE: Duration = Duration::from_secs(60);

/// Runs the generator without a network, for stored runs; returns its exit status and what it printed.
///
/// # Errors
/// When it cannot be started, takes too long, or is killed.
pub fn offline(words: &[&str]) -> Result<(i32, String)> {
    let mut command = Command::new(requirement::binary("gemel-bench")?);
    command.args(words);
    let mut process = Process::spawn("gemel-bench", command)?;
    let status = process.wait(OFFLINE)?;
    Ok((status.code().context("killed")?, process.lines().join("\n")))
}

/// Runs the generator to its end, with its progress on standard error, and returns its summary.
///
/// # Errors
/// When it fails, or finds that the server broke a rule.
pub fn run(mut command: Command) -> Result<Value> {
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("gemel-bench ended with {}:\n{text}", output.status);
    }
    summary(&text)
}

/// The summary on the last line of the generator's output.
///
/// # Errors
/// When there is none.
pub fn summary(text: &str) -> Result<Value> {
    let last = text.lines().last().context("gemel-bench printed nothing")?;
    serde_json::from_str(last).with_context(|| format!("gemel-bench's last line is {last:?}"))
}

/// Reads a file of grants: everything that a client of this load received.
///
/// # Errors
/// When it cannot be read or understood.
pub fn read_grants(path: &Path) -> Result<Vec<Lease>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    text.lines().map(parse_grant).collect()
}

fn parse_grant(line: &str) -> Result<Lease> {
    let grant: Value = serde_json::from_str(line).with_context(|| format!("the grant {line:?}"))?;
    let text =
        |key: &str| grant[key].as_str().with_context(|| format!("no {key} in the grant {line:?}"));
    let lease = text("lease")?;
    let (address, length) = lease.split_once('/').unwrap_or((lease, "128"));
    Ok(Lease {
        is_prefix: text("kind")? == "pd",
        address: address.parse().with_context(|| format!("in {line:?}"))?,
        prefix_len: length.parse().with_context(|| format!("in {line:?}"))?,
        duid: text("duid")?.to_owned(),
        iaid: grant["iaid"]
            .as_u64()
            .and_then(|iaid| u32::try_from(iaid).ok())
            .with_context(|| format!("no iaid in the grant {line:?}"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_grant() {
        let line = r#"{"client":7,"duid":"0001","iaid":9,"kind":"pd","lease":"2001:db8::/56","granted_at":1,"valid_until":null}"#;
        let lease = parse_grant(line).unwrap();
        assert!(lease.is_prefix);
        assert_eq!((lease.prefix_len, lease.iaid, lease.duid.as_str()), (56, 9, "0001"));
        assert!(parse_grant("{}").is_err());
    }

    #[test]
    fn a_rate_is_borne_if_it_was_offered_and_done_in_time() {
        let of = |started: f64, done: f64, loss: f64, loss_max: f64| {
            let summary = serde_json::json!({
                "started_per_s": started, "exchanges_per_s": done, "loss": loss,
            });
            judge(&summary, 1000.0, loss_max).unwrap()
        };
        assert_eq!(of(1000.5, 1000.4, 0.0, 0.001), Verdict::Borne(1000.0));
        assert_eq!(of(971.0, 970.0, 0.0, 0.001), Verdict::Borne(970.0), "what was done counts");
        assert_eq!(of(1000.0, 975.0, 0.0, 0.001), Verdict::Borne(975.0), "20 ms at the end");
        assert_eq!(of(960.0, 960.0, 0.0, 0.001), Verdict::TooMuch("generator"));
        assert_eq!(of(960.0, 900.0, 0.1, 0.001), Verdict::TooMuch("generator"));
        assert_eq!(of(1000.0, 990.0, 0.01, 0.001), Verdict::TooMuch("server"));
        assert_eq!(of(1000.0, 900.0, 0.0, 0.001), Verdict::TooMuch("server"), "done too late");
        assert_eq!(of(1000.0, 970.0, 0.02, 0.025), Verdict::Borne(970.0));
        assert!(judge(&Value::Null, 1.0, 0.0).is_err());
    }

    #[test]
    fn the_summary_is_the_last_line() {
        assert_eq!(summary("text\n{\"a\":1}\n").unwrap()["a"], 1);
        assert!(summary("text\n").is_err());
    }
}
