//! Reads `/proc` and `/sys`, of this host or of a copy.

use std::{
    fs,
    path::{Path, PathBuf},
};

use af_xdp::Nic;
use gemel_ebpf::XdpFeatures;

/// The host's file system, or a tree that looks like it.
pub(crate) struct Host {
    root: PathBuf,
}

impl Host {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// A path of the host as this process sees it.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The content of a file, without the blanks around it.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    /// The number in a file.
    pub(crate) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.split_whitespace().next()?.parse().ok()
    }

    /// The names in a folder, in order; none if there is no such folder.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    /// The CPUs that are online.
    pub(crate) fn cpus(&self) -> Vec<usize> {
        list(&self.text("/sys/devices/system/cpu/online").unwrap_or_default())
    }

    /// The process of a running server, or this one.
    pub(crate) fn server(&self) -> (String, &'static str) {
        let pid = self.process(&["gemel"], |pid| {
            let line = self.text(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split('\0').any(|word| word == "serve")
        });
        match pid {
            Some((pid, _)) => (format!("/proc/{pid}"), "of the running server"),
            None => ("/proc/self".to_owned(), "of this shell; no server runs"),
        }
    }

    /// A process with one of these names for which `accept` holds: its id and its name.
    pub(crate) fn process(
        &self,
        names: &[&str],
        accept: impl Fn(&str) -> bool,
    ) -> Option<(String, String)> {
        self.names("/proc").into_iter().filter(|pid| pid.parse::<u32>().is_ok()).find_map(|pid| {
            let name = self.text(&format!("/proc/{pid}/comm"))?;
            (names.contains(&name.as_str()) && accept(&pid)).then_some((pid, name))
        })
    }
}

/// A list as the kernel writes it: `0-3,6`.
pub(crate) fn list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// The same for people and for the kernel's command line.
pub(crate) fn show_list(cpus: &[usize]) -> String {
    cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// The word in brackets, as in `always [madvise] never`.
pub(crate) fn chosen(text: &str) -> &str {
    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(text, |(word, _)| word)
}

/// What is not in a file: what drivers tell.
pub(crate) trait Drivers {
    /// Rings, queues and offloads.
    fn nic(&self, interface: &str) -> Nic;
    /// What the driver can do with XDP.
    fn xdp(&self, index: u32) -> Option<XdpFeatures>;
}

/// The drivers of this host.
pub(crate) struct LiveDrivers;

impl Drivers for LiveDrivers {
    fn nic(&self, interface: &str) -> Nic {
        af_xdp::nic(interface).unwrap_or_default()
    }

    fn xdp(&self, index: u32) -> Option<XdpFeatures> {
        gemel_ebpf::xdp_features(index)
    }
}
