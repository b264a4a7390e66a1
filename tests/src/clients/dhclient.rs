//! ISC dhclient.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Lease, Seat, Software, plain_hex};
use crate::Process;

/// ISC dhclient (Debian package `isc-dhcp-client`); records in its lease file.
#[derive(Debug)]
pub struct Dhclient;

/// The same, finding the first address that it is given in use.
#[derive(Debug)]
pub struct DhclientDeclining;

impl Software for DhclientDeclining {
    fn program(&self) -> &'static str {
        Dhclient.program()
    }

    fn command(&self, seat: &Seat) -> Result<Command> {
        let command = Dhclient.command(seat)?;
        let script = seat.read("script").replace("exit 0", DECLINE_ONCE);
        seat.write("script", &script.replace("MARK", &seat.file("declined")))?;
        Ok(command)
    }

    fn leases(&self, seat: &Seat, output: &[String]) -> Result<Vec<Lease>> {
        Dhclient.leases(seat, output)
    }

    fn release(&self, seat: &Seat, process: &mut Process) -> Result<()> {
        Dhclient.release(seat, process)
    }
}

/// Exit status 3 of the script tells dhclient that duplicate address detection failed.
const DECLINE_ONCE: &str =
    "[ \"$reason\" = BOUND6 ] && [ ! -e MARK ] && { touch MARK; exit 3; }\nexit 0";

impl Dhclient {
    fn arguments(self_release: bool, seat: &Seat) -> Result<Command> {
        let mut command = seat.sandbox.command("dhclient")?;
        command.args(["-6", "-d", "-v", "-nw"]);
        if self_release {
            command.arg("-r");
        }
        if seat.wanted.address() {
            command.arg("-N");
        }
        if seat.wanted.prefix() {
            command.arg("-P");
        }
        command.args(["-cf", &seat.file("dhclient.conf"), "-lf", &seat.file("leases")]);
        command.args(["-pf", &seat.file("pid"), "-sf", &seat.file("script")]);
        command.arg(seat.interface.name());
        Ok(command)
    }
}

impl Software for Dhclient {
    fn program(&self) -> &'static str {
        "dhclient"
    }

    fn command(&self, seat: &Seat) -> Result<Command> {
        // No delay before the first SOLICIT.
        seat.write("dhclient.conf", "initial-delay 0;\n")?;
        seat.write_event_script()?;
        Self::arguments(false, seat)
    }

    fn leases(&self, seat: &Seat, _output: &[String]) -> Result<Vec<Lease>> {
        parse(&seat.read("leases"))
    }

    fn release(&self, seat: &Seat, process: &mut Process) -> Result<()> {
        // A second dhclient kills the first one by its pid file and sends the RELEASE itself.
        let mut second = Process::spawn("dhclient -r", Self::arguments(true, seat)?)?;
        second.wait_success(Duration::from_secs(60))?;
        process.wait(Duration::from_secs(10))?;
        Ok(())
    }
}

/// The leases of the last complete `lease6` block of a lease file.
fn parse(text: &str) -> Result<Vec<Lease>> {
    let Some(start) = text.rfind("lease6 {") else { return Ok(Vec::new()) };
    let block = &text[start..];
    // Blocks are appended in pieces; a block without its end is still being written.
    if !block.contains("\n}") || block.contains("released;") {
        return Ok(Vec::new());
    }
    let client_id = block
        .lines()
        .find_map(|line| line.trim().strip_prefix("option dhcp6.client-id "))
        .context("a lease6 block without client-id")?;
    let duid = plain_hex(client_id.trim_end_matches(';'))?;
    let mut leases = Vec::new();
    let mut iaid = 0;
    for line in block.lines().map(str::trim) {
        let ia = line.strip_prefix("ia-na ").or_else(|| line.strip_prefix("ia-pd "));
        if let Some(id) = ia.and_then(|rest| rest.strip_suffix(" {")) {
            iaid = u32::from_str_radix(&iaid_hex(id)?, 16)?;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["iaaddr", address, "{"] => leases.push(Lease {
                is_prefix: false,
                address: address.parse()?,
                prefix_len: 128,
                duid: duid.clone(),
                iaid,
            }),
            ["iaprefix", prefix, "{"] => {
                let (address, len) = prefix.split_once('/').context("a prefix without length")?;
                leases.push(Lease {
                    is_prefix: true,
                    address: address.parse()?,
                    prefix_len: len.parse()?,
                    duid: duid.clone(),
                    iaid,
                });
            }
            _ => {}
        }
    }
    Ok(leases)
}

/// The digits of an IAID: dhclient writes octets, or a quoted string where all of them are printable
/// characters, as the tail of a random MAC address can be.
fn iaid_hex(text: &str) -> Result<String> {
    let Some(quoted) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return plain_hex(text);
    };
    let plain = quoted.replace("\\\"", "\"").replace("\\\\", "\\");
    Ok(plain.bytes().map(|octet| format!("{octet:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"default-duid "\000\001";
lease6 {
  interface "c0";
  ia-na ab:29:25:2c {
    starts 1795460574;
    iaaddr 2001:db8:1::1000 {
      starts 1795460574;
    }
  }
  ia-pd ab:29:25:2d {
    iaprefix 2001:db8:8000::/56 {
      max-life 60;
    }
  }
  option dhcp6.client-id 0:1:0:1:32:97:4a:5c:82:7:ab:29:25:2c;
}
"#;

    #[test]
    fn reads_the_last_block() {
        let text = format!("{}{FILE}", FILE.replace("::1000", "::999"));
        let leases = parse(&text).unwrap();
        assert_eq!(leases.len(), 2);
        assert_eq!(leases[0].address, "2001:db8:1::1000".parse::<std::net::Ipv6Addr>().unwrap());
        assert_eq!(leases[0].iaid, 0xab29_252c);
        assert_eq!(leases[0].duid, "0001000132974a5c8207ab29252c");
        assert_eq!((leases[1].prefix_len, leases[1].iaid), (56, 0xab29_252d));
    }

    #[test]
    fn printable_iaids_are_quoted() {
        for (text, iaid) in [("\"AVGx\"", 0x4156_4778), ("\"A {z\"", 0x4120_7b7a)] {
            let leases =
                parse(&FILE.replace("ia-na ab:29:25:2c", &format!("ia-na {text}"))).unwrap();
            assert_eq!(leases[0].iaid, iaid, "{text}");
        }
        assert_eq!(iaid_hex(r#""a\"bc""#).unwrap(), "61226263");
    }

    #[test]
    fn nothing_yet_or_no_longer() {
        assert!(parse("").unwrap().is_empty());
        assert!(parse(&FILE.replace("\n}\n", "\n")).unwrap().is_empty());
        assert!(parse(&FILE.replace("interface", "released;\n  interface")).unwrap().is_empty());
    }
}
