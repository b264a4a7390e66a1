//! Failover messages as Wireshark reads them: a decoder that this project did not write.
//!
//! The capture is handed to tshark together with a small dissector for the framing and the header;
//! the options are read by Wireshark's own DHCPv6 dissector. Wireshark 4.0 has two gaps: it does
//! not enter OPTION_F_DNS_REMOVAL_INFO, and it does not know OPTION_LQ_BASE_TIME; these are looked
//! at as options, not by value. STARTTLS and its answer have another header, which the dissector
//! does not expect; they are left out.

#[path = "tshark/pcap.rs"]
mod pcap;
#[path = "tshark/samples.rs"]
mod samples;

use std::{
    collections::BTreeMap,
    fmt,
    io::Write,
    process::{Command, Stdio},
};

use gemel_wire::{MessageType, failover::FAILOVER_PORT};
use samples::{Sample, samples};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Environment variable that turns a skipped test into a failed one.
const REQUIRE: &str = "GEMEL_REQUIRE_E2E";

const DISSECTOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/wireshark/failover.lua");

/// All values of each field of a packet, in their order.
type Fields = BTreeMap<String, Vec<String>>;

#[test]
fn wireshark_reads_what_is_written() {
    if !is_installed() {
        let required = std::env::var_os(REQUIRE).is_some_and(|value| value == "1");
        assert!(!required, "tshark is not installed, and {REQUIRE}=1");
        // Not captured by the test harness, as what is printed would be.
        let _ = writeln!(std::io::stderr(), "SKIPPED: tshark is not installed");
        return;
    }
    let samples = samples();
    let types: Vec<u8> = samples.iter().map(|sample| sample.frame[2]).collect();
    assert!((24..=35).all(|msg_type| types.contains(&msg_type)), "every type of message");

    // One segment for each message, and then all of them in two that are cut amid a message.
    let stream: Vec<u8> = samples.iter().flat_map(|sample| sample.frame.clone()).collect();
    let (first, second) = stream.split_at(samples[0].frame.len() + 5);
    let mut segments: Vec<&[u8]> = samples.iter().map(|sample| &sample.frame[..]).collect();
    segments.extend([first, second]);
    let packets = dissect(&pcap::pcap(FAILOVER_PORT, &segments));
    assert_eq!(packets.len(), segments.len());
    for (sample, packet) in samples.iter().zip(&packets) {
        check(sample, packet);
    }
    let types: Vec<_> = types.iter().map(ToString::to_string).collect();
    let [.., first, second] = &packets[..] else { unreachable!("more than two") };
    assert_eq!(first["dhcp6fo.type"], types[..1]);
    assert_eq!(second["dhcp6fo.type"], types[1..]);
}

fn check(sample: &Sample, packet: &Fields) {
    let msg_type = MessageType(sample.frame[2]);
    for (field, expected) in &sample.fields {
        let seen = packet.get(*field).cloned().unwrap_or_default();
        assert_eq!(&seen, expected, "{field} of {msg_type} (left: tshark, right: written)");
    }
    // Nothing else has been seen that was not written, and nothing was found wrong.
    for (field, values) in packet {
        let is_value = field.starts_with("dhcpv6.failover.") && !field.ends_with("reserved");
        let is_complaint = field == "_ws.expert.message" || field.starts_with("_ws.malformed");
        let expected = sample.fields.iter().any(|(expected, _)| expected == field);
        assert!(expected || !is_value && !is_complaint, "{field} = {values:?} in {msg_type}");
    }
}

fn is_installed() -> bool {
    Command::new("tshark").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The fields of each packet in a capture.
fn dissect(pcap: &[u8]) -> Vec<Fields> {
    let mut child = Command::new("tshark")
        .arg("-X")
        .arg(format!("lua_script:{DISSECTOR}"))
        .args(["-r", "-", "-T", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tshark starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let capture = pcap.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&capture));
    let output = child.wait_with_output().expect("tshark ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark: {stderr}");
    writer.join().expect("no panic").expect("tshark reads all of its input");
    let packets: Vec<Packet> = serde_json::from_slice(&output.stdout).expect("JSON of packets");
    packets.into_iter().map(|packet| packet.0).collect()
}

/// The fields in the JSON of one packet, its nesting taken out. Keys occur more than once there,
/// and their order counts, so this is no map to serde.
struct Packet(Fields);

impl<'de> Deserialize<'de> for Packet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Fields::new();
        Collector { field: String::new(), fields: &mut fields }.deserialize(deserializer)?;
        Ok(Self(fields))
    }
}

/// Reads the value of a field, whatever it is.
struct Collector<'f> {
    field: String,
    fields: &'f mut Fields,
}

impl<'de> DeserializeSeed<'de> for Collector<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Collector<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what tshark writes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key()? {
            map.next_value_seed(Collector { field, fields: self.fields })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(()) =
            seq.next_element_seed(Collector { field: self.field.clone(), fields: self.fields })?
        {
        }
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.fields.entry(self.field).or_default().push(text.to_owned());
        Ok(())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }
}
