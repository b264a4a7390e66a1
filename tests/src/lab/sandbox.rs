//! A file system view in which a program can write only into the lab's folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Lab, namespace::Namespace};

/// Folders where DHCP clients keep their state, pid files and sockets.
const WRITABLE: [&str; 4] = ["/run", "/var/lib", "/var/log", "/var/tmp"];

/// A network namespace together with private copies of the folders that system software writes.
///
/// Inside, `/etc` is a copy, `/run`, `/var/lib` and `/var/log` are empty, the lab's folder is as
/// outside, and the rest of the root file system is read-only. So a client can neither change the
/// host's `/etc/resolv.conf` nor meet the lease files of another run. What it wrote stays in the
/// lab's folder for the test to read.
#[derive(Debug)]
pub struct Sandbox {
    namespace: Namespace,
    lab_dir: PathBuf,
    root: PathBuf,
}

impl Sandbox {
    /// Makes the private folders under `name` in the lab's folder.
    ///
    /// # Errors
    /// When they cannot be made or `/etc` cannot be copied.
    pub fn new(lab: &Lab, namespace: &Namespace, name: &str) -> Result<Self> {
        let root = lab.subdir(name)?;
        let sandbox = Self { namespace: namespace.clone(), lab_dir: lab.dir().to_owned(), root };
        std::fs::create_dir_all(sandbox.outside("/etc"))?;
        let copy = sandbox.outside("/etc");
        super::run("cp", &["-a", "/etc/.", utf8(&copy)?])?;
        // Often a link into /run, which is empty inside.
        let resolv = copy.join("resolv.conf");
        if std::fs::symlink_metadata(&resolv).is_ok() {
            std::fs::remove_file(&resolv)?;
        }
        std::fs::write(&resolv, "")?;
        for path in WRITABLE {
            sandbox.create(path)?;
        }
        for path in ["/var/lib/dhcp", "/var/lib/dhcpcd", "/var/lib/dhcpv6", "/run/dhcpcd"] {
            sandbox.create(path)?;
        }
        for path in ["/var/lib/dibbler", "/var/log/dibbler", "/run/dibbler"] {
            sandbox.create(path)?;
        }
        Ok(sandbox)
    }

    /// Where a path of the sandbox (in `/etc`, `/run`, `/var/lib`, `/var/log` or `/var/tmp`) lies
    /// outside.
    #[must_use]
    pub fn outside(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    /// A command that will run `program` in the namespace with the private file system.
    ///
    /// # Errors
    /// When a path of the lab is not UTF-8.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut script = String::from("set -e\n");
        // The lab's folder, mounted on itself, stays writable when the root is made read-only.
        let lab = utf8(&self.lab_dir)?;
        script.push_str(&format!("mount --bind '{lab}' '{lab}'\n"));
        for path in ["/etc"].iter().chain(&WRITABLE) {
            script.push_str(&format!("mount --bind '{}' {path}\n", utf8(&self.outside(path))?));
        }
        script.push_str("mount -o remount,bind,ro /\nexec \"$@\"\n");
        let mut command = self.namespace.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sandbox"]);
        command.arg(program);
        Ok(command)
    }

    fn create(&self, inside: &str) -> Result<()> {
        let path = self.outside(inside);
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        // Clients that drop their privileges write here under another user id.
        super::set_mode(&path, 0o777)
    }
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().context("the lab's folder is UTF-8")
}
