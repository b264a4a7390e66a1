//! Two servers in a failover relationship, on one clients' link and one link between them.
//!
//! ```text
//!   client ---- switch ---- server-a (primary)
//!                  |            |  2001:db8:ff::1
//!                  |            |  failover link
//!                  |            |  2001:db8:ff::2
//!                  +------- server-b (secondary)
//! ```
//!
//! Each box is a namespace; the switch is a bridge. The link between the servers can be cut without
//! a trace, in one direction or both: the sender's neighbour table then has an Ethernet address
//! that nobody has, so the frames go out and are taken by nobody, and nothing comes back that
//! would tell. The neighbours' addresses are fixed at all times, so that no neighbour discovery
//! gets in between.

mod config;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::gemel::{Binding, Config, Server};
use crate::{Interface, Lab, Link, Switch, run, wait};

pub use config::{FailoverConfig, Options, Role, TlsConfig, faketime};

use config::{config, issue_certificates};

/// The name of the relationship.
pub const RELATIONSHIP: &str = "pair";

/// The servers' addresses on the link between them.
pub const ADDRESSES: [&str; 2] = ["2001:db8:ff::1", "2001:db8:ff::2"];

/// The interface of either server to the other one.
const FAILOVER_INTERFACE: &str = "gml-f0";

/// An Ethernet address that nobody has.
const NOBODY: &str = "02:00:00:00:de:ad";

/// How long two servers may take until they work together.
const TOGETHER: Duration = Duration::from_secs(60);

/// How long two servers that work together may take until they know the same.
const EQUAL: Duration = Duration::from_secs(30);

/// What a server says of its relationship.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Relationship {
    /// Its state, as in RFC 8156, in lower case with hyphens.
    pub state: String,
    /// The partner's state as it was heard last; empty if it never was.
    pub partner_state: String,
    /// Whether communications are "OK".
    pub connected: bool,
    /// All that the server says.
    pub page: Value,
}

/// Directions of the link between the servers, from the primary's point of view.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// What the primary sends.
    FromPrimary,
    /// What the primary receives.
    ToPrimary,
    /// Both.
    Both,
}

/// Two servers with their lab.
#[derive(Debug)]
pub struct Pair {
    servers: [Server; 2],
    configs: [Config; 2],
    /// The interface of the clients.
    pub client: Interface,
    /// The ends of the link between the servers.
    pub failover: [Interface; 2],
    macs: [String; 2],
    /// The switch's ends of the servers' links.
    ports: [Interface; 2],
    /// Dropped last, or the servers would be gone before their handles.
    pub lab: Lab,
}

impl Pair {
    /// Makes the lab and starts both servers; returns when both are in NORMAL state.
    ///
    /// # Errors
    /// When they do not get there; the error shows what they logged.
    pub fn start(name: &str, options: &Options) -> Result<Self> {
        let mut pair = Self::start_apart(name, options)?;
        pair.wait_normal()?;
        Ok(pair)
    }

    /// Makes the lab and starts both servers; returns when both are ready to receive packets.
    ///
    /// # Errors
    /// When they do not get there; the error shows what they logged.
    pub fn start_apart(name: &str, options: &Options) -> Result<Self> {
        let lab = Lab::new(name)?;
        let mut switch = Switch::new(&lab)?;
        let namespaces = [lab.namespace("server-a")?, lab.namespace("server-b")?];
        let clients = lab.namespace("client")?;
        let (client, _) = switch.plug(&clients, "gml-c0")?;
        let [(first, first_port), (second, second_port)] =
            [switch.plug(&namespaces[0], "gml-s0")?, switch.plug(&namespaces[1], "gml-s0")?];
        let (server_ends, ports) = ([first, second], [first_port, second_port]);
        server_ends[0].add_address("2001:db8:1::1/64")?;
        server_ends[1].add_address("2001:db8:1::2/64")?;
        let (first, second) = Link::default()
            .connect((&namespaces[0], FAILOVER_INTERFACE), (&namespaces[1], FAILOVER_INTERFACE))?;
        let failover = [first, second];
        for (end, address) in failover.iter().zip(ADDRESSES) {
            end.add_address(&format!("{address}/64"))?;
        }
        let macs = [failover[0].mac()?, failover[1].mac()?];
        let configs = Role::ALL.map(|role| config(&lab, options, role, &server_ends[role.index()]));
        if options.tls {
            issue_certificates(lab.dir())?;
        }
        let [a, b] = &configs;
        // The secondary listens, so the primary finds it at once when it comes first.
        let mut secondary = Server::start_with_missing(&lab, &namespaces[1], b)?;
        let mut primary = Server::start_with_missing(&lab, &namespaces[0], a)?;
        for server in [&mut secondary, &mut primary] {
            server.wait_ready()?;
        }
        let pair =
            Self { servers: [primary, secondary], configs, client, failover, macs, ports, lab };
        Ok(pair)
    }

