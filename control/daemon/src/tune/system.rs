//! Checks of limits, capabilities, the kernel's packet queues and time.

use super::{
    Check, Wanted,
    host::{Drivers, Host},
};
use crate::config::Mode;

const SYSTEM: &str = "system";
/// Capabilities by their bit, as in `linux/capability.h`.
const NET_BIND_SERVICE: u32 = 10;
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const IPC_LOCK: u32 = 14;
const SYS_ADMIN: u32 = 21;
const BPF: u32 = 39;
/// Octets that a UDP socket of the server asks for.
const SOCKET_BUFFER: u64 = 4 << 20;
/// Descriptors that a server with many queues and control connections needs.
const FILES: u64 = 1024;
/// Clients on the link that are answered within some minutes.
const NEIGHBOURS: u64 = 65_536;
/// Programs that keep the clock.
const TIME_KEEPERS: [&str; 5] = ["chronyd", "ntpd", "systemd-timesyn", "ptp4l", "ntpd-rs"];

pub(super) fn look(host: &Host, drivers: &dyn Drivers, wanted: &Wanted, checks: &mut Vec<Check>) {
    let (process, whose) = host.server();
    let held = capabilities(host, &process);
    let queues = wanted.interfaces.iter().map(|name| {
        let folder = format!("/sys/class/net/{name}/queues");
        let names = host.names(&folder);
        let in_use = names.iter().filter(|name| name.starts_with("rx-")).count().max(1);
        drivers.nic(name).channels.map_or(in_use, |(now, _)| (now as usize).max(1))
    });
    let locked = queues.sum::<usize>() as u64 * wanted.umem;
    checks.push(capability(wanted, held, whose));
    checks.push(memlock(host, &process, held, locked, whose));
    checks.push(files(host, &process, whose));
    checks.push(net_budget(host));
    checks.push(net_backlog(host, wanted));
    checks.push(busy_poll(host));
    if wanted.mode == Mode::Socket {
        checks.push(socket_buffer(host, held));
        checks.push(neighbours(host));
    }
    checks.push(time_sync(host, wanted));
}

