//! Attaching to an interface, and finding out what is in the way.

use std::{
    fmt, fs, io,
    os::fd::{BorrowedFd, OwnedFd},
};

use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo, ProgInfoIter};

use crate::{
    Error,
    sys::{self, ProgramIds},
};

/// `linux/if_link.h`.
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Where in the receive path an XDP program is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native where the driver has it, else generic.
    #[default]
    Auto,
    /// In the driver, before the kernel makes a socket buffer.
    Native,
    /// In the kernel's receive path, with any driver.
    Generic,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// The modes to try on an interface of which this many receive queues are used, the fastest first.
///
/// Native, but for veth with one queue: its driver makes a socket buffer of every frame and then
/// turns it into what a native program expects, so the generic mode is the shorter way. With
/// several queues the generic mode of veth does not number them as the sockets do.
#[must_use]
pub fn modes_by_speed(ifindex: u32, queues: u32) -> [XdpMode; 2] {
    let driver = sys::interface_name(ifindex).and_then(|name| sys::driver(&name).ok());
    if queues == 1 && driver.as_deref() == Some("veth") {
        [XdpMode::Generic, XdpMode::Native]
    } else {
        [XdpMode::Native, XdpMode::Generic]
    }
}

/// What came of attaching.
#[derive(Debug)]
pub struct Attachment {
    /// The mode obtained: [`XdpMode::Native`] or [`XdpMode::Generic`], as the kernel reports it.
    pub mode: XdpMode,
    /// With [`XdpMode::Auto`], why it did not become native.
    pub native_error: Option<Error>,
}

/// An XDP program on an interface that we want for ourselves.
#[derive(Debug)]
pub struct Occupant {
    /// Id of the program.
    pub program_id: u32,
    /// Name of the program, empty when unknown.
    pub program_name: String,
    /// Keyword of its mode, as `ip link` has it: `xdpdrv`, `xdpgeneric` or `xdpoffload`.
    pub mode_keyword: &'static str,
    /// Id of the link that holds it, if one does.
    pub link_id: Option<u32>,
    /// Process that holds the link, as id and command, if it could be found out.
    pub process: Option<(u32, String)>,
    interface: String,
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program_id, program_name, mode_keyword, interface, .. } = self;
        write!(f, "XDP program {program_id} ({program_name}, {mode_keyword}) is attached to it")?;
        match (self.link_id, &self.process) {
            (Some(link), Some((pid, command))) => {
                write!(f, " by process {pid} ({command}), link {link}; stop that process")
            }
            (Some(link), None) => write!(
                f,
                " by link {link}; stop the process that holds it, or \
                 `bpftool link detach id {link}`"
            ),
            (None, _) => {
                write!(f, "; remove it with `ip link set dev {interface} {mode_keyword} off`")
            }
        }
    }
}

/// Attaches `program`, and returns the link that keeps it attached.
pub(crate) fn attach(
    program: BorrowedFd<'_>,
    program_id: u32,
    ifindex: u32,
    mode: XdpMode,
) -> Result<(OwnedFd, Attachment), Error> {
    let Some(interface) = sys::interface_name(ifindex) else {
        return Err(Error::NoInterface(ifindex));
    };
    let attempt = |mode| attach_in_mode(program, &interface, ifindex, mode);
    let (link, native_error) = match mode {
        XdpMode::Native | XdpMode::Generic => (attempt(mode)?, None),
        XdpMode::Auto => match attempt(XdpMode::Native) {
            Ok(link) => (link, None),
            Err(error @ Error::Attach { .. }) => (attempt(XdpMode::Generic)?, Some(error)),
            Err(error) => return Err(error),
        },
    };
    // The kernel's word, not our intention.
    let ids = sys::query(ifindex).map_err(|source| Error::Bpf {
        what: "query the attached XDP program",
        source: source.into(),
    })?;
    let mode = if ids.native == program_id { XdpMode::Native } else { XdpMode::Generic };
    Ok((link, Attachment { mode, native_error }))
}

