//! What a failover pair says on the wire, read by Wireshark; and what it says to a partner whose
//! certificate is another one's.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use common::pair::{NOTICE, load, under_load, wait_alone, wait_grants, with_pair};
use gemel_tests::gemel::Binding;
use gemel_tests::pair::{Options, RELATIONSHIP, Relationship, Role};
use gemel_tests::{Capture, Trace, require, wait};

/// Wireshark's dissector for the failover protocol, which hands options to its own for DHCPv6.
const DISSECTOR: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../dataplane/wire/tests/data/wireshark/failover.lua");

/// Bindings whose clients are looked for in the clear.
const CLIENTS_SOUGHT: usize = 50;

/// The message types of RFC 8156 section 5.3 and RFC 7653 section 8.2 that two servers exchange in
/// plain TCP.
const TYPES: [(u8, &str); 12] = [
    (24, "BNDUPD"),
    (25, "BNDREPLY"),
    (26, "POOLREQ"),
    (27, "POOLRESP"),
    (28, "UPDREQ"),
    (29, "UPDREQALL"),
    (30, "UPDDONE"),
    (31, "CONNECT"),
    (32, "CONNECTREPLY"),
    (33, "DISCONNECT"),
    (34, "STATE"),
    (35, "CONTACT"),
];

/// A restart in good order, PARTNER-DOWN, a lost disk, idle contact: every type of message is seen,
/// and Wireshark objects to none.
#[test]
fn a_whole_session_is_understood_by_wireshark() -> Result<()> {
    require!(["tcpdump", "tshark"], ["gemel", "gemel-bench"]);
    let options = Options { mclt: 5, ..Options::default() };
    with_pair("wire", &options, |pair| {
        let capture = Capture::start(&pair.lab, &pair.failover[0], "failover.pcap")?;
        let mut load = load(20.0)?;
        load.mclt = options.mclt;
        under_load(pair, load, |pair| {
            wait_grants(pair, Role::Primary, 100)?;
            // Stopped in good order, the primary says DISCONNECT; back from PARTNER-DOWN, it asks
            // with UPDREQ for what has happened, and without a disk with UPDREQALL for everything.
            pair.server_mut(Role::Primary).stop()?;
            wait_alone(pair, Role::Secondary)?;
            let words = ["failover", "partner-down", RELATIONSHIP, "--confirm"];
            pair.server(Role::Secondary).control(&words)?;
            wait_grants(pair, Role::Secondary, 50)?;
            pair.server_mut(Role::Primary).restart()?;
            pair.wait_normal()?;
            let secondary = pair.server_mut(Role::Secondary);
            secondary.kill()?;
            secondary.lose_disk()?;
            secondary.launch_again()?;
            pair.wait_normal()
        })?;
        wait_contact(&capture)?;
        let trace = capture.stop()?;
        let seen = messages(&trace)?;
        println!("messages by type: {seen:?}");
        for (number, name) in TYPES {
            ensure!(seen.contains_key(&number), "no {name} in the capture: {seen:?}");
        }
        let named = clients_in_clear(&trace, &pair.server(Role::Primary).bindings()?)?;
        ensure!(named > 0, "updates name the clients, but none was found");
        Ok(())
    })
}

/// Waits until the capture has a CONTACT, which servers send that have nothing else to say.
fn wait_contact(capture: &Capture) -> Result<()> {
    wait::until("a CONTACT in the capture", NOTICE, || {
        // The last packet may be half written, at which tshark complains after printing all others.
        let output = tshark(capture.path(), &["-Y", "dhcp6fo.type == 35"])?.output()?;
        Ok((!output.stdout.is_empty()).then_some(()))
    })
}

fn tshark(capture: &Path, more: &[&str]) -> Result<Command> {
    ensure!(Path::new(DISSECTOR).is_file(), "{DISSECTOR} is missing");
    let mut command = Command::new("tshark");
    command.args(["-n", "-X", &format!("lua_script:{DISSECTOR}"), "-r"]).arg(capture).args(more);
    Ok(command)
}