    /// One of the servers.
    #[must_use]
    pub fn server(&self, role: Role) -> &Server {
        &self.servers[role.index()]
    }

    /// One of the servers, to be killed or started again.
    pub fn server_mut(&mut self, role: Role) -> &mut Server {
        &mut self.servers[role.index()]
    }

    /// The configuration of one of the servers.
    #[must_use]
    pub fn config(&self, role: Role) -> &Config {
        &self.configs[role.index()]
    }

    /// Shell commands that cut the link between the servers in a direction; they run in any
    /// namespace.
    #[must_use]
    pub fn cut_command(&self, direction: Direction) -> String {
        let from_primary = self.neighbour_command(Role::Primary, NOBODY);
        let to_primary = self.neighbour_command(Role::Secondary, NOBODY);
        match direction {
            Direction::FromPrimary => from_primary,
            Direction::ToPrimary => to_primary,
            Direction::Both => format!("{from_primary} && {to_primary}"),
        }
    }

    /// Shell commands that mend the link between the servers.
    #[must_use]
    pub fn heal_command(&self) -> String {
        format!(
            "{} && {}",
            self.neighbour_command(Role::Primary, &self.macs[1]),
            self.neighbour_command(Role::Secondary, &self.macs[0])
        )
    }

    /// Cuts the link between the servers in a direction.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn cut(&self, direction: Direction) -> Result<()> {
        run("sh", &["-c", &self.cut_command(direction)]).map(drop)
    }

    /// Mends the link between the servers.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn heal(&self) -> Result<()> {
        run("sh", &["-c", &self.heal_command()]).map(drop)
    }

    /// Where a server's frames to its partner go.
    fn neighbour_command(&self, role: Role, mac: &str) -> String {
        format!(
            "ip -n {} -6 neigh replace {} lladdr {mac} dev {FAILOVER_INTERFACE} nud permanent",
            self.failover[role.index()].namespace().name(),
            ADDRESSES[role.partner().index()],
        )
    }

    /// A shell command that takes the carrier of a server's link to the clients away, or gives it
    /// back.
    #[must_use]
    pub fn carrier_command(&self, role: Role, up: bool) -> String {
        let port = &self.ports[role.index()];
        let state = if up { "up" } else { "down" };
        format!("ip -n {} link set {} {state}", port.namespace().name(), port.name())
    }

    /// Takes the carrier of a server's link to the clients away, or gives it back.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn set_carrier(&self, role: Role, up: bool) -> Result<()> {
        run("sh", &["-c", &self.carrier_command(role, up)]).map(drop)
    }

    /// What a server says of the relationship: `gemel ctl failover status --json`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn relationship(&self, role: Role) -> Result<Relationship> {
        let text = self.server(role).control(&["failover", "status", "--json"])?;
        parse_relationship(&text)
    }

    /// Waits until a server's relationship is as wanted.
    ///
    /// # Errors
    /// When it is not in time; the error says how it is.
    pub fn wait_relationship(
        &self,
        role: Role,
        what: &str,
        timeout: Duration,
        mut wanted: impl FnMut(&Relationship) -> bool,
    ) -> Result<Relationship> {
        let mut last = None;
        let what = format!("the {} to be {what}", role.as_str());
        let result = wait::until(&what, timeout, || {
            // A server that is just starting has no control socket yet.
            let Ok(found) = self.relationship(role) else { return Ok(None) };
            let is_it = wanted(&found);
            last = Some(found.clone());
            Ok(is_it.then_some(found))
        });
        result.with_context(|| format!("it says {last:?}"))
    }

    /// Waits until a server is in a state.
    ///
    /// # Errors
    /// When it is not in time; the error says what state it is in.
    pub fn wait_state(&self, role: Role, state: &str, timeout: Duration) -> Result<()> {
        let is_it = |found: &Relationship| found.state == state;
        self.wait_relationship(role, &format!("in state {state}"), timeout, is_it).map(drop)
    }

    /// Waits until both servers are in NORMAL state and connected.
    ///
    /// # Errors
    /// When they are not in time; the error shows what they logged last.
    pub fn wait_normal(&mut self) -> Result<()> {
        self.wait_normal_within(TOGETHER)
    }

    /// The same with another time.
    ///
    /// # Errors
    /// As [`Pair::wait_normal`].
    pub fn wait_normal_within(&mut self, timeout: Duration) -> Result<()> {
        for role in Role::ALL {
            let normal = |found: &Relationship| found.state == "normal" && found.connected;
            let result = self.wait_relationship(role, "in NORMAL state", timeout, normal);
            if let Err(error) = result {
                let tails = Role::ALL.map(|role| {
                    format!("the {}:\n{}", role.as_str(), self.server_mut(role).process().tail())
                });
                return Err(error.context(tails.join("\n\n")));
            }
        }
        Ok(())
    }

    /// Waits until both servers are in NORMAL state and have the same bindings; returns those.
    ///
    /// # Errors
    /// When they are not in time; the error shows some of what differs.
    pub fn wait_equal(&mut self) -> Result<Vec<Binding>> {
        self.wait_normal()?;
        let mut difference = String::new();
        let result = wait::until("both servers to have the same bindings", EQUAL, || {
            // Cheap to ask, so that large databases are compared only when that may succeed.
            let [mine, theirs] = [self.servers[0].status()?, self.servers[1].status()?];
            let count = "bindings_by_status";
            if mine[count] != theirs[count] {
                difference =
                    format!("the primary has {}, the secondary {}", mine[count], theirs[count]);
                return Ok(None);
            }
            let [mine, theirs] = [self.servers[0].bindings()?, self.servers[1].bindings()?];
            let differing = differing(&mine, &theirs);
            if differing.is_empty() {
                return Ok(Some(mine));
            }
            difference = format!(
                "the primary has {}, the secondary {}, {} differ:\n{}",
                mine.len(),
                theirs.len(),
                differing.len(),
                differing.iter().take(8).map(String::as_str).collect::<Vec<_>>().join("\n")
            );
            Ok(None)
        });
        result.with_context(|| difference)
    }

    /// What both servers have logged.
    #[must_use]
    pub fn log(&self) -> String {
        let logs = Role::ALL.map(|role| {
            format!("--- the log of the {} ---\n{}", role.as_str(), self.server(role).log())
        });
        logs.join("\n\n")
    }
}