/// The effective capabilities of a process.
fn capabilities(host: &Host, process: &str) -> u64 {
    let status = host.text(&format!("{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

fn has(held: u64, bit: u32) -> bool {
    held & (1 << bit) != 0
}

fn capability(wanted: &Wanted, held: u64, whose: &str) -> Check {
    let mut needed = vec![(NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE")];
    if wanted.mode != Mode::Socket {
        needed.extend([(NET_ADMIN, "CAP_NET_ADMIN"), (NET_RAW, "CAP_NET_RAW"), (BPF, "CAP_BPF")]);
    }
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(bit, _)| !(has(held, *bit) || *bit == BPF && has(held, SYS_ADMIN)))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return Check::ok(SYSTEM, "capabilities", format!("all that it needs ({whose})"));
    }
    let missing = missing.join(" ");
    Check::ok(SYSTEM, "capabilities", format!("without {missing} ({whose})"))
        .refuse("with them", "the server can attach no XDP program, or open no socket")
        .with_command(format!("in the unit: AmbientCapabilities={missing}"))
}

/// A limit of a process: soft, `None` for none.
fn limit(host: &Host, process: &str, name: &str) -> Option<Option<u64>> {
    let text = host.text(&format!("{process}/limits"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse().ok())
}

fn memlock(host: &Host, process: &str, held: u64, locked: u64, whose: &str) -> Check {
    if has(held, IPC_LOCK) {
        return Check::ok(SYSTEM, "locked_memory", format!("CAP_IPC_LOCK ({whose})"));
    }
    match limit(host, process, "Max locked memory") {
        None => Check::unknown(SYSTEM, "locked_memory", "not readable"),
        Some(None) => Check::ok(SYSTEM, "locked_memory", format!("unlimited ({whose})")),
        Some(Some(limit)) => {
            let check = Check::ok(SYSTEM, "locked_memory", format!("{limit} octets ({whose})"));
            if limit >= locked {
                return check;
            }
            check
                .refuse(format!("{locked} octets or more"), "packet frames are locked in memory")
                .with_command("in the unit: LimitMEMLOCK=infinity")
        }
    }
}

fn files(host: &Host, process: &str, whose: &str) -> Check {
    match limit(host, process, "Max open files") {
        None => Check::unknown(SYSTEM, "open_files", "not readable"),
        Some(Some(limit)) if limit < FILES => {
            Check::ok(SYSTEM, "open_files", format!("{limit} ({whose})"))
                .advise(FILES.to_string(), "each queue, link and connection takes some descriptors")
                .with_command(format!("in the unit: LimitNOFILE={FILES}"))
        }
        Some(limit) => {
            let limit = limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
            Check::ok(SYSTEM, "open_files", format!("{limit} ({whose})"))
        }
    }
}

/// A column of `softnet_stat`, summed over the cores.
fn softnet(host: &Host, column: usize) -> Option<u64> {
    let text = host.text("/proc/net/softnet_stat")?;
    let values = text
        .lines()
        .filter_map(|line| u64::from_str_radix(line.split_whitespace().nth(column)?, 16).ok());
    Some(values.sum())
}

/// Packets that the kernel takes in one go before it lets others run.
fn net_budget(host: &Host) -> Check {
    let path = "/proc/sys/net/core/netdev_budget";
    let (Some(budget), Some(squeezed)) = (host.number(path), softnet(host, 2)) else {
        return Check::unknown(SYSTEM, "netdev_budget", "not readable");
    };
    let check = Check::ok(SYSTEM, "netdev_budget", format!("{budget}, used up {squeezed} times"));
    if squeezed < 1000 || budget >= 600 {
        return check;
    }
    check
        .advise("600", "the kernel stopped taking packets while there were more")
        .with_command("sysctl -w net.core.netdev_budget=600 net.core.netdev_budget_usecs=8000")
}

/// Packets that wait for the network stack; native XDP does not pass there.
fn net_backlog(host: &Host, wanted: &Wanted) -> Check {
    let path = "/proc/sys/net/core/netdev_max_backlog";
    let (Some(backlog), Some(dropped)) = (host.number(path), softnet(host, 1)) else {
        return Check::unknown(SYSTEM, "netdev_backlog", "not readable");
    };
    let check = Check::ok(SYSTEM, "netdev_backlog", format!("{backlog}, {dropped} dropped"));
    let matters = matches!(wanted.mode, Mode::Generic | Mode::Socket) || dropped > 0;
    if !matters || backlog >= 4096 {
        return check;
    }
    check
        .advise("4096", "packets that find this queue full are lost before the server sees them")
        .with_command("sysctl -w net.core.netdev_max_backlog=4096")
}

fn busy_poll(host: &Host) -> Check {
    let [poll, read] = ["busy_poll", "busy_read"]
        .map(|name| host.number(&format!("/proc/sys/net/core/{name}")).unwrap_or(0));
    let check = Check::ok(SYSTEM, "busy_poll", format!("{poll} / {read}"));
    if poll == 0 && read == 0 {
        return check;
    }
    check
        .advise("0 / 0", "it makes every program on the host poll; dataplane.busy_poll is for ours")
        .with_command("sysctl -w net.core.busy_poll=0 net.core.busy_read=0")
}

fn socket_buffer(host: &Host, held: u64) -> Check {
    let most = host.number("/proc/sys/net/core/rmem_max").unwrap_or(0);
    let check = Check::ok(SYSTEM, "rmem_max", most.to_string());
    if most >= SOCKET_BUFFER || has(held, NET_ADMIN) {
        return check;
    }
    check
        .advise(SOCKET_BUFFER.to_string(), "a burst that the socket has no room for is lost")
        .with_command(format!("sysctl -w net.core.rmem_max={SOCKET_BUFFER}"))
}

/// In socket mode the kernel looks up the MAC address of each client that is answered.
fn neighbours(host: &Host) -> Check {
    let path = "/proc/sys/net/ipv6/neigh/default/gc_thresh3";
    let Some(most) = host.number(path) else {
        return Check::unknown(SYSTEM, "neighbours", "not readable");
    };
    let check = Check::ok(SYSTEM, "neighbours", format!("{most} at most"));
    if most >= NEIGHBOURS {
        return check;
    }
    let (low, middle) = (NEIGHBOURS / 4, NEIGHBOURS / 2);
    check
        .advise(
            NEIGHBOURS.to_string(),
            "replies to more clients on the link than that fail (port_events send_failed); AF_XDP \
             needs no such table",
        )
        .with_command(format!(
            "sysctl -w net.ipv6.neigh.default.gc_thresh1={low} \
             net.ipv6.neigh.default.gc_thresh2={middle} \
             net.ipv6.neigh.default.gc_thresh3={NEIGHBOURS}"
        ))
}

fn time_sync(host: &Host, wanted: &Wanted) -> Check {
    if let Some((_, keeper)) = host.process(&TIME_KEEPERS, |_| true) {
        return Check::ok(SYSTEM, "time_sync", format!("{keeper} runs"));
    }
    let check = Check::ok(SYSTEM, "time_sync", "nothing keeps the clock");
    let command = "systemctl enable --now systemd-timesyncd";
    if wanted.failover {
        check
            .refuse("chrony or another", "the servers of a pair must agree on the time within 5 s")
            .with_command(command)
    } else {
        check
            .advise("chrony or another", "lifetimes are counted by the wall clock")
            .with_command(command)
    }
}
