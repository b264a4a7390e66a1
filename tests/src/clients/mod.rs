//! Real DHCPv6 clients and relays from Debian.
//!
//! Each client runs in a [`Sandbox`] with its own configuration and state, and tells what it was
//! given from its own records, never from the server's.

mod dhclient;
mod dhcp6c;
mod dhcpcd;
mod dibbler;
pub mod relay;

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{Interface, Lab, Process, Sandbox, wait};

pub use dhclient::{Dhclient, DhclientDeclining};
pub use dhcp6c::Dhcp6c;
pub use dhcpcd::Dhcpcd;
pub use dibbler::Dibbler;

/// What a client asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// One IA_NA.
    Address,
    /// One IA_PD.
    Prefix,
    /// One of each.
    Both,
}

impl Wanted {
    /// Whether an address is asked for.
    #[must_use]
    pub fn address(self) -> bool {
        self != Self::Prefix
    }

    /// Whether a prefix is asked for.
    #[must_use]
    pub fn prefix(self) -> bool {
        self != Self::Address
    }

    /// How many leases this makes.
    #[must_use]
    pub fn leases(self) -> usize {
        usize::from(self.address()) + usize::from(self.prefix())
    }
}

/// One address or prefix with its owner, in the form both sides are compared in.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Lease {
    /// Whether it is a delegated prefix, of an IA_PD.
    pub is_prefix: bool,
    /// The address, or the prefix's first address.
    pub address: Ipv6Addr,
    /// The prefix length in bits; 128 for an address.
    pub prefix_len: u8,
    /// The client's DUID in lower-case hexadecimal without separators.
    pub duid: String,
    /// The identity association.
    pub iaid: u32,
}

/// A DHCPv6 client program.
pub trait Software: std::fmt::Debug + Sync {
    /// The name of the program, as it is looked for in the path.
    fn program(&self) -> &'static str;

    /// The command that runs the client in the foreground; writes its configuration first.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn command(&self, seat: &Seat) -> Result<Command>;

    /// What the client says it holds; empty while it holds nothing.
    ///
    /// # Errors
    /// When its records cannot be understood.
    fn leases(&self, seat: &Seat, output: &[String]) -> Result<Vec<Lease>>;

    /// Makes a running client give its leases back and end.
    ///
    /// # Errors
    /// When it does not end.
    fn release(&self, seat: &Seat, process: &mut Process) -> Result<()>;
}

/// All clients.
pub const ALL: [&dyn Software; 4] = [&Dhclient, &Dhcpcd, &Dibbler, &Dhcp6c];

/// Where a client runs and what it wants.
#[derive(Debug)]
pub struct Seat {
    /// Its private file system.
    pub sandbox: Sandbox,
    /// The interface that it configures.
    pub interface: Interface,
    /// What it asks for.
    pub wanted: Wanted,
    /// Folder for its configuration and records, the same inside and outside of the sandbox.
    pub dir: PathBuf,
}

impl Seat {
    /// The path of a file in the client's folder, as text.
    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Writes a file of the client's folder and returns its path.
    fn write(&self, name: &str, contents: &str) -> Result<String> {
        let path = self.file(name);
        std::fs::write(&path, contents).with_context(|| format!("writing {path}"))?;
        Ok(path)
    }

    /// Writes a hook script that appends its environment to the file `events`, each call after a
    /// line `---`; returns the path of the script.
    fn write_event_script(&self) -> Result<String> {
        use std::os::unix::fs::PermissionsExt;
        let script = format!(
            "#!/bin/sh\n{{ echo \"--- $reason\"; env; echo +++; }} >> '{}'\nexit 0\n",
            self.file("events")
        );
        let path = self.write("script", &script)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// The text of a file of the client's folder; empty when there is none yet.
    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }
}

/// A running client.
#[derive(Debug)]
pub struct Client {
    software: &'static dyn Software,
    seat: Seat,
    process: Process,
}

impl Client {
    /// Starts a client on an interface. `name` must be unique in the lab.
    ///
    /// # Errors
    /// When the client cannot be started.
    pub fn start(
        lab: &Lab,
        software: &'static dyn Software,
        interface: &Interface,
        wanted: Wanted,
        name: &str,
    ) -> Result<Self> {
        let sandbox = Sandbox::new(lab, interface.namespace(), &format!("{name}.root"))?;
        let dir = lab.subdir(name)?;
        let seat = Seat { sandbox, interface: interface.clone(), wanted, dir };
        let command = software.command(&seat)?;
        let process = Process::spawn(software.program(), command)?;
        Ok(Self { software, seat, process })
    }

    /// What the client says it holds, sorted.
    ///
    /// # Errors
    /// When its records cannot be understood.
    pub fn leases(&self) -> Result<Vec<Lease>> {
        let mut leases = self.software.leases(&self.seat, &self.process.lines())?;
        leases.sort();
        leases.dedup();
        Ok(leases)
    }

    /// Waits until the client holds everything that it wants.
    ///
    /// # Errors
    /// When it ends before, or `timeout` passes; the error shows its last lines.
    pub fn wait_bound(&mut self, timeout: Duration) -> Result<Vec<Lease>> {
        let what = format!("{} to be bound ({:?})", self.software.program(), self.seat.wanted);
        let bound = wait::until(&what, timeout, || {
            if !self.process.is_running()? {
                anyhow::bail!("{} has ended", self.software.program());
            }
            let leases = self.leases()?;
            let complete = leases.len() == self.seat.wanted.leases()
                && leases.iter().any(|lease| lease.is_prefix) == self.seat.wanted.prefix();
            Ok(complete.then_some(leases))
        });
        bound.with_context(|| format!("its output was:\n{}", self.process.tail()))
    }

    /// Ends the client with SIGKILL and starts it again over its own records.
    ///
    /// # Errors
    /// When it cannot be ended or started.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        let command = self.software.command(&self.seat)?;
        self.process = Process::spawn(self.software.program(), command)?;
        Ok(())
    }

    /// Makes the client give its leases back and end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn release(mut self) -> Result<()> {
        self.software
            .release(&self.seat, &mut self.process)
            .with_context(|| format!("its output was:\n{}", self.process.tail()))
    }

    /// The client's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// A DUID or another octet string written as hexadecimal numbers between colons, as plain digits.
fn plain_hex(text: &str) -> Result<String> {
    text.trim()
        .split(':')
        .map(|octet| {
            let value = u8::from_str_radix(octet, 16)
                .with_context(|| format!("{octet:?} in {text:?} is no octet"))?;
            Ok(format!("{value:02x}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_without_leading_zeros() {
        assert_eq!(plain_hex("0:1:ab:7").unwrap(), "0001ab07");
        assert!(plain_hex("0:x").is_err());
    }

    #[test]
    fn wanted_counts() {
        assert_eq!(Wanted::Both.leases(), 2);
        assert_eq!(Wanted::Prefix.leases(), 1);
        assert!(!Wanted::Prefix.address());
    }
}
