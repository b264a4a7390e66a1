use std::{collections::BTreeMap, fs};

use af_xdp::Nic;
use gemel_ebpf::XdpFeatures;
use tempfile::TempDir;

use super::{
    host::{chosen, list},
    *,
};

/// A host in a folder.
struct Tree(TempDir);

impl Tree {
    fn write(&self, path: &str, content: &str) {
        let path = self.0.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A host with two cores on which everything is as it should be, for [`wanted`].
    fn good() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (path, content) in [
            ("/sys/class/net/eth1/ifindex", "7"),
            ("/sys/class/net/eth1/mtu", "1500"),
            ("/sys/class/net/eth1/queues/rx-0/rps_cpus", "0"),
            ("/sys/class/net/eth1/napi_defer_hard_irqs", "0"),
            ("/sys/class/net/eth1/gro_flush_timeout", "0"),
            ("/sys/class/net/eth1/threaded", "0"),
            ("/sys/class/net/eth1/device/msi_irqs/40", "msix"),
            ("/proc/irq/40/effective_affinity_list", "0"),
            ("/sys/devices/system/cpu/online", "0-1"),
            ("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance"),
            ("/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance"),
            ("/sys/devices/system/cpu/isolated", "1"),
            ("/sys/devices/system/cpu/nohz_full", "1"),
            ("/sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "1"),
            ("/proc/sys/kernel/osrelease", "6.18.5-generic"),
            ("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"),
            ("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
            ("/sys/kernel/mm/transparent_hugepage/defrag", "always defer [madvise] never"),
            ("/proc/self/status", "Name:\tgemel\nCapEff:\t000001ffffffffff\n"),
            ("/proc/self/limits", LIMITS),
            ("/proc/77/comm", "chronyd\n"),
            ("/proc/sys/net/core/netdev_budget", "300"),
            ("/proc/sys/net/core/netdev_max_backlog", "1000"),
            (
                "/proc/net/softnet_stat",
                "000000ff 00000000 00000002 0\n00000011 00000000 00000001 0\n",
            ),
            ("/proc/sys/vm/dirty_bytes", "268435456"),
            ("/proc/sys/vm/dirty_ratio", "0"),
            ("/proc/meminfo", "MemTotal: 16000000 kB\nMemAvailable:   12000000 kB\n"),
            ("/proc/self/mountinfo", MOUNTS),
            ("/sys/dev/block/8:1/queue/write_cache", "write back"),
            ("/sys/dev/block/8:1/queue/rotational", "0"),
        ] {
            tree.write(path, content);
        }
        tree
    }

    fn checks(&self, drivers: &FakeDrivers, wanted: &Wanted) -> BTreeMap<&'static str, Check> {
        look(&Host::new(self.0.path()), drivers, wanted)
            .into_iter()
            .map(|check| (check.name, check))
            .collect()
    }
}

const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 524288               files
Max locked memory         8388608              8388608              bytes
";
const MOUNTS: &str = "27 1 254:0 / / rw,relatime - btrfs /dev/vda rw
29 27 8:1 / /var/lib rw,relatime shared:1 - ext4 /dev/sda1 rw
";

struct FakeDrivers {
    nic: Nic,
    xdp: Option<XdpFeatures>,
}

impl Drivers for FakeDrivers {
    fn nic(&self, _: &str) -> Nic {
        self.nic.clone()
    }

