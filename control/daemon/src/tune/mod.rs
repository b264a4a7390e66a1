//! `gemel tune`: looks at what matters to this server on its host, and says what to change.
//!
//! It reads `/proc`, `/sys` and what drivers tell, and changes nothing.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use crate::config::{Config, Durability, Mode};

mod cpu;
mod disk;
mod host;
mod nic;
mod report;
mod system;
#[cfg(test)]
mod tests;

pub use report::{Check, Verdict};

use host::{Drivers, Host, LiveDrivers};

/// What the server is to do on the host, as far as the checks depend on it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) interfaces: Vec<String>,
    pub(crate) mode: Mode,
    pub(crate) cores: Option<Vec<usize>>,
    pub(crate) busy_poll: bool,
    /// Octets of locked memory per queue.
    pub(crate) umem: u64,
    pub(crate) store: Option<PathBuf>,
    pub(crate) durability: Durability,
    pub(crate) failover: bool,
}

impl Wanted {
    /// What a configuration asks for.
    fn from_config(config: &Config) -> Self {
        let mut interfaces: Vec<String> = Vec::new();
        for name in config.interfaces().map(|name| name.as_str()) {
            if !interfaces.iter().any(|known| known == name) {
                interfaces.push(name.to_owned());
            }
        }
        Self {
            interfaces,
            mode: config.dataplane.mode,
            cores: config.dataplane.cores.clone(),
            busy_poll: config.dataplane.busy_poll.is_some(),
            umem: u64::from(config.dataplane.frames) * u64::from(crate::dataplane::FRAME_LEN),
            store: Some(config.store.path.clone()),
            durability: config.store.durability,
            failover: !config.failover.is_empty(),
        }
    }

    /// The defaults of a configuration, for some interfaces.
    fn for_interfaces(interfaces: &[String]) -> Self {
        Self {
            interfaces: interfaces.to_vec(),
            mode: Mode::Auto,
            cores: None,
            busy_poll: false,
            umem: 8192 * u64::from(crate::dataplane::FRAME_LEN),
            store: None,
            durability: Durability::PowerLoss,
            failover: false,
        }
    }
}

/// Looks at this host for a configuration, or for some interfaces; prints text or JSON. True if
/// nothing was a problem.
///
/// # Errors
/// If there is no interface to look at, or the writer fails.
pub fn run(
    out: &mut dyn Write,
    config: Option<&Config>,
    interfaces: &[String],
    json: bool,
) -> Result<bool> {
    let mut wanted = config.map_or_else(|| Wanted::for_interfaces(interfaces), Wanted::from_config);
    if !interfaces.is_empty() {
        wanted.interfaces = interfaces.to_vec();
    }
    if wanted.interfaces.is_empty() {
        bail!("the configuration names no interface; give one with --interface");
    }
    let checks = look(&Host::new(Path::new("/")), &LiveDrivers, &wanted);
    if json {
        serde_json::to_writer_pretty(&mut *out, &checks)?;
        writeln!(out)?;
    } else {
        report::write_text(out, &checks)?;
    }
    Ok(checks.iter().all(|check| check.verdict != Verdict::Problem))
}

/// All checks, in the order in which they are shown.
fn look(host: &Host, drivers: &dyn Drivers, wanted: &Wanted) -> Vec<Check> {
    let mut checks = Vec::new();
    for interface in &wanted.interfaces {
        nic::look(host, drivers, wanted, interface, &mut checks);
    }
    cpu::look(host, wanted, &mut checks);
    system::look(host, drivers, wanted, &mut checks);
    disk::look(host, wanted, &mut checks);
    checks
}
