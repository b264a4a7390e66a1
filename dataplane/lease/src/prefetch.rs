//! Asking for memory before it is needed. The only unsafe code of this crate.
#![allow(unsafe_code)]

/// Asks for the cache line of an address, if the processor is one that we know how to ask. Any address
/// will do: one of no memory, or of memory that has been given back, is passed over.
#[inline]
pub(crate) fn prefetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

        let pointer = std::ptr::without_provenance::<i8>(address);
        // SAFETY: the instruction reads nothing that the program could see, whatever the address: it
        // raises no fault (Intel's manual, volume 2, PREFETCHh) and is part of every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(pointer) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Asks for the first cache lines of a value.
#[inline]
pub(crate) fn prefetch_lines<T>(value: &T, lines: usize) {
    let first = std::ptr::from_ref(value).addr();
    (0..lines).for_each(|line| prefetch(first + 64 * line));
}

/// Asks for all cache lines of a value.
#[inline]
pub(crate) fn prefetch_all<T>(value: &T) {
    let first = std::ptr::from_ref(value).addr();
    let mut line = first / 64 * 64;
    while line < first + size_of::<T>() {
        prefetch(line);
        line += 64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_will_do() {
        for address in [0, 1, 4096, usize::MAX, usize::MAX - 64, 1 << 63] {
            prefetch(address);
        }
        prefetch_all(&[0_u64; 100]);
        prefetch_all(&());
        prefetch_lines(&0_u8, 3);
    }
}
