//! A network namespace.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::{output, run};
use crate::Process;

/// A handle to a network namespace; the namespace is removed with the last handle, together with
/// every process that still runs inside.
#[derive(Clone, Debug)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
}

impl Drop for Inner {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

impl Namespace {
    pub(super) fn new(name: String) -> Result<Self> {
        // A leftover of the same name can only stem from an earlier process with our id.
        remove(&name);
        run("ip", &["netns", "add", &name])
            .with_context(|| format!("making the network namespace {name} (it needs root)"))?;
        let namespace = Self { inner: Arc::new(Inner { name }) };
        // Addresses are usable at once without duplicate address detection, and nothing but what
        // the test does configures the interfaces.
        for (key, value) in [("accept_dad", "0"), ("accept_ra", "0"), ("autoconf", "0")] {
            for scope in ["all", "default"] {
                namespace
                    .run("sysctl", &["-qw", &format!("net.ipv6.conf.{scope}.{key}={value}")])?;
            }
        }
        namespace.run("ip", &["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// A command that will run `program` inside.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name()]).arg(program);
        command
    }

    /// Runs a program inside to its end and returns its standard output.
    ///
    /// # Errors
    /// When it cannot be started or fails.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        output(self.command(program).args(args))
    }

    /// Starts a program inside.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, program: &str, args: &[&str]) -> Result<Process> {
        let mut command = self.command(program);
        command.args(args);
        Process::spawn(program, command)
    }
}

/// Ends all processes of the namespace and removes it; silent when there is no such namespace.
pub(super) fn remove(name: &str) {
    if let Ok(pids) = run("ip", &["netns", "pids", name]) {
        for pid in pids.split_whitespace() {
            let _ = run("sh", &["-c", &format!("kill -KILL {pid}")]);
        }
        let _ = run("ip", &["netns", "delete", name]);
    }
}
