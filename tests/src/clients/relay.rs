//! ISC dhcrelay.

use std::time::Duration;

use anyhow::Result;

use crate::{Interface, Process};

/// Starts `dhcrelay -6` (Debian package `isc-dhcp-relay`) between an interface with clients (or
/// further relays) and one with the server, and waits until it listens.
///
/// With `to`, messages go to that unicast address instead of to all servers. With `interface_id`
/// the relay adds the Interface-Id option.
///
/// # Errors
/// When it cannot be started.
pub fn start(
    lower: &Interface,
    upper: &Interface,
    to: Option<&str>,
    interface_id: bool,
) -> Result<Process> {
    start_many(std::slice::from_ref(lower), upper, to, interface_id)
}

/// The same for several interfaces with clients, all in the namespace of `upper`.
///
/// # Errors
/// As [`start`].
pub fn start_many(
    lowers: &[Interface],
    upper: &Interface,
    to: Option<&str>,
    interface_id: bool,
) -> Result<Process> {
    let to = to.map(|address| format!("{address}%")).unwrap_or_default();
    let mut command = upper.namespace().command("dhcrelay");
    command.args(["-6", "-d", "--no-pid"]);
    if interface_id {
        command.arg("-I");
    }
    for lower in lowers {
        command.args(["-l", lower.name()]);
    }
    command.args(["-u", &format!("{to}{}", upper.name())]);
    let mut process = Process::spawn("dhcrelay", command)?;
    process.wait_for_line("Sending on", Duration::from_secs(10))?;
    Ok(process)
}
