//! Memory mappings: the UMEM area and the rings that the kernel shares with us.

use std::{io, os::fd::BorrowedFd, ptr::NonNull};

use crate::{Error, sys};

/// Size of a huge page that `MAP_HUGETLB` gives by default on x86-64 and aarch64.
const HUGE_PAGE_SIZE: usize = 2 << 20;

/// A mapped range of memory, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    huge: bool,
}

// SAFETY: a mapping is an address range of the process; it belongs to no thread, and this type
// gives out nothing but its address.
unsafe impl Send for Mapping {}
// SAFETY: as above; all access goes through the types that are built on it.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of zeroed private memory, resident from the start.
    ///
    /// With `huge_pages` it tries reserved huge pages first, then transparent ones, and falls back
    /// silently: they only save TLB misses.
    pub(crate) fn anonymous(len: usize, huge_pages: bool) -> Result<Self, Error> {
        if huge_pages {
            let rounded = len.next_multiple_of(HUGE_PAGE_SIZE);
            if let Ok(start) = sys::map_anonymous(rounded, libc::MAP_HUGETLB | libc::MAP_POPULATE) {
                return Ok(Self { start, len: rounded, huge: true });
            }
        }
        let populate = if huge_pages { 0 } else { libc::MAP_POPULATE };
        let start = sys::map_anonymous(len, populate).map_err(|e| Error::os("mmap(UMEM)", e))?;
        if huge_pages {
            sys::populate_huge(start, len);
        }
        Ok(Self { start, len, huge: false })
    }

    /// Maps `len` bytes of a ring of the AF_XDP socket `fd` from page offset `offset`.
    pub(crate) fn ring(fd: BorrowedFd<'_>, len: usize, offset: libc::off_t) -> io::Result<Self> {
        let start = sys::map_shared(fd, len, offset)?;
        Ok(Self { start, len, huge: false })
    }

    /// The first byte.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes mapped.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// True when reserved huge pages were obtained.
    pub(crate) fn is_huge(&self) -> bool {
        self.huge
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `len` are those of a successful mmap that only this value owns, and
        // what was built on it borrows from or shares ownership of this value.
        unsafe { sys::unmap(self.start, self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_is_zero_and_writable_with_and_without_huge_pages() {
        for huge in [false, true] {
            let mapping = Mapping::anonymous(3 * 4096, huge).unwrap();
            assert!(mapping.len() >= 3 * 4096);
            assert!(huge || !mapping.is_huge());
            // SAFETY: the last byte of our own mapping, nobody else has its address.
            unsafe {
                let last = mapping.start().add(mapping.len() - 1);
                assert_eq!(last.read(), 0);
                last.write(7);
                assert_eq!(last.read(), 7);
            }
        }
    }

    #[test]
    fn a_mapping_that_cannot_be_is_an_error() {
        assert!(Mapping::anonymous(0, false).is_err());
    }
}
