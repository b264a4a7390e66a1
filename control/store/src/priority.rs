//! Threads that stand back behind the one that commits.
#![allow(unsafe_code)] // libc has these calls, the standard library has not

use std::sync::OnceLock;

/// Lowers the calling thread's claim to processor and disk, so that the threads that answer clients
/// come first. Advice: everything works without it.
pub fn stand_back() {
    /// Less than half the weight of the others. Not less: on a machine without an idle processor the
    /// checkpoint must still keep up, or the journal fills.
    const NICE: libc::c_int = 4;
    /// Best effort, the lowest of its eight levels: an idle class could starve the checkpoint until
    /// the journal is full.
    const LEVEL: libc::c_long = 7;
    claim(usual_nice().max(NICE), LEVEL);
}

/// Takes it back: a claim like that of other threads. Where the system grants no thread more than it
/// has (no `CAP_SYS_NICE`) that of the processor stays low.
pub(crate) fn stand_beside() {
    /// The middle, as for everybody who asks for nothing.
    const LEVEL: libc::c_long = 4;
    claim(usual_nice(), LEVEL);
}

/// What the process was started with: seen by the first thread that stands back, before it does.
fn usual_nice() -> libc::c_int {
    static USUAL: OnceLock<libc::c_int> = OnceLock::new();
    // SAFETY: a system call on numbers; 0 is the calling thread.
    *USUAL.get_or_init(|| unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) })
}

fn claim(nice: libc::c_int, level: libc::c_long) {
    const IOPRIO_WHO_PROCESS: libc::c_long = 1;
    const BEST_EFFORT: libc::c_long = 2 << 13;
    // SAFETY: two system calls on numbers; 0 is the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, nice);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, BEST_EFFORT | level);
    }
}

/// Lets other threads have the processor for which they wait; returns at once where none does.
///
/// The checkpoint works in short pieces with this between them: where it shares a processor with the
/// threads that answer clients, the scheduler would else let it run for milliseconds at a time.
pub(crate) fn give_way() {
    std::thread::yield_now();
}

/// Asks for huge pages behind a part of memory that is gone through at random. Advice.
pub(crate) fn prefer_huge_pages<T>(memory: &[T]) {
    const PAGE: usize = 4096;
    let begin = memory.as_ptr().addr().next_multiple_of(PAGE);
    let end = (memory.as_ptr().addr() + size_of_val(memory)) / PAGE * PAGE;
    if end > begin {
        let address = memory.as_ptr().with_addr(begin).cast_mut().cast();
        // SAFETY: whole pages within memory that is borrowed; the advice changes nothing in them.
        unsafe { libc::madvise(address, end - begin, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_never_claims_more_than_the_process_was_started_with() {
        std::thread::spawn(|| {
            // SAFETY: a system call on numbers; 0 is the calling thread.
            let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
            let usual = usual_nice();
            stand_back();
            assert_eq!(nice(), usual.max(4));
            stand_beside();
            // Or it stays low, where the system does not grant it.
            assert!(nice() == usual || nice() == usual.max(4), "{}", nice());
        })
        .join()
        .unwrap();
    }
}
