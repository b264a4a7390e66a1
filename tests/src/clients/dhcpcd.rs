//! Roy Marples' dhcpcd.

use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Lease, Seat, Software};
use crate::Process;

/// dhcpcd (Debian package `dhcpcd5` or `dhcpcd-base`); records in what it tells its hook script.
#[derive(Debug)]
pub struct Dhcpcd;

impl Software for Dhcpcd {
    fn program(&self) -> &'static str {
        "dhcpcd"
    }

    fn command(&self, seat: &Seat) -> Result<Command> {
        // No router speaks on the link, so DHCPv6 must start without an advertisement.
        let mut config = String::from("duid\nnoipv6rs\nipv6only\noption rapid_commit\n");
        if seat.wanted.address() {
            config.push_str("ia_na 1\n");
        }
        if seat.wanted.prefix() {
            config.push_str("ia_pd 2\n");
        }
        let config = seat.write("dhcpcd.conf", &config)?;
        let script = seat.write_event_script()?;
        let mut command = seat.sandbox.command("dhcpcd")?;
        command.args(["-6", "-B", "-d", "-f", &config, "-c", &script, seat.interface.name()]);
        Ok(command)
    }

    fn leases(&self, seat: &Seat, _output: &[String]) -> Result<Vec<Lease>> {
        parse(&seat.read("events"))
    }

    fn release(&self, seat: &Seat, process: &mut Process) -> Result<()> {
        let mut command = seat.sandbox.command("dhcpcd")?;
        command.args(["-6", "-k", "-f", &seat.file("dhcpcd.conf"), seat.interface.name()]);
        Process::spawn("dhcpcd -k", command)?.wait(Duration::from_secs(20))?;
        process.wait(Duration::from_secs(20))?;
        Ok(())
    }
}

/// The leases that the last event speaks of.
fn parse(events: &str) -> Result<Vec<Lease>> {
    // An event ends with `+++`; what follows the last one is still being written.
    let Some((complete, _)) = events.rsplit_once("\n+++") else { return Ok(Vec::new()) };
    let last = complete.rfind("--- ").map_or("", |start| &complete[start..]);
    let values: HashMap<&str, &str> =
        last.lines().filter_map(|line| line.strip_prefix("new_dhcp6_")?.split_once('=')).collect();
    let Some(duid) = values.get("client_id") else { return Ok(Vec::new()) };
    let value = |key: &str| values.get(key).with_context(|| format!("dhcpcd told no {key}"));
    let iaid = |key: &str| -> Result<u32> { Ok(u32::from_str_radix(value(key)?, 16)?) };
    let mut leases = Vec::new();
    if let Some(address) = values.get("ia_na1_ia_addr1") {
        leases.push(Lease {
            is_prefix: false,
            address: address.parse()?,
            prefix_len: 128,
            duid: (*duid).to_owned(),
            iaid: iaid("ia_na1_iaid")?,
        });
    }
    if let Some(prefix) = values.get("ia_pd1_prefix1") {
        leases.push(Lease {
            is_prefix: true,
            address: prefix.parse()?,
            prefix_len: value("ia_pd1_prefix1_length")?.parse()?,
            duid: (*duid).to_owned(),
            iaid: iaid("ia_pd1_iaid")?,
        });
    }
    Ok(leases)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: &str = "--- PREINIT\nreason=PREINIT\n+++\n--- BOUND6
new_dhcp6_ia_pd1_prefix1_length=56
new_dhcp6_ia_pd1_prefix1=2001:db8:8000:100::
new_dhcp6_ia_na1_ia_addr1=2001:db8:1::1001
new_dhcp6_ia_na1_iaid=00000001
new_dhcp6_client_id=0001000132974a32eee51ef5bab7
new_dhcp6_ia_pd1_iaid=00000002
+++
";

    #[test]
    fn reads_the_last_event() {
        let leases = parse(BOUND).unwrap();
        assert_eq!(leases.len(), 2);
        assert_eq!(leases[0].iaid, 1);
        assert_eq!(leases[1].prefix_len, 56);
        assert_eq!(leases[1].duid, "0001000132974a32eee51ef5bab7");
    }

    #[test]
    fn a_later_event_without_leases_means_none() {
        assert!(parse(&format!("{BOUND}--- EXPIRE6\nreason=EXPIRE6\n+++\n")).unwrap().is_empty());
        assert!(parse("--- BOUND6\nnew_dhcp6_client_id=00").unwrap().is_empty());
    }
}
