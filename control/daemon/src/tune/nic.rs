//! Checks of a network interface.

use af_xdp::Nic;

use super::{
    Check, Wanted,
    host::{Drivers, Host, list, show_list},
};
use crate::{config::Mode, dataplane::FRAME_LEN};

/// Entries of the card's receive ring that take up a burst while the worker answers one.
const RX_RING: u32 = 1024;
/// What of a frame is not for the packet: the kernel's headroom, Ethernet, two VLAN tags.
const FRAME_OVERHEAD: u32 = 256 + 14 + 8;

/// What all checks of one interface look at.
struct Subject<'a> {
    host: &'a Host,
    wanted: &'a Wanted,
    name: &'a str,
    nic: Nic,
    folder: String,
}

pub(super) fn look(
    host: &Host,
    drivers: &dyn Drivers,
    wanted: &Wanted,
    name: &str,
    checks: &mut Vec<Check>,
) {
    let folder = format!("/sys/class/net/{name}");
    let Some(index) = host.number(&format!("{folder}/ifindex")) else {
        let missing = Check::ok(name, "interface", "there is no such interface");
        checks.push(missing.refuse("present", "the server waits for it and serves nobody there"));
        return;
    };
    let subject = Subject { host, wanted, name, nic: drivers.nic(name), folder };
    checks.push(subject.queues());
    checks.push(subject.rx_ring());
    if wanted.mode != Mode::Socket {
        let features = u32::try_from(index).ok().and_then(|index| drivers.xdp(index));
        checks.push(subject.xdp(features));
        checks.push(subject.mtu());
        checks.push(subject.lro());
        checks.push(subject.vlan());
    }
    checks.push(subject.gro());
    checks.extend(subject.napi());
    checks.extend(subject.interrupts());
}

