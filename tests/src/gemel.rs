//! The server under test: its configuration, its process, what it says about itself.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::clients::Lease;
use crate::pair::FailoverConfig;
use crate::{Interface, Lab, Namespace, Process, lab, requirement, wait};

/// How long the server may take from its start until it serves. A restart replays the journal.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The DNS server that every link's clients are told.
pub const DNS_SERVER: &str = "2001:db8::53";

/// Setting `dataplane.mode`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// The best that works.
    Auto,
    /// AF_XDP with XDP in the driver.
    Native,
    /// AF_XDP with XDP in the network stack.
    Generic,
    /// UDP sockets.
    Socket,
}

impl Mode {
    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Socket => "socket",
        }
    }
}

/// Setting `store.durability`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// A lease survives a power cut.
    PowerLoss,
    /// A lease survives the end of the process.
    Process,
}

impl Durability {
    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PowerLoss => "power-loss",
            Self::Process => "process",
        }
    }
}

/// A table `[[link]]`.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Its name.
    pub name: String,
    /// The interface with its clients; none for a link behind relays.
    pub interface: Option<String>,
    /// Its on-link prefixes.
    pub prefixes: Vec<String>,
    /// Values of the Interface-Id option that belong to it.
    pub interface_ids: Vec<String>,
    /// Address pools, each `first-last` or a prefix.
    pub address_pools: Vec<String>,
    /// Prefix pools: a prefix and the length that is delegated from it.
    pub prefix_pools: Vec<(String, u8)>,
    /// Preferred lifetime, valid lifetime, T1 and T2, in seconds.
    pub times: [u32; 4],
    /// Whether Rapid Commit is allowed.
    pub rapid_commit: bool,
}

impl LinkConfig {
    /// A link with one dense pool of addresses and one of /56 prefixes in networks numbered by
    /// `number`, and lifetimes of an hour.
    #[must_use]
    pub fn new(name: &str, number: u16) -> Self {
        Self {
            name: name.to_owned(),
            interface: None,
            prefixes: vec![format!("2001:db8:{number:x}::/64")],
            interface_ids: Vec::new(),
            address_pools: vec![format!("2001:db8:{number:x}::1000-2001:db8:{number:x}::ffff")],
            prefix_pools: vec![(format!("2001:db8:{:x}::/40", 0x8000 | number << 8), 56)],
            times: [3600, 7200, 1800, 2880],
            rapid_commit: false,
        }
    }

    /// The same, for clients on an interface of the server.
    #[must_use]
    pub fn on(mut self, interface: &Interface) -> Self {
        self.interface = Some(interface.name().to_owned());
        self
    }

    /// The same with pools of 16 million addresses and as many prefixes, for load tests.
    #[must_use]
    pub fn for_load(mut self, number: u16) -> Self {
        self.address_pools =
            vec![format!("2001:db8:{number:x}::100:0-2001:db8:{number:x}::1ff:ffff")];
        self.prefix_pools = vec![("2001:db9::/32".to_owned(), 56)];
        self
    }

    /// The same with lifetimes so short that clients renew within seconds.
    #[must_use]
    pub fn short_lived(mut self) -> Self {
        self.times = [50, 60, 2, 40];
        self
    }
}

/// A configuration file.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names the file and the folder of the state in the lab's folder; servers of one lab differ in it.
    pub name: String,
    /// Setting `dataplane.mode`.
    pub mode: Mode,
    /// Setting `store.durability`.
    pub durability: Durability,
    /// Setting `dataplane.cores`; empty: not pinned.
    pub cores: Vec<usize>,
    /// Setting `dataplane.interfaces`: interfaces that only relays are on.
    pub interfaces: Vec<String>,
    /// The cores that the whole server is bound to, with all its threads, as `taskset` reads them;
    /// none: not bound.
    pub pin: Option<String>,
    /// Further lines of table `[dataplane]`.
    pub dataplane: String,
    /// Further lines of table `[store]`.
    pub store: String,
    /// Setting `server.expected_bindings`; none for the default.
    pub expected_bindings: Option<usize>,
    /// Tables `[[link]]`.
    pub links: Vec<LinkConfig>,
    /// The table `[[failover]]`.
    pub failover: Option<FailoverConfig>,
    /// The environment in which the server runs, beside that of the test.
    pub environment: Vec<(String, String)>,
}

impl Config {
    /// Defaults with these links.
    #[must_use]
    pub fn new(mode: Mode, links: Vec<LinkConfig>) -> Self {
        Self {
            name: "gemel".to_owned(),
            mode,
            durability: Durability::PowerLoss,
            cores: Vec::new(),
            interfaces: Vec::new(),
            pin: None,
            dataplane: String::new(),
            store: String::new(),
            expected_bindings: None,
            links,
            failover: None,
            environment: Vec::new(),
        }
    }