/// What one server has and the other has not, or has otherwise.
fn differing(mine: &[Binding], theirs: &[Binding]) -> Vec<String> {
    let only = |these: &[Binding], those: &[Binding], whose: &str| {
        these
            .iter()
            .filter(|binding| those.binary_search(binding).is_err())
            .map(|binding| format!("only the {whose}: {binding:?}"))
            .collect::<Vec<_>>()
    };
    let mut all = only(mine, theirs, "primary");
    all.append(&mut only(theirs, mine, "secondary"));
    all.sort();
    all
}

fn parse_relationship(text: &str) -> Result<Relationship> {
    let all: Value =
        serde_json::from_str(text).with_context(|| format!("failover status said {text:?}"))?;
    let list = all.as_array().map_or_else(|| std::slice::from_ref(&all), Vec::as_slice);
    let found = list.iter().find(|one| one["relationship"] == RELATIONSHIP);
    let found = found.with_context(|| format!("no relationship {RELATIONSHIP} in {text}"))?;
    let word = |key: &str| found[key].as_str().unwrap_or_default().to_lowercase();
    let state = word("state");
    ensure!(!state.is_empty(), "no state in {found}");
    let connected = found["communications_ok"].as_bool();
    Ok(Relationship {
        state,
        partner_state: word("partner_state"),
        connected: connected.with_context(|| format!("no communications_ok in {found}"))?,
        page: found.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(lease: &str, expires: u64) -> Binding {
        Binding {
            lease: lease.into(),
            status: "active".into(),
            duid: "00:01".into(),
            iaid: 1,
            expires: Some(expires),
        }
    }

    #[test]
    fn differences_are_found_on_both_sides() {
        let mine = [binding("2001:db8::1", 1), binding("2001:db8::2", 1)];
        let theirs = [binding("2001:db8::1", 2), binding("2001:db8::2", 1)];
        assert_eq!(differing(&mine, &mine), [""; 0]);
        assert_eq!(differing(&mine, &theirs).len(), 2, "another end is a difference");
        assert_eq!(differing(&mine, &theirs[1..]).len(), 1);
        assert_eq!(differing(&mine[..1], &mine).len(), 1);
    }

    #[test]
    fn a_relationship_is_read() {
        let one = r#"{"relationship":"pair","state":"COMMUNICATIONS-INTERRUPTED",
            "partner_state":null,"communications_ok":false,"lag_seconds":0.5}"#;
        for text in [one.to_owned(), format!("[{one}]")] {
            let found = parse_relationship(&text).unwrap();
            assert_eq!(found.state, "communications-interrupted");
            assert_eq!((found.partner_state.as_str(), found.connected), ("", false));
            assert_eq!(found.page["lag_seconds"], 0.5);
        }
        assert!(parse_relationship("[]").is_err());
        assert!(parse_relationship(r#"{"relationship":"pair","state":"NORMAL"}"#).is_err());
    }
}
