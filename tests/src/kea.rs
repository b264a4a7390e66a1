//! Kea, the server that people have today, to measure beside Gemel: alone, and two of them as a
//! hot-standby pair with the hook library that its packages contain.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{Interface, Lab, Namespace, Process, requirement};

/// The server's program.
pub const PROGRAM: &str = "kea-dhcp6";

/// The Debian package that has it.
pub const PACKAGE: &str = "kea-dhcp6-server";

/// How long it may take to serve; a pair synchronizes its leases first.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the two of a pair reach each other.
const PEERS: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

/// Whether it is installed.
#[must_use]
pub fn is_installed() -> bool {
    requirement::find_program(PROGRAM).is_some()
}

/// The installed version.
///
/// # Errors
/// When the program does not run.
pub fn version() -> Result<String> {
    Ok(crate::run(PROGRAM, &["-v"])?.trim().to_owned())
}

/// How a server is set up.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Which of a pair it is, if it is one: 0 is the primary.
    pub peer: Option<usize>,
    /// The link to the other one of the pair.
    pub peer_link: Option<&'a Interface>,
    /// Threads that handle packets; none for its single-threaded mode.
    pub threads: Option<u32>,
}

/// A running server.
#[derive(Debug)]
pub struct Kea {
    process: Process,
}

impl Kea {
    /// Starts a server for the clients on an interface, with the pool of
    /// [`crate::gemel::LinkConfig::for_load`] number 1 and leases persisted to its own file format,
    /// as its packages configure it. Returns when its log says that it has started.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(
        lab: &Lab,
        namespace: &Namespace,
        interface: &Interface,
        options: &Options<'_>,
    ) -> Result<Self> {
        let name = format!("kea-{}", options.peer.unwrap_or(0));
        let dir = lab.subdir(&name)?;
        if let (Some(peer), Some(link)) = (options.peer, options.peer_link) {
            let address = format!("{}/24", PEERS[peer]);
            namespace.run("ip", &["addr", "add", &address, "dev", link.name()])?;
        }
        let hooks = hooks(options)?;
        let text = config(&dir, interface.name(), options, &hooks).to_string();
        let path = lab.write(&format!("{name}.json"), &text)?;
        let mut command = namespace.command(PROGRAM);
        command.arg("-c").arg(&path);
        command.env("KEA_PIDFILE_DIR", &dir).env("KEA_LOCKFILE_DIR", &dir);
        let mut process = Process::spawn(&name, command)?;
        process.wait_for_line("DHCP6_STARTED", START_TIMEOUT)?;
        Ok(Self { process })
    }

    /// Waits until a server of a pair serves with its partner.
    ///
    /// # Errors
    /// When it does not get there in time.
    pub fn wait_hot_standby(&mut self) -> Result<()> {
        self.process.wait_for_line("to HOT-STANDBY", START_TIMEOUT).map(drop)
    }
}

/// The hook libraries of a pair, wherever the package puts them.
fn hooks(options: &Options<'_>) -> Result<Vec<PathBuf>> {
    if options.peer.is_none() {
        return Ok(Vec::new());
    }
    let find = |file: &str| {
        let dirs = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
        dirs.iter()
            .map(|dir| Path::new(dir).join("kea/hooks").join(file))
            .find(|path| path.is_file())
            .with_context(|| format!("no {file}: which package has Kea's hook libraries?"))
    };
    ["libdhcp_lease_cmds.so", "libdhcp_ha.so"].into_iter().map(find).collect()
}

fn config(dir: &Path, interface: &str, options: &Options<'_>, hooks: &[PathBuf]) -> Value {
    let logger = |name: &str, severity: &str| {
        json!({
            "name": name, "severity": severity,
            "output_options": [{"output": "stdout", "flush": true}],
        })
    };
    let mut server = json!({
        "interfaces-config": {"interfaces": [interface]},
        "data-directory": dir,
        "lease-database": {
            "type": "memfile", "persist": true, "lfc-interval": 0,
            "name": dir.join("leases6.csv"),
        },
        "multi-threading": {
            "enable-multi-threading": options.threads.is_some(),
            "thread-pool-size": options.threads.unwrap_or(1),
            "packet-queue-size": 64,
        },
        "preferred-lifetime": 3600,
        "valid-lifetime": 7200,
        "renew-timer": 1800,
        "rebind-timer": 2880,
        "option-data": [{"name": "dns-servers", "data": crate::gemel::DNS_SERVER}],
        "subnet6": [{
            "subnet": "2001:db8:1::/64",
            "interface": interface,
            "pools": [{"pool": "2001:db8:1::100:0-2001:db8:1::1ff:ffff"}],
        }],
        "loggers": [
            logger("kea-dhcp6", "WARN"),
            logger("kea-dhcp6.dhcp6", "INFO"),
            logger("kea-dhcp6.ha-hooks", "INFO"),
        ],
    });
    if let Some(peer) = options.peer {
        let names = ["first", "second"];
        let url = |number: usize| format!("http://{}:8000/", PEERS[number]);
        let relationship = json!({
            "this-server-name": names[peer],
            "mode": "hot-standby",
            "multi-threading": {
                "enable-multi-threading": options.threads.is_some(),
                "http-dedicated-listener": true,
            },
            "peers": [
                {"name": names[0], "url": url(0), "role": "primary", "auto-failover": true},
                {"name": names[1], "url": url(1), "role": "standby", "auto-failover": true},
            ],
        });
        let libraries: Vec<_> = hooks
            .iter()
            .map(|path| {
                let is_ha = path.ends_with("libdhcp_ha.so");
                let parameters = json!({"high-availability": [relationship]});
                let mut library = json!({"library": path});
                if is_ha {
                    library["parameters"] = parameters;
                }
                library
            })
            .collect();
        server["hooks-libraries"] = libraries.into();
    }
    json!({"Dhcp6": server})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_names_both_and_itself() {
        let options = Options { peer: Some(1), peer_link: None, threads: Some(2) };
        let hooks = ["/hooks/libdhcp_lease_cmds.so", "/hooks/libdhcp_ha.so"].map(PathBuf::from);
        let config = config(Path::new("/tmp"), "eth1", &options, &hooks);
        let server = &config["Dhcp6"];
        assert!(server["hooks-libraries"][0].get("parameters").is_none());
        let pair = &server["hooks-libraries"][1]["parameters"]["high-availability"][0];
        assert_eq!(pair["this-server-name"], "second");
        assert_eq!(pair["peers"][0]["url"], "http://192.0.2.1:8000/");
        assert_eq!(server["multi-threading"]["thread-pool-size"], 2);
    }

    #[test]
    fn one_alone_has_no_hooks() {
        let options = Options { peer: None, peer_link: None, threads: None };
        let config = config(Path::new("/tmp"), "eth1", &options, &[]);
        assert!(config["Dhcp6"].get("hooks-libraries").is_none());
        assert_eq!(config["Dhcp6"]["multi-threading"]["enable-multi-threading"], false);
    }
}
