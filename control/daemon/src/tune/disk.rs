//! Checks of the disk that every REPLY waits for.

use std::path::Path;

use super::{Check, Wanted, host::Host};
use crate::config::Durability;

const DISK: &str = "disk";
/// Octets that may wait for the disk before writers are held up.
const DIRTY_MAX: u64 = 1 << 30;

pub(super) fn look(host: &Host, wanted: &Wanted, checks: &mut Vec<Check>) {
    checks.push(dirty(host));
    let Some(store) = &wanted.store else {
        checks.push(Check::unknown(DISK, "store", "give --config to have its disk looked at"));
        return;
    };
    let Some(mount) = mount_of(host, store) else {
        checks.push(Check::unknown(DISK, "store", "its file system is not known"));
        return;
    };
    checks.push(file_system(&mount, store, wanted.durability));
    checks.extend(cache(host, &mount, wanted.durability));
}

/// Where a path is mounted from.
struct Mount {
    kind: String,
    /// `major:minor`.
    device: String,
}

fn mount_of(host: &Host, path: &Path) -> Option<Mount> {
    let text = host.text("/proc/self/mountinfo")?;
    let mounts = text.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(2);
        let device = fields.next()?.to_owned();
        let point = fields.nth(1)?;
        let kind = after.split(' ').next()?.to_owned();
        path.starts_with(point).then_some((point.len(), Mount { kind, device }))
    });
    // Of two that are mounted at one place the later one is seen.
    mounts.enumerate().max_by_key(|(order, (len, _))| (*len, *order)).map(|(_, (_, mount))| mount)
}

fn file_system(mount: &Mount, store: &Path, durability: Durability) -> Check {
    let check = Check::ok(DISK, "file_system", format!("{} ({})", mount.kind, store.display()));
    match mount.kind.as_str() {
        "ext4" | "xfs" | "ext3" => check,
        "tmpfs" | "ramfs" if durability == Durability::PowerLoss => check.refuse(
            "ext4 or XFS on a disk",
            "leases are gone when the power is, although the configuration says otherwise",
        ),
        "nfs" | "nfs4" | "cifs" | "fuse" | "9p" => check.refuse(
            "ext4 or XFS on a local disk",
            "a database over mapped memory is not safe on a network file system",
        ),
        _ => check.advise(
            "ext4 or XFS",
            "file systems that write elsewhere each time make small syncs slow",
        ),
    }
}

/// What the disk does with a sync.
fn cache(host: &Host, mount: &Mount, durability: Durability) -> Vec<Check> {
    let device = format!("/sys/dev/block/{}", mount.device);
    let queue = [format!("{device}/queue"), format!("{device}/../queue")]
        .into_iter()
        .find(|queue| host.path(queue).is_dir());
    let Some(queue) = queue else { return Vec::new() };
    let mut checks = Vec::new();
    if let Some(cache) = host.text(&format!("{queue}/write_cache")) {
        let note = match cache.as_str() {
            "write back" => "write back: a sync flushes the disk's cache",
            _ => "write through: a sync costs no flush; it must be so by hardware, not by setting",
        };
        checks.push(Check::ok(DISK, "write_cache", note));
    }
    let rotates = host.number(&format!("{queue}/rotational")) == Some(1);
    let check = Check::ok(DISK, "kind", if rotates { "rotating" } else { "solid state" });
    checks.push(if rotates && durability == Durability::PowerLoss {
        check.advise("solid state", "each sync waits for a turn of the disk, some milliseconds")
    } else {
        check
    });
    checks
}

/// How much may be written before the kernel holds up whoever writes.
fn dirty(host: &Host) -> Check {
    let vm = |name: &str| host.number(&format!("/proc/sys/vm/{name}")).unwrap_or(0);
    let memory = host
        .text("/proc/meminfo")
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        })
        .map_or(0, |kib| kib * 1024);
    let (octets, ratio) = (vm("dirty_bytes"), vm("dirty_ratio"));
    let most = if octets > 0 { octets } else { memory / 100 * ratio };
    let check = Check::ok(DISK, "dirty_pages", format!("{} MiB at most", most >> 20));
    if most <= DIRTY_MAX {
        return check;
    }
    check
        .advise(
            "256 MiB",
            "when much has piled up, a sync of the journal stands in line behind it for seconds",
        )
        .with_command("sysctl -w vm.dirty_bytes=268435456 vm.dirty_background_bytes=67108864")
}