fn attach_in_mode(
    program: BorrowedFd<'_>,
    interface: &str,
    ifindex: u32,
    mode: XdpMode,
) -> Result<OwnedFd, Error> {
    let flags = if mode == XdpMode::Generic { XDP_FLAGS_SKB_MODE } else { XDP_FLAGS_DRV_MODE };
    sys::create_link(program, ifindex, flags).map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Error::Permission { what: "attach an XDP program" },
        Some(libc::ENODEV) => Error::NoInterface(ifindex),
        Some(libc::EBUSY | libc::EEXIST) => match find_occupant(interface, ifindex) {
            Some(occupant) => {
                Error::Occupied { interface: interface.to_owned(), occupant: Box::new(occupant) }
            }
            // It went away between the two calls, or the driver is busy for its own reasons.
            None => attach_error(interface, mode, source),
        },
        _ => attach_error(interface, mode, source),
    })
}

fn attach_error(interface: &str, mode: XdpMode, source: io::Error) -> Error {
    let hint = match source.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "; the driver does not have this mode",
        Some(libc::ENOSPC) => {
            "; on veth: the peer has more TX queues than this end has RX queues (`ethtool -L`)"
        }
        Some(libc::EINVAL | libc::ERANGE) => {
            "; often the MTU is too large for XDP, or LRO is on (`ethtool -K ... lro off`)"
        }
        _ => "",
    };
    Error::Attach { interface: interface.to_owned(), mode, source, hint }
}

/// The XDP program that occupies an interface, if there is one.
fn find_occupant(interface: &str, ifindex: u32) -> Option<Occupant> {
    let ProgramIds { native, generic, offloaded } = sys::query(ifindex).ok()?;
    let (program_id, mode_keyword) =
        [(native, "xdpdrv"), (generic, "xdpgeneric"), (offloaded, "xdpoffload")]
            .into_iter()
            .find(|(id, _)| *id != 0)?;
    let program_name = ProgInfoIter::default()
        .find(|program| program.id == program_id)
        .map(|program| program.name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let link_id = LinkInfoIter::default()
        .find(|link| {
            link.prog_id == program_id
                && matches!(&link.info, LinkTypeInfo::Xdp(xdp) if xdp.ifindex == ifindex)
        })
        .map(|link| link.id);
    let process = link_id.and_then(process_holding);
    let interface = interface.to_owned();
    Some(Occupant { program_id, program_name, mode_keyword, link_id, process, interface })
}

/// The process that has a descriptor of the link open, as far as we may look.
fn process_holding(link_id: u32) -> Option<(u32, String)> {
    let holds = |pid: u32| {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return false };
        descriptors.flatten().any(|descriptor| {
            fs::read_to_string(descriptor.path()).is_ok_and(|info| {
                info.lines()
                    .filter_map(|line| line.strip_prefix("link_id:"))
                    .any(|id| id.trim().parse() == Ok(link_id))
            })
        })
    };
    let pid = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| holds(*pid))?;
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((pid, command.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occupant() -> Occupant {
        Occupant {
            program_id: 7,
            program_name: "filter".to_owned(),
            mode_keyword: "xdpgeneric",
            link_id: None,
            process: None,
            interface: "eth9".to_owned(),
        }
    }

    #[test]
    fn an_occupant_is_named_with_the_way_to_remove_it() {
        let plain = occupant().to_string();
        assert!(plain.contains("program 7 (filter"), "{plain}");
        assert!(plain.contains("`ip link set dev eth9 xdpgeneric off`"), "{plain}");

        let link = Occupant { link_id: Some(3), ..occupant() }.to_string();
        assert!(link.contains("`bpftool link detach id 3`"), "{link}");

        let process = Some((42, "gemel".to_owned()));
        let held = Occupant { link_id: Some(3), process, ..occupant() }.to_string();
        assert!(held.contains("process 42 (gemel)"), "{held}");
    }

    #[test]
    fn an_interface_that_is_not_there_has_no_name() {
        assert_eq!(sys::interface_name(u32::MAX), None);
        assert_eq!(sys::interface_name(1).as_deref(), Some("lo"));
    }
}