    /// The file's text; the store and the control socket lie in `dir`.
    #[must_use]
    pub fn to_toml(&self, dir: &Path) -> String {
        let mut text = String::new();
        let dir = dir.display();
        if let Some(bindings) = self.expected_bindings {
            text += &format!("[server]\nexpected_bindings = {bindings}\n\n");
        }
        text += &format!(
            "[store]\npath = \"{dir}/store\"\ndurability = \"{}\"\n{}\n",
            self.durability.as_str(),
            self.store
        );
        text += &format!("[dataplane]\nmode = \"{}\"\n{}", self.mode.as_str(), self.dataplane);
        if !self.cores.is_empty() {
            text += &format!("cores = {:?}\n", self.cores);
        }
        if !self.interfaces.is_empty() {
            text += &format!("interfaces = {:?}\n", self.interfaces);
        }
        text += &format!("\n[control]\nsocket = \"{dir}/control.sock\"\n");
        for link in &self.links {
            text += &link.to_toml();
        }
        if let Some(failover) = &self.failover {
            text += &failover.to_toml();
        }
        text
    }
}

impl LinkConfig {
    fn to_toml(&self) -> String {
        let mut text = format!("\n[[link]]\nname = \"{}\"\n", self.name);
        if let Some(interface) = &self.interface {
            text += &format!("interface = \"{interface}\"\n");
        }
        text += &format!("prefixes = {:?}\n", self.prefixes);
        text += &format!("address_pools = {:?}\n", self.address_pools);
        let mut pools = String::new();
        for (prefix, length) in &self.prefix_pools {
            // Writing to a string cannot fail.
            let _ = write!(pools, "{{ prefix = \"{prefix}\", delegated_length = {length} }}, ");
        }
        text += &format!("prefix_pools = [{pools}]\n");
        let [preferred, valid, t1, t2] = self.times;
        text += &format!("preferred_lifetime = {preferred}\nvalid_lifetime = {valid}\n");
        text += &format!("t1 = {t1}\nt2 = {t2}\nrapid_commit = {}\n", self.rapid_commit);
        text += &format!("dns_servers = [\"{DNS_SERVER}\"]\n");
        if !self.interface_ids.is_empty() {
            text += &format!("relay = {{ interface_ids = {:?} }}\n", self.interface_ids);
        }
        text
    }
}

/// A Gemel server in a namespace.
#[derive(Debug)]
pub struct Server {
    namespace: Namespace,
    binary: PathBuf,
    dir: PathBuf,
    config: PathBuf,
    pin: Option<String>,
    environment: Vec<(String, String)>,
    process: Process,
    /// What the processes before the present one wrote.
    earlier_log: Vec<String>,
}

impl Server {
    /// Writes the configuration and starts the server, with its state in the lab's folder; returns
    /// when it serves on all interfaces, in full.
    ///
    /// # Errors
    /// When it does not; the error shows its log.
    pub fn start(lab: &Lab, namespace: &Namespace, config: &Config) -> Result<Self> {
        let mut server = Self::spawn(lab, namespace, config)?;
        server.wait_serving()?;
        Ok(server)
    }

