//! How the two servers of a pair are set up.

use std::path::Path;

use anyhow::{Context, Result};

use super::{ADDRESSES, RELATIONSHIP};
use crate::gemel::{Config, Durability, LinkConfig, Mode};
use crate::{Interface, Lab, requirement, run};

/// Which of the two.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// It serves while both work.
    Primary,
    /// It stands by.
    Secondary,
}

impl Role {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Primary, Self::Secondary];

    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }

    /// The partner's.
    #[must_use]
    pub fn partner(self) -> Self {
        match self {
            Self::Primary => Self::Secondary,
            Self::Secondary => Self::Primary,
        }
    }

    /// The name of the server in certificates.
    #[must_use]
    pub fn certificate_name(self) -> &'static str {
        match self {
            Self::Primary => "a.example.net",
            Self::Secondary => "b.example.net",
        }
    }

    pub(super) fn index(self) -> usize {
        usize::from(self == Self::Secondary)
    }
}

/// Table `[failover.tls]`.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// File with the authority's certificate.
    pub ca: String,
    /// File with the server's certificate.
    pub certificate: String,
    /// File with its key.
    pub key: String,
    /// The name in the partner's certificate.
    pub partner_name: String,
}

/// A table `[[failover]]`.
#[derive(Clone, Debug)]
pub struct FailoverConfig {
    /// Which of the two this server is.
    pub role: Role,
    /// Maximum client lead time, seconds.
    pub mclt: u32,
    /// A connection without a message for so long is taken for dead, seconds.
    pub keepalive: u32,
    /// Certificates; none for plain TCP.
    pub tls: Option<TlsConfig>,
    /// Further lines.
    pub more: String,
}

impl FailoverConfig {
    /// The text of the table, over link `access`.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let (local, partner) = (self.role.index(), self.role.partner().index());
        let mut text = format!(
            "\n[[failover]]\nname = \"{RELATIONSHIP}\"\nrole = \"{}\"\nlocal = \"{}\"\n\
             partner = \"{}\"\nlinks = [\"access\"]\nmclt = \"{}s\"\nkeepalive_time = \"{}s\"\n\
             startup_time = \"1s\"\nreconnect_interval = \"200ms\"\n{}\n",
            self.role.as_str(),
            ADDRESSES[local],
            ADDRESSES[partner],
            self.mclt,
            self.keepalive,
            self.more
        );
        match &self.tls {
            None => text += "tls = \"off\"\n",
            Some(tls) => {
                text += &format!(
                    "[failover.tls]\nca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n\
                     partner_name = \"{}\"\n",
                    tls.ca, tls.certificate, tls.key, tls.partner_name
                );
            }
        }
        text
    }
}

/// How a pair is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// How packets reach the servers.
    pub mode: Mode,
    /// What a reply waits for.
    pub durability: Durability,
    /// Maximum client lead time, seconds.
    pub mclt: u32,
    /// Silence that means a dead connection, seconds.
    pub keepalive: u32,
    /// Preferred lifetime, valid lifetime, T1 and T2, in seconds.
    pub times: [u32; 4],
    /// By how much the secondary's clock is ahead, seconds.
    pub skew: i32,
    /// Whether the servers talk TLS, with certificates of `gemel ca`.
    pub tls: bool,
    /// The cores that each server is bound to, the primary's first.
    pub pins: [Option<String>; 2],
    /// Further lines of the table `[[failover]]`.
    pub more: String,
    /// Setting `server.expected_bindings`.
    pub expected_bindings: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            durability: Durability::PowerLoss,
            mclt: 60,
            keepalive: 1,
            times: [3600, 7200, 1800, 2880],
            skew: 0,
            tls: false,
            pins: [None, None],
            more: String::new(),
            expected_bindings: None,
        }
    }
}

/// The configuration of one of the servers, with its clients on this interface.
pub(super) fn config(lab: &Lab, options: &Options, role: Role, interface: &Interface) -> Config {
    let mut link = LinkConfig::new("access", 1).for_load(1).on(interface);
    link.times = options.times;
    let mut config = Config::new(options.mode, vec![link]);
    config.name = role.as_str().to_owned();
    config.durability = options.durability;
    config.pin.clone_from(&options.pins[role.index()]);
    config.expected_bindings = options.expected_bindings;
    if role == Role::Secondary && options.skew != 0 {
        config.environment = clock_ahead(options.skew);
    }
    let dir = lab.dir().join("ca").display().to_string();
    let tls = options.tls.then(|| TlsConfig {
        ca: format!("{dir}/ca.pem"),
        certificate: format!("{dir}/{}.pem", role.certificate_name()),
        key: format!("{dir}/{}.key", role.certificate_name()),
        partner_name: role.partner().certificate_name().to_owned(),
    });
    config.failover = Some(FailoverConfig {
        role,
        mclt: options.mclt,
        keepalive: options.keepalive,
        tls,
        more: options.more.clone(),
    });
    config
}

/// Where Debian puts the library that shifts a program's clock.
const FAKETIME: &str = "faketime/libfaketimeMT.so.1";

/// The environment in which the calendar clock of a program is ahead by some seconds; its monotonic
/// clock is not touched.
fn clock_ahead(seconds: i32) -> Vec<(String, String)> {
    let library = faketime().unwrap_or_default();
    vec![
        ("LD_PRELOAD".to_owned(), library),
        ("FAKETIME".to_owned(), format!("{seconds:+}s")),
        ("FAKETIME_DONT_FAKE_MONOTONIC".to_owned(), "1".to_owned()),
    ]
}

/// The library that shifts a program's clock, if it is installed.
#[must_use]
pub fn faketime() -> Option<String> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    folders
        .flatten()
        .map(|folder| folder.path().join(FAKETIME))
        .find(|file| file.is_file())
        .map(|file| file.display().to_string())
}

/// Makes an authority and a certificate for each server in folder `ca`.
pub(super) fn issue_certificates(dir: &Path) -> Result<()> {
    let gemel = requirement::binary("gemel")?;
    let gemel = gemel.to_str().context("a path in UTF-8")?;
    let ca = dir.join("ca");
    let ca = ca.to_str().context("a path in UTF-8")?;
    run(gemel, &["ca", "init", ca])?;
    for role in Role::ALL {
        run(gemel, &["ca", "issue", ca, "--name", role.certificate_name()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_configurations_mirror_each_other() {
        let text = |role| {
            FailoverConfig { role, mclt: 60, keepalive: 1, tls: None, more: String::new() }
                .to_toml()
        };
        let (a, b) = (text(Role::Primary), text(Role::Secondary));
        assert!(
            a.contains("local = \"2001:db8:ff::1\"") && b.contains("partner = \"2001:db8:ff::1\"")
        );
        assert!(a.contains("role = \"primary\"") && b.contains("role = \"secondary\""));
        assert!(a.contains("tls = \"off\""));
    }
}
