//! Where a run took place: a figure without its machine means nothing.

use std::fs;

use serde::{Deserialize, Serialize};

/// The machine and its software.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Environment {
    /// Release and version of the kernel.
    pub kernel: String,
    /// Model of the processor.
    pub cpu: String,
    /// Cores that are online.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Frequency governor of core 0, if it has one.
    pub governor: Option<String>,
    /// Driver of the interface, or `virtual`.
    pub driver: String,
    /// Receive queues of the interface.
    pub receive_queues: usize,
    /// The machine is a guest of a hypervisor.
    pub virtual_machine: bool,
}

impl Environment {
    /// Looks around; what cannot be found out stays empty.
    #[must_use]
    pub fn probe(interface: &str) -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            cpuinfo
                .lines()
                .find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name))
                .map(|(_, value)| value.trim().to_owned())
        };
        let memory_kib: u64 = read("/proc/meminfo")
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        let driver = fs::read_link(format!("/sys/class/net/{interface}/device/driver"))
            .ok()
            .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        Self {
            kernel: format!(
                "{} {}",
                read("/proc/sys/kernel/osrelease").trim(),
                read("/proc/sys/kernel/version").trim()
            ),
            cpu: field("model name").unwrap_or_default(),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_mib: memory_kib / 1024,
            governor: (!governor.is_empty()).then(|| governor.trim().to_owned()),
            driver: driver.unwrap_or_else(|| "virtual".into()),
            receive_queues: crate::os::receive_queues(interface),
            virtual_machine: field("flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        }
    }
}

/// Memory that this process has, KiB; 0 if that cannot be found out.
#[must_use]
pub fn memory_kib() -> u64 {
    read("/proc/self/status")
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