    /// The same, but returns when the server serves on some interface: others may be missing.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with_missing(lab: &Lab, namespace: &Namespace, config: &Config) -> Result<Self> {
        let mut server = Self::spawn(lab, namespace, config)?;
        server.process.wait_for_line("ready", START_TIMEOUT)?;
        server.process.wait_for_line("warm:", START_TIMEOUT)?;
        Ok(server)
    }

    fn spawn(lab: &Lab, namespace: &Namespace, config: &Config) -> Result<Self> {
        let binary = requirement::binary("gemel")?;
        let dir = lab.subdir(&config.name)?;
        let path = lab.write(&format!("{}.toml", config.name), &config.to_toml(&dir))?;
        let pin = config.pin.clone();
        let environment = config.environment.clone();
        let process = launch(namespace, &binary, &path, pin.as_deref(), &environment)?;
        Ok(Self {
            namespace: namespace.clone(),
            binary,
            dir,
            config: path,
            pin,
            environment,
            process,
            earlier_log: Vec::new(),
        })
    }

    /// Ends the server with SIGKILL.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Ends the server with SIGTERM and insists on a clean exit.
    ///
    /// # Errors
    /// When it does not end in time, or with a failure.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.process.terminate(Duration::from_secs(30))?;
        if !status.success() {
            bail!("the server ended with {status} after SIGTERM:\n{}", self.process.tail());
        }
        Ok(())
    }

    /// Starts the server again over the same state; returns when it serves.
    ///
    /// # Errors
    /// When it does not; the error shows its log.
    pub fn restart(&mut self) -> Result<()> {
        self.launch_again()?;
        self.wait_serving()
    }

    /// Starts the server again over the same state and returns at once.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_again(&mut self) -> Result<()> {
        if self.process.is_running()? {
            bail!("the server still runs; kill or stop it first");
        }
        self.earlier_log.append(&mut self.process.lines());
        self.earlier_log.push("--- started again ---".to_owned());
        self.process = launch(
            &self.namespace,
            &self.binary,
            &self.config,
            self.pin.as_deref(),
            &self.environment,
        )?;
        Ok(())
    }

    /// Writes another configuration, for the next start.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn reconfigure(&mut self, config: &Config) -> Result<()> {
        self.pin.clone_from(&config.pin);
        self.environment.clone_from(&config.environment);
        std::fs::write(&self.config, config.to_toml(&self.dir))
            .with_context(|| format!("writing {}", self.config.display()))
    }

    /// Removes everything that a server which has ended had stored, as if its disk were lost.
    ///
    /// # Errors
    /// When it runs, or the files cannot be removed.
    pub fn lose_disk(&mut self) -> Result<()> {
        if self.process.is_running()? {
            bail!("the server still runs; kill or stop it first");
        }
        let store = self.dir.join("store");
        std::fs::remove_dir_all(&store).with_context(|| format!("removing {}", store.display()))
    }

    /// The command that kills the running server, for a shell in any namespace.
    #[must_use]
    pub fn kill_command(&self) -> String {
        format!("kill -KILL {}", self.process.pid())
    }

    /// The namespace that it runs in.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Everything that the server has logged, over all its restarts.
    #[must_use]
    pub fn log(&self) -> String {
        let mut lines = self.earlier_log.clone();
        lines.append(&mut self.process.lines());
        lines.join("\n")
    }

    /// What the running server says of itself: `gemel ctl status --json`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Value> {
        let text = self.ctl("status")?;
        serde_json::from_str(&text).with_context(|| format!("gemel ctl status said {text:?}"))
    }

    /// The mode that the server runs its first interface in.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn mode(&self) -> Result<String> {
        let status = self.status()?;
        let mode = status["interfaces"][0]["mode"].as_str().context("no mode in the status")?;
        Ok(mode.to_owned())
    }

    /// The counters of the running server: `gemel ctl counters --json`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn counters(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ctl("counters")?)?)
    }

    /// The active leases of the running server, sorted: `gemel ctl leases --json`.
    ///
    /// # Errors
    /// When it does not answer or its answer cannot be understood.
    pub fn leases(&self) -> Result<Vec<Lease>> {
        parse_leases(&self.ctl("leases")?)
    }

    /// The active leases in the store, sorted: `gemel leases --json`, which needs no server.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn stored_leases(&self) -> Result<Vec<Lease>> {
        let mut command = Command::new(&self.binary);
        command.args(["leases", "--json", "--config"]).arg(&self.config);
        parse_leases(&lab::output(&mut command)?)
    }

    /// All bindings of the running server, whatever their status, sorted.
    ///
    /// # Errors
    /// When it does not answer or its answer cannot be understood.
    pub fn bindings(&self) -> Result<Vec<Binding>> {
        parse_bindings(&self.ctl("leases")?)
    }

    /// Insists that the running server and its store have exactly these active leases.
    ///
    /// # Errors
    /// When they have others.
    pub fn assert_leases(&self, expected: &[Lease]) -> Result<()> {
        let mut expected = expected.to_vec();
        expected.sort();
        // The clients' leases are on stable storage before they hear of them, so there is nothing
        // to wait for.
        for (place, found) in [("server", self.leases()?), ("store", self.stored_leases()?)] {
            if found != expected {
                bail!("the {place} has {found:#?}\nbut the clients have {expected:#?}");
            }
        }
        Ok(())
    }

    fn ctl(&self, what: &str) -> Result<String> {
        self.control(&[what, "--json"])
    }

    /// What `gemel ctl` with these words answers.
    ///
    /// # Errors
    /// When it fails.
    pub fn control(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(["ctl", "--socket"]).arg(self.dir.join("control.sock")).args(words);
        lab::output(&mut command)
    }

    /// Waits until a server that was just started serves on all interfaces, in full.
    ///
    /// # Errors
    /// When it does not in time; the error shows its log.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.wait_serving()
    }

    fn wait_serving(&mut self) -> Result<()> {
        self.process.wait_for_line("serving", START_TIMEOUT)?;
        wait::until("the server to serve on all interfaces", START_TIMEOUT, || {
            if !self.process.is_running()? {
                bail!("the server has ended:\n{}", self.process.tail());
            }
            let Ok(status) = self.status() else { return Ok(None) };
            let interfaces = status["interfaces"].as_array().map_or(&[][..], Vec::as_slice);
            let serving = interfaces.iter().all(|interface| interface["serving"] == true);
            let warm = status["warming"].is_null();
            Ok((serving && warm && !interfaces.is_empty()).then_some(()))
        })
    }
}

