//! Dibbler.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Lease, Seat, Software, plain_hex};
use crate::Process;

/// The file in which the client keeps what it holds.
const DATABASE: &str = "/var/lib/dibbler/client-AddrMgr.xml";

/// Dibbler's client (Debian package `dibbler-client`); records in its XML database.
#[derive(Debug)]
pub struct Dibbler;

impl Software for Dibbler {
    fn program(&self) -> &'static str {
        "dibbler-client"
    }

    fn command(&self, seat: &Seat) -> Result<Command> {
        let mut config = String::from("log-level 7\nlog-mode short\nduid-type duid-ll\n");
        config.push_str(&format!("iface \"{}\" {{\n", seat.interface.name()));
        if seat.wanted.address() {
            config.push_str("  ia\n");
        }
        if seat.wanted.prefix() {
            config.push_str("  pd\n");
        }
        config.push_str("  option dns-server\n}\n");
        // The path of the configuration is compiled in.
        let path = seat.sandbox.outside("/etc/dibbler/client.conf");
        std::fs::write(&path, config).with_context(|| format!("writing {}", path.display()))?;
        let mut command = seat.sandbox.command("dibbler-client")?;
        command.arg("run");
        Ok(command)
    }

    fn leases(&self, seat: &Seat, _output: &[String]) -> Result<Vec<Lease>> {
        parse(&std::fs::read_to_string(seat.sandbox.outside(DATABASE)).unwrap_or_default())
    }

    fn release(&self, _seat: &Seat, process: &mut Process) -> Result<()> {
        process.signal("INT")?;
        process.wait(Duration::from_secs(30))?;
        Ok(())
    }
}

/// The leases of the database. It is rewritten in place, so a file without its end is no error.
fn parse(xml: &str) -> Result<Vec<Lease>> {
    if !xml.contains("</AddrMgr>") {
        return Ok(Vec::new());
    }
    let mut duid = String::new();
    let mut iaid = 0;
    let mut leases = Vec::new();
    for line in xml.lines().map(str::trim) {
        // The first is the client's, those inside an identity association are the server's.
        if line.starts_with("<duid ") && duid.is_empty() {
            duid = plain_hex(content(line)?)?;
        } else if line.starts_with("<AddrIA ") || line.starts_with("<AddrPD ") {
            iaid = attribute(line, "IAID")?.parse()?;
        } else if line.starts_with("<AddrAddr ") {
            let address = content(line)?.parse()?;
            leases.push(Lease {
                is_prefix: false,
                address,
                prefix_len: 128,
                duid: duid.clone(),
                iaid,
            });
        } else if line.starts_with("<AddrPrefix ") {
            let address = content(line)?.parse()?;
            let prefix_len = attribute(line, "length")?.parse()?;
            leases.push(Lease { is_prefix: true, address, prefix_len, duid: duid.clone(), iaid });
        }
    }
    Ok(leases)
}

/// What stands between the tags of an element on one line.
fn content(line: &str) -> Result<&str> {
    let after = line.split_once('>').map(|(_, after)| after);
    after
        .and_then(|after| after.split_once('<'))
        .map(|(content, _)| content.trim())
        .with_context(|| format!("no content in {line:?}"))
}

fn attribute<'a>(line: &'a str, name: &str) -> Result<&'a str> {
    line.split_once(&format!(" {name}=\""))
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(value, _)| value)
        .with_context(|| format!("no {name} in {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: &str = r#"<AddrMgr>
  <AddrClient>
    <duid length="10">00:03:00:01:ee:e5:1e:f5:ba:b7</duid>
    <AddrIA unicast="" T1="3" T2="20" IAID="1" state="CONFIGURED" ifacename="c0" iface="2">
      <duid length="14">00:01:00:01:32:97:4a:5c:3a:d6:21:0e:d9:98</duid>
      <AddrAddr timestamp="1795460748" pref="40" valid="60" prefix="128">2001:db8:1::1004</AddrAddr>
    </AddrIA>
    <AddrPD unicast="" T1="3" T2="20" IAID="7" state="CONFIGURED" ifacename="c0" iface="2">
      <AddrPrefix timestamp="1795460750" pref="40" valid="40" length="56">2001:db8:8000:400::</AddrPrefix>
    </AddrPD>
  </AddrClient>
</AddrMgr>
"#;

    #[test]
    fn reads_the_database() {
        let leases = parse(DATABASE).unwrap();
        assert_eq!(leases.len(), 2);
        assert_eq!(leases[0].duid, "00030001eee51ef5bab7");
        assert_eq!((leases[1].prefix_len, leases[1].iaid), (56, 7));
    }

    #[test]
    fn a_half_written_database_has_nothing_in_it() {
        assert!(parse(&DATABASE[..DATABASE.len() - 12]).unwrap().is_empty());
    }
}
