//! A packet capture, read afterwards by tshark.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Lab, link::Interface, run};
use crate::Process;

/// A capture of everything that crosses one end of a link.
///
/// Capture at the client's end: what a native XDP program redirects at the server's end never
/// reaches the tap there.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    path: PathBuf,
}

impl Capture {
    /// Starts capturing into `file` of the lab's folder and waits until it really does.
    ///
    /// # Errors
    /// When tcpdump cannot be started or does not listen.
    pub fn start(lab: &Lab, interface: &Interface, file: &str) -> Result<Self> {
        let path = lab.dir().join(file);
        let mut command = interface.namespace().command("tcpdump");
        command
            .args(["-n", "-U", "--immediate-mode", "-Z", "root", "-B", "16384", "-s", "0"])
            .args(["-i", interface.name(), "-w"])
            .arg(&path);
        let mut process = Process::spawn("tcpdump", command)?;
        process.wait_for_line("listening on", Duration::from_secs(20))?;
        Ok(Self { process, path })
    }

    /// Ends the capture and returns its reader.
    ///
    /// # Errors
    /// When tcpdump does not end in time.
    pub fn stop(mut self) -> Result<Trace> {
        self.process.signal("INT")?;
        self.process.wait(Duration::from_secs(20))?;
        Ok(Trace { path: self.path.clone() })
    }
}

/// A finished capture.
#[derive(Debug)]
pub struct Trace {
    path: PathBuf,
}

impl Trace {
    /// The file, in pcap form.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One line per packet that matches a tshark display filter.
    ///
    /// # Errors
    /// When tshark fails.
    pub fn filter(&self, display_filter: &str) -> Result<Vec<String>> {
        self.tshark(&["-Y", display_filter])
    }

    /// How many packets match a tshark display filter.
    ///
    /// # Errors
    /// When tshark fails.
    pub fn count(&self, display_filter: &str) -> Result<usize> {
        Ok(self.filter(display_filter)?.len())
    }

    /// Insists that the capture has DHCPv6 in it, and that tshark finds none of it malformed, in
    /// error, or with a wrong UDP checksum.
    ///
    /// # Errors
    /// When it does; the error shows the packets in full.
    pub fn assert_clean(&self) -> Result<()> {
        if self.count("dhcpv6")? == 0 {
            bail!("the capture {} has no DHCPv6 in it", self.path.display());
        }
        let bad = "(dhcpv6 || udp.port == 546 || udp.port == 547) && (_ws.malformed \
                   || _ws.expert.severity == error || _ws.expert.group == malformed \
                   || udp.checksum.status == bad)";
        if self.count(bad)? > 0 {
            bail!("tshark objects to:\n{}", self.tshark(&["-V", "-x", "-Y", bad])?.join("\n"));
        }
        Ok(())
    }

    fn tshark(&self, args: &[&str]) -> Result<Vec<String>> {
        let path = self.path.to_str().context("the lab's folder is UTF-8")?;
        let mut all = vec!["-n", "-o", "udp.check_checksum:TRUE", "-r", path];
        all.extend(args);
        Ok(run("tshark", &all)?.lines().map(str::to_owned).collect())
    }
}
