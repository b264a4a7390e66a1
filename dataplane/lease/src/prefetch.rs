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
    (0..lines).for_each(|line| prefetch(first.wrapping_add(LINE * line)));
}

/// Asks for all cache lines of a value.
#[inline]
pub(crate) fn prefetch_all<T>(value: &T) {
    prefetch_item(std::ptr::from_ref(value), 0);
}

/// Asks for all cache lines of an item of an array, whether there is such an item yet or not.
#[inline]
pub(crate) fn prefetch_item<T>(array: *const T, index: usize) {
    let first = array.wrapping_add(index).addr();
    let lines = (first % LINE + size_of::<T>()).div_ceil(LINE);
    (0..lines).for_each(|line| prefetch(first.wrapping_add(LINE * line)));
}

/// Octets that a cache line has.
pub(crate) const LINE: usize = 64;

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
        prefetch_item(std::ptr::null::<u64>(), 5);
        prefetch_item(std::ptr::without_provenance::<u64>(usize::MAX - 7), 0);
    }
}
