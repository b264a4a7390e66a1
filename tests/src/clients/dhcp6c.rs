//! The WIDE project's dhcp6c.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Lease, Seat, Software, plain_hex};
use crate::Process;

/// WIDE-DHCPv6's client (Debian package `wide-dhcpv6-client`); records in its debug log.
#[derive(Debug)]
pub struct Dhcp6c;

impl Software for Dhcp6c {
    fn program(&self) -> &'static str {
        "dhcp6c"
    }

    fn command(&self, seat: &Seat) -> Result<Command> {
        let interface = seat.interface.name();
        let mut config = format!("interface {interface} {{\n");
        if seat.wanted.address() {
            config.push_str("  send ia-na 1;\n");
        }
        if seat.wanted.prefix() {
            config.push_str("  send ia-pd 2;\n");
        }
        config.push_str("  request domain-name-servers;\n};\n");
        if seat.wanted.address() {
            config.push_str("id-assoc na 1 { };\n");
        }
        if seat.wanted.prefix() {
            config.push_str("id-assoc pd 2 { };\n");
        }
        let config = seat.write("dhcp6c.conf", &config)?;
        let mut command = seat.sandbox.command("dhcp6c")?;
        command.args(["-f", "-D", "-c", &config, "-p", &seat.file("pid"), interface]);
        Ok(command)
    }

    fn leases(&self, _seat: &Seat, output: &[String]) -> Result<Vec<Lease>> {
        parse(output)
    }

    fn release(&self, _seat: &Seat, process: &mut Process) -> Result<()> {
        process.signal("TERM")?;
        process.wait(Duration::from_secs(30))?;
        Ok(())
    }
}

/// The leases that the log says were made and not removed.
fn parse(output: &[String]) -> Result<Vec<Lease>> {
    let mut duid = String::new();
    let mut leases: Vec<Lease> = Vec::new();
    for line in output {
        // The DUID comes last on a line about where it is from.
        if line.contains("get_duid: ") && line.contains(" DUID") && !line.contains("saved") {
            let text = line.rsplit(": ").next().unwrap_or_default();
            duid = plain_hex(text)?;
        }
        let made = [("create an address ", false), ("create a prefix ", true)];
        for (words, is_prefix) in made {
            let Some((_, rest)) = line.split_once(words) else { continue };
            let lease = rest.split([' ', ',']).next().unwrap_or_default();
            let (address, len) = lease.split_once('/').unwrap_or((lease, "128"));
            // The identity associations are numbered by our configuration.
            let iaid = if is_prefix { 2 } else { 1 };
            leases.push(Lease {
                is_prefix,
                address: address.parse().with_context(|| format!("in {line:?}"))?,
                prefix_len: len.parse().with_context(|| format!("in {line:?}"))?,
                duid: duid.clone(),
                iaid,
            });
        }
        let removed = [("remove an address ", false), ("remove a site prefix ", true)];
        for (words, is_prefix) in removed {
            if let Some((_, rest)) = line.split_once(words) {
                let address = rest.split(['/', ' ', ',']).next().unwrap_or_default();
                leases.retain(|lease| {
                    lease.is_prefix != is_prefix || lease.address.to_string() != address
                });
            }
        }
    }
    Ok(leases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_log() {
        let mut log: Vec<String> = [
            "Nov/23: get_duid: generated a new DUID: 00:01:00:01:32:97:4a:44:ee:e5:1e:f5:ba:b7",
            "Nov/23: get_duid: saved generated DUID to /var/lib/dhcpv6/dhcp6c_duid",
            "Nov/23: update_prefix: create a prefix 2001:db8:8000:300::/56 pltime=40, vltime=60",
            "Nov/23: update_address: create an address 2001:db8:1::1003 pltime=40, vltime=60",
        ]
        .map(str::to_owned)
        .to_vec();
        let leases = parse(&log).unwrap();
        assert_eq!(leases.len(), 2);
        assert_eq!((leases[0].prefix_len, leases[0].iaid), (56, 2));
        assert_eq!(leases[1].duid, "0001000132974a44eee51ef5bab7");
        log.push("Nov/23: remove_addr: remove an address 2001:db8:1::1003".to_owned());
        assert_eq!(parse(&log).unwrap().len(), 1);
    }
}
