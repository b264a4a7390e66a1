//! Short time slices for the threads that clients wait for.
#![allow(unsafe_code)] // no safe crate has sched_setattr for ordinary threads

use std::io;

/// The slice asked for, in nanoseconds: the least that the kernel grants (`sched_setattr(2)`).
const SLICE_NS: u64 = 100_000;

/// `struct sched_attr` of `linux/sched/types.h`, in its first published size.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks for short time slices for the calling thread: when it wakes, it takes the processor from a
/// thread with a longer slice (EEVDF, Linux 6.12 and later; older kernels ignore it). Its share of the
/// processor stays what it was, and so do its niceness and policy.
///
/// On a core that the checkpoint shares with a worker this keeps the worker from waiting for
/// milliseconds.
///
/// # Errors
/// If the kernel refuses; all works without it.
pub fn ask_for_short_slices() -> io::Result<()> {
    // SAFETY: system calls on numbers alone; 0 is the calling thread.
    let (policy, nice) =
        unsafe { (libc::sched_getscheduler(0), libc::getpriority(libc::PRIO_PROCESS, 0)) };
    if policy != libc::SCHED_OTHER {
        // Somebody has chosen a policy for this thread on purpose.
        return Ok(());
    }
    let attr = SchedAttr {
        size: u32::try_from(size_of::<SchedAttr>()).unwrap_or(0),
        nice,
        runtime: SLICE_NS,
        ..SchedAttr::default()
    };
    // SAFETY: the structure is as the kernel expects it, tells its own size and outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_it() {
        std::thread::spawn(|| {
            ask_for_short_slices().unwrap();
            let mut attr = SchedAttr::default();
            let size = u32::try_from(size_of::<SchedAttr>()).unwrap();
            // SAFETY: the kernel writes at most `size` octets into the structure.
            let result =
                unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) };
            assert_eq!(result, 0);
            assert!(attr.runtime == SLICE_NS || attr.runtime == 0, "{}", attr.runtime);
        })
        .join()
        .unwrap();
    }
}