    fn xdp(&self, index: u32) -> Option<XdpFeatures> {
        assert_eq!(index, 7);
        self.xdp
    }
}

fn drivers() -> FakeDrivers {
    FakeDrivers {
        nic: Nic {
            driver: Some("ice".to_owned()),
            rx_ring: Some((2048, 4096)),
            channels: Some((1, 8)),
            gro: Some(true),
            lro: Some(false),
            strips_vlan: Some(false),
        },
        xdp: Some(XdpFeatures { native: true, zero_copy: true }),
    }
}

fn wanted() -> Wanted {
    Wanted {
        cores: Some(vec![1]),
        store: Some("/var/lib/gemel".into()),
        ..Wanted::for_interfaces(&["eth1".to_owned()])
    }
}

#[test]
fn a_good_host_gets_no_advice() {
    let checks = Tree::good().checks(&drivers(), &wanted());
    for check in checks.values() {
        assert_eq!(check.verdict, Verdict::Ok, "{check:?}");
        assert_eq!(check.command, None, "{check:?}");
    }
    assert_eq!(checks.len(), 28, "{:?}", checks.keys());
}

/// One file that is not as it should be: the check that finds it, the verdict, and a part of what
/// to do.
#[test]
fn each_wrong_file_is_found_by_its_check() {
    use Verdict::{Advice, Problem};
    for (path, content, name, verdict, command) in [
        ("/sys/class/net/eth1/mtu", "9000", "mtu", Problem, "mtu 1500"),
        ("/sys/class/net/eth1/queues/rx-1/rps_cpus", "0", "queues", Advice, "ethtool -L eth1"),
        ("/sys/class/net/eth1/gro_flush_timeout", "20000", "napi_irqs", Verdict::Ok, ""),
        ("/proc/irq/40/effective_affinity_list", "1", "irq_affinity", Advice, "echo 0 >"),
        (
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
            "powersave",
            "governor",
            Advice,
            "scaling_governor",
        ),
        ("/sys/devices/system/cpu/online", "0", "worker_cores", Problem, "take 1 out"),
        ("/sys/devices/system/cpu/isolated", "", "isolation", Advice, "isolcpus="),
        ("/proc/sys/kernel/osrelease", "6.1.0-18-amd64", "time_slices", Advice, "base_slice_ns"),
        (
            "/sys/devices/system/clocksource/clocksource0/current_clocksource",
            "hpet",
            "clock_source",
            Advice,
            "",
        ),
        (
            "/sys/kernel/mm/transparent_hugepage/enabled",
            "[always] never",
            "huge_pages",
            Verdict::Ok,
            "",
        ),
        ("/proc/self/status", "CapEff:\t0000000000000000\n", "capabilities", Problem, "CAP_BPF"),
        (
            "/proc/self/status",
            "CapEff:\t0000000000000000\n",
            "locked_memory",
            Problem,
            "LimitMEMLOCK",
        ),
        (
            "/proc/self/limits",
            "Max open files   256  256 files\n",
            "open_files",
            Advice,
            "LimitNOFILE",
        ),
        ("/proc/77/comm", "bash", "time_sync", Advice, "timesyncd"),
        ("/proc/net/softnet_stat", "1 0 ffff 0\n", "netdev_budget", Advice, "netdev_budget=600"),
        ("/proc/net/softnet_stat", "1 5 0 0\n", "netdev_backlog", Advice, "max_backlog=4096"),
        ("/proc/sys/net/core/busy_poll", "50", "busy_poll", Advice, "busy_poll=0"),
        ("/proc/sys/vm/dirty_bytes", "8589934592", "dirty_pages", Advice, "vm.dirty_bytes"),
        ("/proc/self/mountinfo", "1 1 0:9 / / rw - tmpfs tmpfs rw\n", "file_system", Problem, ""),
        ("/proc/self/mountinfo", "1 1 0:9 / / rw - btrfs /dev/sdb rw\n", "file_system", Advice, ""),
        ("/sys/dev/block/8:1/queue/rotational", "1", "kind", Advice, ""),
    ] {
        let tree = Tree::good();
        tree.write(path, content);
        // The locked memory of four queues is more than the limit of the tree.
        let drivers =
            FakeDrivers { nic: Nic { channels: Some((4, 8)), ..drivers().nic }, ..drivers() };
        let checks = tree.checks(&drivers, &wanted());
        let check = &checks[name];
        assert_eq!(check.verdict, verdict, "{path}: {check:?}");
        assert!(check.command.as_deref().unwrap_or("").contains(command), "{path}: {check:?}");
        let has_reason = verdict == Verdict::Ok || !check.why.is_empty();
        assert!(has_reason, "{path}: {check:?}");
    }
}

#[test]
fn what_drivers_tell_is_compared_with_what_is_configured() {
    let tree = Tree::good();
    let no_zero_copy = FakeDrivers {
        xdp: Some(XdpFeatures { native: true, zero_copy: false }),
        nic: Nic {
            lro: Some(true),
            strips_vlan: Some(true),
            rx_ring: Some((256, 512)),
            ..drivers().nic
        },
    };
    let zero_copy = Wanted { mode: Mode::ZeroCopy, ..wanted() };
    let checks = tree.checks(&no_zero_copy, &zero_copy);
    assert_eq!(checks["xdp"].verdict, Verdict::Problem);
    assert!(checks["xdp"].command.as_ref().unwrap().contains("\"native\""));
    assert_eq!(checks["lro"].verdict, Verdict::Problem);
    assert_eq!(checks["vlan_tags"].verdict, Verdict::Advice);
    assert_eq!(checks["rx_ring"].command.as_deref(), Some("ethtool -G eth1 rx 512"));

    let silent = FakeDrivers { xdp: None, nic: Nic::default() };
    assert_eq!(tree.checks(&silent, &wanted())["xdp"].verdict, Verdict::Unknown);
    let veth =
        FakeDrivers { nic: Nic { driver: Some("veth".into()), ..drivers().nic }, ..drivers() };
    let checks = tree.checks(&veth, &wanted());
    assert_eq!(checks["gro"].verdict, Verdict::Advice);
    assert!(checks["xdp"].command.as_ref().unwrap().contains("\"generic\""));
}

#[test]
fn busy_polling_wants_the_interrupts_deferred() {
    let tree = Tree::good();
    let busy = Wanted { busy_poll: true, ..wanted() };
    assert_eq!(tree.checks(&drivers(), &busy)["napi_irqs"].verdict, Verdict::Advice);
    tree.write("/sys/class/net/eth1/napi_defer_hard_irqs", "2");
    tree.write("/sys/class/net/eth1/gro_flush_timeout", "200000");
    assert_eq!(tree.checks(&drivers(), &busy)["napi_irqs"].verdict, Verdict::Ok);
    assert_eq!(tree.checks(&drivers(), &wanted())["napi_irqs"].verdict, Verdict::Advice);
}

#[test]
fn a_pair_needs_the_time_and_sockets_need_a_buffer() {
    let tree = Tree::good();
    tree.write("/proc/77/comm", "bash");
    tree.write("/proc/sys/net/core/rmem_max", "212992");
    tree.write("/proc/sys/net/ipv6/neigh/default/gc_thresh3", "1024");
    tree.write("/proc/self/status", "CapEff:\t0000000000000400\n");
    let wanted = Wanted { failover: true, mode: Mode::Socket, ..wanted() };
    let checks = tree.checks(&drivers(), &wanted);
    assert_eq!(checks["time_sync"].verdict, Verdict::Problem);
    assert_eq!(checks["rmem_max"].verdict, Verdict::Advice);
    assert_eq!(checks["neighbours"].verdict, Verdict::Advice);
    assert!(checks["neighbours"].command.as_ref().unwrap().contains("gc_thresh3=65536"));
    assert_eq!(checks["capabilities"].verdict, Verdict::Ok, "a socket needs one alone");
    assert!(!checks.contains_key("xdp"));
}

#[test]
fn the_limits_are_those_of_a_running_server() {
    let tree = Tree::good();
    tree.write("/proc/99/comm", "gemel\n");
    tree.write("/proc/99/cmdline", "/usr/bin/gemel\0serve\0");
    tree.write("/proc/99/status", "CapEff:\t0000000000000000\n");
    let checks = tree.checks(&drivers(), &wanted());
    assert_eq!(checks["capabilities"].verdict, Verdict::Problem);
    assert!(checks["capabilities"].measured.contains("running server"));
}

#[test]
fn an_interface_that_is_missing_is_one_problem() {
    let wanted = Wanted { interfaces: vec!["eth9".to_owned()], ..wanted() };
    let checks = Tree::good().checks(&drivers(), &wanted);
    assert_eq!(checks["interface"].verdict, Verdict::Problem);
    assert!(!checks.contains_key("mtu"));
}

#[test]
fn nothing_readable_is_no_problem_made_up() {
    let tree = Tree(tempfile::tempdir().unwrap());
    tree.write("/sys/class/net/eth1/ifindex", "7");
    let silent = FakeDrivers { xdp: None, nic: Nic::default() };
    let wanted = Wanted { cores: None, ..wanted() };
    for (name, check) in tree.checks(&silent, &wanted) {
        // Without its status no capability of the process is known.
        let expected = name == "capabilities";
        assert_eq!(check.verdict == Verdict::Problem, expected, "{check:?}");
    }
}

#[test]
fn the_text_says_what_to_do() {
    let tree = Tree::good();
    tree.write("/sys/class/net/eth1/mtu", "9000");
    let checks = look(&Host::new(tree.0.path()), &drivers(), &wanted());
    let mut text = Vec::new();
    report::write_text(&mut text, &checks).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("eth1\n  ok       queues"), "{text}");
    assert!(text.contains("  PROBLEM  mtu                9000; better: 1770 or less\n"), "{text}");
    assert!(text.contains("$ ip link set eth1 mtu 1500\n"), "{text}");
    assert!(text.ends_with("problems: 1, advice: 0, fine: 27, not readable: 0\n"), "{text}");
}

#[test]
fn lists_of_the_kernel() {
    assert_eq!(list("0-2,5"), [0, 1, 2, 5]);
    assert!(list("").is_empty());
    assert_eq!(chosen("always [madvise] never"), "madvise");
}