impl Subject<'_> {
    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    fn is_veth(&self) -> bool {
        self.nic.driver.as_deref() == Some("veth")
    }

    fn queues(&self) -> Check {
        let in_use = self
            .host
            .names(&self.file("queues"))
            .iter()
            .filter(|name| name.starts_with("rx-"))
            .count();
        let most = self.nic.channels.map(|(_, most)| most as usize);
        let workers = match &self.wanted.cores {
            Some(cores) => cores.len(),
            // Without pinning, a core for the rest of the server.
            None => self.host.cpus().len().saturating_sub(1).max(1),
        };
        let of = most.map(|most| format!(", {most} at most")).unwrap_or_default();
        let check = Check::ok(self.name, "queues", format!("{in_use}{of}"));
        let best = workers.min(most.unwrap_or(in_use)).max(1);
        let command = format!("ethtool -L {} combined {best}", self.name);
        if in_use > workers {
            check
                .advise(best.to_string(), "more workers than cores take turns on one core")
                .with_command(command)
        } else if in_use < best && self.wanted.cores.is_some() {
            check
                .advise(best.to_string(), "a worker serves one queue; some cores have none")
                .with_command(command)
        } else {
            check
        }
    }

    fn rx_ring(&self) -> Check {
        let Some((now, most)) = self.nic.rx_ring else {
            return Check::ok(self.name, "rx_ring", "the driver has none to set");
        };
        let check = Check::ok(self.name, "rx_ring", format!("{now}, {most} at most"));
        let best = most.min(2 * RX_RING);
        if now >= RX_RING || now >= most {
            return check;
        }
        check
            .advise(best.to_string(), "a burst that the card has no room for is lost")
            .with_command(format!("ethtool -G {} rx {best}", self.name))
    }

    fn xdp(&self, features: Option<gemel_ebpf::XdpFeatures>) -> Check {
        let Some(features) = features else {
            return Check::unknown(self.name, "xdp", "the kernel does not tell (needs 6.3, root)");
        };
        let measured = match (features.native, features.zero_copy) {
            (_, true) => "native, zero-copy",
            (true, false) => "native, no zero-copy",
            (false, false) => "generic alone",
        };
        let check = Check::ok(self.name, "xdp", measured);
        let set = |mode: &str| format!("set dataplane.mode = \"{mode}\" in the configuration");
        match self.wanted.mode {
            Mode::ZeroCopy if !features.zero_copy => check
                .refuse("zero-copy", "the configured mode does not start on this driver")
                .with_command(set(if features.native { "native" } else { "auto" })),
            Mode::Native if !features.native => check
                .refuse("native", "the configured mode does not start on this driver")
                .with_command(set("auto")),
            Mode::Generic if features.native && !self.is_veth() => check
                .advise("native or auto", "generic mode takes each packet through the stack first")
                .with_command(set("auto")),
            Mode::Auto if self.is_veth() => check
                .advise(
                    "generic",
                    "on veth pairs generic mode was faster than native where we measured",
                )
                .with_command(set("generic")),
            _ => check,
        }
    }

    fn mtu(&self) -> Check {
        let most = u64::from(FRAME_LEN - FRAME_OVERHEAD);
        match self.host.number(&self.file("mtu")) {
            Some(mtu) if mtu <= most => Check::ok(self.name, "mtu", mtu.to_string()),
            Some(mtu) => Check::ok(self.name, "mtu", mtu.to_string())
                .refuse(
                    format!("{most} or less"),
                    "a frame is one packet: drivers refuse native XDP above that, or drop what is \
                     longer",
                )
                .with_command(format!("ip link set {} mtu 1500", self.name)),
            None => Check::unknown(self.name, "mtu", "not readable"),
        }
    }

    fn lro(&self) -> Check {
        match self.nic.lro {
            Some(true) => Check::ok(self.name, "lro", "on")
                .refuse("off", "drivers refuse native XDP, or hide packets from it")
                .with_command(format!("ethtool -K {} lro off", self.name)),
            Some(false) => Check::ok(self.name, "lro", "off"),
            None => Check::unknown(self.name, "lro", "the driver does not tell"),
        }
    }

    fn vlan(&self) -> Check {
        match self.nic.strips_vlan {
            Some(true) => Check::ok(self.name, "vlan_tags", "taken out by the card")
                .advise("left in", "the XDP program cannot see tags that the card took out")
                .with_command(format!("ethtool -K {} rxvlan off", self.name)),
            Some(false) => Check::ok(self.name, "vlan_tags", "left in"),
            None => Check::unknown(self.name, "vlan_tags", "the driver does not tell"),
        }
    }

    fn gro(&self) -> Check {
        match self.nic.gro {
            Some(true) if self.is_veth() => Check::ok(self.name, "gro", "on")
                .advise("off", "on veth it costs some percent of the packet rate")
                .with_command(format!("ethtool -K {} gro off", self.name)),
            Some(on) => Check::ok(self.name, "gro", if on { "on" } else { "off" }),
            None => Check::unknown(self.name, "gro", "the driver does not tell"),
        }
    }

    /// How the kernel takes packets off the card.
    fn napi(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        let [defer, timeout, threaded] =
            ["napi_defer_hard_irqs", "gro_flush_timeout", "threaded"].map(|n| self.file(n));
        let (defer_now, timeout_now) = (self.host.number(&defer), self.host.number(&timeout));
        let measured = format!("{} / {}", show(defer_now), show(timeout_now));
        let check = Check::ok(self.name, "napi_irqs", measured);
        let deferred = defer_now.unwrap_or(0) > 0 && timeout_now.unwrap_or(0) > 0;
        checks.push(match (self.wanted.busy_poll, deferred) {
            (true, false) => check
                .advise("2 / 200000", "without it interrupts still come between busy polls")
                .with_command(format!("echo 2 > {defer}; echo 200000 > {timeout}")),
            (false, true) => check
                .advise("0 / 0", "without busy polling it only delays packets")
                .with_command(format!("echo 0 > {defer}; echo 0 > {timeout}")),
            _ => check,
        });
        let is_threaded = self.host.number(&threaded).unwrap_or(0) > 0;
        let check = Check::ok(self.name, "napi_threaded", if is_threaded { "on" } else { "off" });
        checks.push(if is_threaded && self.is_veth() {
            check
                .advise("off", "on veth it was slow and unsteady")
                .with_command(format!("echo 0 > {threaded}"))
        } else {
            check
        });
        checks
    }

    /// Which cores the interrupts of the card fall on.
    fn interrupts(&self) -> Option<Check> {
        let irqs: Vec<String> = ["device/msi_irqs", "device/../msi_irqs"]
            .iter()
            .map(|folder| self.host.names(&self.file(folder)))
            .find(|irqs| !irqs.is_empty())?;
        let mut on: Vec<usize> = irqs
            .iter()
            .filter_map(|irq| self.host.text(&format!("/proc/irq/{irq}/effective_affinity_list")))
            .flat_map(|text| list(&text))
            .collect();
        on.sort_unstable();
        on.dedup();
        let check = Check::ok(self.name, "irq_affinity", format!("cores {}", show_list(&on)));
        let workers = self.wanted.cores.as_deref().unwrap_or_default();
        let free: Vec<usize> =
            self.host.cpus().into_iter().filter(|cpu| !workers.contains(cpu)).collect();
        let shared = on.iter().any(|cpu| workers.contains(cpu));
        if !shared || free.is_empty() || self.wanted.busy_poll {
            return Some(check);
        }
        let (first, last) = (irqs.first()?, irqs.last()?);
        let cores = show_list(&free);
        Some(
            check
                .advise(
                    format!("cores {cores}"),
                    "under load interrupts take the core away from the worker that is pinned to it",
                )
                .with_command(format!(
                    "for i in $(seq {first} {last}); do echo {cores} > \
                     /proc/irq/$i/smp_affinity_list; done"
                )),
        )
    }
}

fn show(value: Option<u64>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}
