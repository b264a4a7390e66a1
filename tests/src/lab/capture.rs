//! A packet capture, read afterwards by tshark.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Lab, link::Interface, run};
use crate::{Process, wait};

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

    /// The file that it is written to, in pcap form; its last packet may be incomplete.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the capture has a message of this type from a client, and a Reply to it.
    ///
    /// # Errors
    /// When `timeout` passes first.
    pub fn wait_exchange(&self, message: Message, timeout: Duration) -> Result<()> {
        let what = format!("a {message:?} and its Reply in the capture");
        wait::until(&what, timeout, || {
            // The last packet may be half written, at which tshark complains after printing all
            // others.
            let mut command = Command::new("tshark");
            command.args(["-n", "-r"]).arg(&self.path).args(FIELDS);
            let output = command.output().context("starting tshark")?;
            let text = String::from_utf8_lossy(&output.stdout);
            Ok(answered(&text, message).then_some(()))
        })
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

/// Message types that a client sends (RFC 8415 section 7.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message {
    /// SOLICIT.
    Solicit = 1,
    /// REQUEST.
    Request = 3,
    /// CONFIRM.
    Confirm = 4,
    /// RENEW.
    Renew = 5,
    /// REBIND.
    Rebind = 6,
    /// RELEASE.
    Release = 8,
    /// DECLINE.
    Decline = 9,
    /// INFORMATION-REQUEST.
    InformationRequest = 11,
}

/// The message type of a REPLY.
const REPLY: &str = "7";

/// Asks tshark for message type and transaction id, tab-separated.
const FIELDS: [&str; 8] =
    ["-T", "fields", "-e", "dhcpv6.msgtype", "-e", "dhcpv6.xid", "-Y", "dhcpv6"];

/// Whether among lines of [`FIELDS`] a message of this type is followed by a Reply to it.
fn answered(lines: &str, message: Message) -> bool {
    let sent = (message as u8).to_string();
    let fields = || lines.lines().filter_map(|line| line.split_once('\t'));
    fields().any(|(sent_type, id)| {
        sent_type == sent && fields().any(|(reply, reply_id)| reply == REPLY && reply_id == id)
    })
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

    /// Whether a message of this type from a client has a Reply.
    ///
    /// # Errors
    /// When tshark fails.
    pub fn is_answered(&self, message: Message) -> Result<bool> {
        Ok(answered(&self.tshark(&FIELDS)?.join("\n"), message))
    }

    /// The server's DUID in each Advertise and Reply, in tshark's spelling.
    ///
    /// # Errors
    /// When tshark fails.
    pub fn server_duids(&self) -> Result<Vec<String>> {
        // The option stands in no fixed place, so the text of the packet says which DUID is whose.
        let text = self.tshark(&["-V", "-Y", "dhcpv6.msgtype == 2 || dhcpv6.msgtype == 7"])?;
        let mut duids = Vec::new();
        let mut inside = false;
        for line in text.iter().map(|line| line.trim()) {
            if line.starts_with("Server Identifier") {
                inside = true;
            } else if inside && let Some(duid) = line.strip_prefix("DUID: ") {
                duids.push(duid.to_owned());
                inside = false;
            }
        }
        Ok(duids)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_transaction_id_of_the_question() {
        let lines = "1\t0x01\n2\t0x01\n3\t0x02\n7\t0x02\n5\t0x03\n";
        assert!(answered(lines, Message::Request));
        assert!(!answered(lines, Message::Solicit));
        assert!(!answered(lines, Message::Renew));
    }
}
