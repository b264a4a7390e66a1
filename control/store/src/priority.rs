//! Threads that stand back behind the one that commits.
#![allow(unsafe_code)] // libc has these calls, the standard library has not

/// Lowers the calling thread's claim to processor and disk, so that the threads that answer clients
/// come first. Advice: everything works without it.
pub fn stand_back() {
    /// Less than half the weight of the others. Not less: on a machine without an idle processor the
    /// checkpoint must still keep up, or the journal fills.
    const NICE: libc::c_int = 4;
    const IOPRIO_WHO_PROCESS: libc::c_long = 1;
    /// Best effort, the lowest of its eight levels: an idle class could starve the checkpoint until
    /// the journal is full.
    const IOPRIO: libc::c_long = 2 << 13 | 7;
    // SAFETY: two system calls on numbers; 0 is the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO);
    }
}

/// Lets other threads have the processor for which they wait; returns at once where none does.
///
/// The checkpoint works in short pieces with this between them: where it shares a processor with the
/// threads that answer clients, the scheduler would else let it run for milliseconds at a time.
pub(crate) fn give_way() {
    std::thread::yield_now();
}