/// The heap in huge pages, as in the packaged service.
const HUGE_PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

fn launch(
    namespace: &Namespace,
    binary: &Path,
    config: &Path,
    pin: Option<&str>,
    environment: &[(String, String)],
) -> Result<Process> {
    let mut command = match pin {
        Some(cores) => {
            let mut command = namespace.command("taskset");
            command.args(["--cpu-list", cores]).arg(binary);
            command
        }
        None => namespace.command(binary),
    };
    command.args(["serve", "--config"]).arg(config);
    command.env(HUGE_PAGES.0, HUGE_PAGES.1);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    Process::spawn("gemel", command)
}

/// A binding, with what both servers of a pair know of it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Binding {
    /// The address, or the prefix with its length.
    pub lease: String,
    /// The binding-status.
    pub status: String,
    /// The client's DUID, hexadecimal with colons.
    pub duid: String,
    /// The identity association.
    pub iaid: u64,
    /// When it ends, in seconds since 1970; `None` for never.
    pub expires: Option<u64>,
}

fn parse_bindings(lines: &str) -> Result<Vec<Binding>> {
    let mut bindings = Vec::new();
    for line in lines.lines() {
        let value: Value =
            serde_json::from_str(line).with_context(|| format!("gemel said {line:?}"))?;
        let text = |key: &str| {
            let text = value[key].as_str().with_context(|| format!("no {key} in {line}"))?;
            anyhow::Ok(text.to_owned())
        };
        bindings.push(Binding {
            lease: text("lease")?,
            status: text("status")?,
            duid: text("duid")?,
            iaid: value["iaid"].as_u64().with_context(|| format!("no iaid in {line}"))?,
            expires: value["expires"].as_u64(),
        });
    }
    bindings.sort();
    Ok(bindings)
}

/// Reads one JSON object per line and keeps the active ones.
fn parse_leases(lines: &str) -> Result<Vec<Lease>> {
    let mut leases = Vec::new();
    for line in lines.lines() {
        let value: Value =
            serde_json::from_str(line).with_context(|| format!("gemel said {line:?}"))?;
        let text = |key: &str| {
            value[key].as_str().with_context(|| format!("no {key} in the lease {line}"))
        };
        if text("status")? != "active" {
            continue;
        }
        let lease = text("lease")?;
        let (address, length) = lease.split_once('/').unwrap_or((lease, "128"));
        leases.push(Lease {
            is_prefix: text("kind")? == "pd",
            address: address.parse().with_context(|| format!("in {line}"))?,
            prefix_len: length.parse().with_context(|| format!("in {line}"))?,
            duid: text("duid")?.replace(':', ""),
            iaid: value["iaid"]
                .as_u64()
                .and_then(|iaid| u32::try_from(iaid).ok())
                .with_context(|| format!("no iaid in the lease {line}"))?,
        });
    }
    leases.sort();
    Ok(leases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_active_leases() {
        let lines = concat!(
            r#"{"lease":"2001:db8::1","kind":"na","status":"active","duid":"00:01","iaid":7}"#,
            "\n",
            r#"{"lease":"2001:db8:1::/56","kind":"pd","status":"active","duid":"00:02","iaid":8}"#,
            "\n",
            r#"{"lease":"2001:db8::2","kind":"na","status":"abandoned","duid":"00:03","iaid":9}"#,
            "\n",
        );
        let leases = parse_leases(lines).unwrap();
        assert_eq!(leases.len(), 2);
        assert_eq!((leases[0].prefix_len, leases[0].iaid), (128, 7));
        assert_eq!((leases[1].prefix_len, leases[1].duid.as_str()), (56, "0002"));
        assert!(parse_leases("{}").is_err());
    }

    #[test]
    fn reads_bindings_of_every_status() {
        let lines = concat!(
            r#"{"lease":"2001:db8::2","status":"abandoned","duid":"00:03","iaid":9,"expires":5}"#,
            "\n",
            r#"{"lease":"2001:db8::1","status":"active","duid":"00:01","iaid":7,"expires":null}"#,
            "\n",
        );
        let bindings = parse_bindings(lines).unwrap();
        assert_eq!((bindings[0].lease.as_str(), bindings[0].expires), ("2001:db8::1", None));
        assert_eq!((bindings[1].status.as_str(), bindings[1].expires), ("abandoned", Some(5)));
        assert!(parse_bindings("{}").is_err());
    }
}