/// What tshark prints of a finished capture.
fn read(capture: &Path, more: &[&str]) -> Result<String> {
    let output = tshark(capture, more)?.output().context("starting tshark")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "tshark ended with {}: {complaint}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// How many messages of each type a capture has; an error where Wireshark objects to one, or cannot
/// name one.
fn messages(trace: &Trace) -> Result<BTreeMap<u8, usize>> {
    let bad = "dhcp6fo && (_ws.malformed || _ws.expert.severity == error)";
    let objections = read(trace.path(), &["-V", "-Y", bad])?;
    if !objections.trim().is_empty() {
        bail!("tshark objects to:\n{}", objections.lines().take(60).collect::<Vec<_>>().join("\n"));
    }
    let fields = read(trace.path(), &["-Y", "dhcp6fo", "-T", "fields", "-e", "dhcp6fo.type"])?;
    let mut seen = BTreeMap::new();
    for number in fields.split([',', '\n']).map(str::trim).filter(|text| !text.is_empty()) {
        let number: u8 = number.parse().with_context(|| format!("message type {number:?}"))?;
        ensure!(TYPES.iter().any(|(known, _)| *known == number), "message type {number}");
        *seen.entry(number).or_default() += 1;
    }
    Ok(seen)
}

/// How many of these clients are named in clear in a capture.
fn clients_in_clear(trace: &Trace, bindings: &[Binding]) -> Result<usize> {
    let octets = std::fs::read(trace.path())?;
    let mut duids: Vec<Vec<u8>> = bindings
        .iter()
        .take(CLIENTS_SOUGHT)
        .map(|binding| {
            binding.duid.split(':').map(|hex| Ok(u8::from_str_radix(hex, 16)?)).collect()
        })
        .collect::<Result<_>>()?;
    duids.sort();
    duids.dedup();
    ensure!(!duids.is_empty(), "nobody to look for");
    let found =
        |duid: &&Vec<u8>| octets.windows(duid.len()).any(|window| window == duid.as_slice());
    Ok(duids.iter().filter(found).count())
}

/// With certificates of `gemel ca` the servers talk TLS; a partner with another name in its
/// certificate than expected is refused, and both go on serving apart.
#[test]
fn tls_with_certificates_of_gemel_ca() -> Result<()> {
    require!(["tcpdump", "tshark"], ["gemel", "gemel-bench"]);
    let options = Options { tls: true, ..Options::default() };
    with_pair("tls", &options, |pair| {
        let capture = Capture::start(&pair.lab, &pair.failover[0], "tls.pcap")?;
        under_load(pair, load(4.0)?, |_| Ok(()))?;
        let bindings = pair.server(Role::Primary).bindings()?;
        let named = clients_in_clear(&capture.stop()?, &bindings)?;
        ensure!(named == 0, "{named} clients were named on the wire in the clear");

        // The secondary expects somebody else.
        let mut config = pair.config(Role::Secondary).clone();
        let tls = config.failover.as_mut().and_then(|failover| failover.tls.as_mut());
        tls.context("the pair talks TLS")?.partner_name = "c.example.net".to_owned();
        let secondary = pair.server_mut(Role::Secondary);
        secondary.stop()?;
        secondary.reconfigure(&config)?;
        secondary.launch_again()?;
        secondary.wait_ready()?;
        wait::until("the secondary to refuse the primary", NOTICE, || {
            let log = pair.server(Role::Secondary).log();
            let last =
                log.rsplit("--- started again ---").next().unwrap_or_default().to_lowercase();
            Ok((last.contains("certificate") || last.contains("name")).then_some(()))
        })?;
        let apart = |found: &Relationship| !found.connected && found.state != "normal";
        for role in Role::ALL {
            pair.wait_relationship(role, "apart", NOTICE, apart)?;
        }

        // As it was.
        let config = pair.config(Role::Secondary).clone();
        let secondary = pair.server_mut(Role::Secondary);
        secondary.stop()?;
        secondary.reconfigure(&config)?;
        secondary.restart()?;
        pair.wait_equal()?;
        Ok(())
    })
}
