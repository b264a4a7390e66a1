//! `cargo xtask setup`: installs the Debian packages that are missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use gemel_tests::{kea, requirement};

use crate::cargo::check;

/// How a package's presence shows.
#[derive(Debug)]
enum Sign {
    /// A program in the path.
    Program(&'static str),
    /// A file, in one of these places.
    File(&'static [&'static str]),
}

/// Where Debian puts the library that shifts a program's clock.
const FAKETIME: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

/// Everything that building, testing and measuring needs, with the Debian package that has it.
const NEEDED: &[(Sign, &str)] = &[
    // To build: the XDP programs, libbpf, LMDB.
    (Sign::Program("clang"), "clang"),
    (Sign::Program("llvm-strip"), "llvm"),
    (Sign::Program("gcc"), "gcc"),
    (Sign::Program("make"), "make"),
    (Sign::Program("pkg-config"), "pkg-config"),
    (Sign::File(&["/usr/include/libelf.h"]), "libelf-dev"),
    (Sign::File(&["/usr/include/zlib.h"]), "zlib1g-dev"),
    (Sign::File(&["/usr/include/linux/bpf.h"]), "linux-libc-dev"),
    (Sign::File(&["/usr/include/stdlib.h"]), "libc6-dev"),
    // The lab.
    (Sign::Program("ip"), "iproute2"),
    (Sign::Program("ethtool"), "ethtool"),
    (Sign::Program("sysctl"), "procps"),
    (Sign::Program("unshare"), "util-linux"),
    (Sign::Program("tcpdump"), "tcpdump"),
    (Sign::Program("tshark"), "tshark"),
    // The pages of reports are looked at.
    (Sign::Program("chromium"), "chromium"),
    // Servers whose clocks do not agree.
    (Sign::File(FAKETIME), "libfaketime"),
    // Clients and relays.
    (Sign::Program("dhclient"), "isc-dhcp-client"),
    (Sign::Program("dhcrelay"), "isc-dhcp-relay"),
    (Sign::Program("dhcpcd"), "dhcpcd-base"),
    (Sign::Program("dibbler-client"), "dibbler-client"),
    (Sign::Program("dhcp6c"), "wide-dhcpv6-client"),
];

/// Packages with a service that must not run on this machine just because the tests need the
/// program in it.
const SERVICES: &[&str] = &["dibbler-client", "isc-dhcp-relay", "wide-dhcpv6-client", kea::PACKAGE];

/// Where Debian's package scripts ask whether a service may be started.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Servers to measure beside Gemel; nothing else needs them.
const PEERS: &[(Sign, &str)] = &[(Sign::Program(kea::PROGRAM), kea::PACKAGE)];

/// Installs what is missing; silent and quick when nothing is.
pub(crate) fn run() -> Result<()> {
    install(NEEDED)
}

/// Installs the servers to measure beside Gemel, as far as they are missing.
pub(crate) fn install_peers() -> Result<()> {
    install(PEERS)
}

fn install(needed: &[(Sign, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        needed.iter().filter(|(sign, _)| !sign.is_there()).map(|&(_, package)| package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if requirement::find_program("apt-get").is_none() {
        bail!("missing here, by their names in Debian: {list}; install them and try again");
    }
    if !requirement::is_root() {
        bail!("packages are missing and only root may install them: sudo apt-get install {list}");
    }
    eprintln!("installing {list}");
    let policy = Policy::forbid_services(Path::new(POLICY))?;
    if !has_package_lists() {
        eprintln!("fetching the lists of packages first");
        apt(&["update", "-q"])?;
    }
    let mut install = vec!["install", "-q", "-y", "--no-install-recommends"];
    install.extend(&missing);
    if apt(&install).is_err() {
        eprintln!("that failed; trying again with fresh lists of packages");
        apt(&["update", "-q"])?;
        apt(&install)?;
    }
    for service in SERVICES.iter().filter(|service| missing.contains(service)) {
        // Without an init system there is nothing to disable.
        if requirement::find_program("update-rc.d").is_some() {
            check(Command::new("update-rc.d").args([service, "disable"]))?;
        }
    }
    drop(policy);
    if let Some((sign, package)) = needed.iter().find(|(sign, _)| !sign.is_there()) {
        bail!("{package} is installed, but {sign:?} is still not there");
    }
    Ok(())
}

impl Sign {
    fn is_there(&self) -> bool {
        match self {
            Self::Program(name) => requirement::find_program(name).is_some(),
            Self::File(places) => places.iter().any(|place| Path::new(place).exists()),
        }
    }
}

fn has_package_lists() -> bool {
    let Ok(lists) = std::fs::read_dir("/var/lib/apt/lists") else { return false };
    lists.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

fn apt(args: &[&str]) -> Result<()> {
    check(Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// While it lives, package scripts start no service.
#[derive(Debug)]
struct Policy {
    path: PathBuf,
    /// Where the script that was there before waits.
    saved: PathBuf,
}

impl Policy {
    fn forbid_services(path: &Path) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let saved = path.with_extension("d.before-gemel");
        // One that is waiting already was left by a run that was killed.
        if path.exists() && !saved.exists() {
            std::fs::rename(path, &saved).with_context(|| format!("moving {}", path.display()))?;
        }
        let policy = Self { path: path.to_owned(), saved };
        std::fs::write(path, "#!/bin/sh\nexit 101\n")
            .and_then(|()| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)))
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(policy)
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        let restored = if self.saved.exists() {
            std::fs::rename(&self.saved, &self.path)
        } else {
            std::fs::remove_file(&self.path)
        };
        if let Err(error) = restored {
            eprintln!("{} could not be put back: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_of_before_comes_back() {
        let lab = gemel_tests::Lab::new("policy").unwrap();
        let path = lab.dir().join("policy-rc.d");
        drop(Policy::forbid_services(&path).unwrap());
        assert!(!path.exists());

        std::fs::write(&path, "before").unwrap();
        let policy = Policy::forbid_services(&path).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("101"));
        drop(policy);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
    }

    #[test]
    fn each_package_is_named_once() {
        let mut packages: Vec<_> = NEEDED.iter().map(|&(_, package)| package).collect();
        packages.sort_unstable();
        packages.dedup();
        assert_eq!(packages.len(), NEEDED.len());
    }
}
