//! The UMEM: one area of memory cut into frames, and the owned frames that are handed out of it.

use std::{
    marker::PhantomData,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{Error, mapping::Mapping};

/// Size and layout of a [`Umem`].
#[derive(Clone, Debug)]
pub struct UmemConfig {
    /// Frames in the area.
    pub frame_count: u32,
    /// Bytes in a frame: 2048 or 4096.
    pub frame_size: u32,
    /// Bytes that the kernel leaves free in front of each received packet, beyond the 256 that
    /// it keeps for XDP. Room for a longer header in front of a reply.
    pub headroom: u32,
    /// Try huge pages first; ordinary pages are taken when there are none.
    pub huge_pages: bool,
}

impl Default for UmemConfig {
    fn default() -> Self {
        Self { frame_count: 8192, frame_size: 2048, headroom: 0, huge_pages: true }
    }
}

/// A packet buffer, owned by whoever holds the value.
///
/// It can be neither copied nor made by hand, so two holders of the same bytes cannot exist. The
/// bytes are reached through the [`Umem`] that it came from. Give it back with
/// [`Socket::free`](crate::Socket::free) or [`Socket::transmit`](crate::Socket::transmit); a frame
/// that is merely dropped is missing from the pool from then on.
#[derive(Debug)]
#[must_use = "a dropped frame is lost to the pool"]
pub struct Frame {
    umem_id: u32,
    index: u32,
    size: u16,
    offset: u16,
    len: u16,
}

/// A range that does not fit into the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{offset} + {len} bytes do not fit into a frame of {size} bytes")]
pub struct OutOfFrame {
    /// First byte asked for.
    pub offset: usize,
    /// Bytes asked for.
    pub len: usize,
    /// Bytes in the frame.
    pub size: usize,
}

impl Frame {
    /// Says which part of the frame is the packet.
    ///
    /// # Errors
    /// When the range does not lie within the frame; the frame then keeps its old range.
    pub fn set_range(&mut self, offset: usize, len: usize) -> Result<(), OutOfFrame> {
        let size = usize::from(self.size);
        match (u16::try_from(offset), u16::try_from(len)) {
            (Ok(offset16), Ok(len16)) if offset + len <= size => {
                self.offset = offset16;
                self.len = len16;
                Ok(())
            }
            _ => Err(OutOfFrame { offset, len, size }),
        }
    }

    /// Where the packet begins, in bytes from the start of the frame.
    #[must_use]
    pub fn offset(&self) -> usize {
        usize::from(self.offset)
    }

    /// Bytes in the packet.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// True for a packet without bytes, as a frame fresh from the pool holds.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes in the whole frame.
    #[must_use]
    pub fn size(&self) -> usize {
        usize::from(self.size)
    }
}

/// Who has a frame. The kernel's word on that is checked against this, so that a faulty driver
/// cannot make two owners of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the free list.
    Free,
    /// Out as a [`Frame`].
    Held,
    /// With the kernel, to receive into.
    Filling,
    /// With the kernel, to be sent.
    Sending,
}

/// An area of memory cut into equal frames, with the list of the free ones.
#[derive(Debug)]
pub struct Umem {
    area: Mapping,
    id: u32,
    frame_count: u32,
    frame_size: u16,
    frame_shift: u32,
    headroom: u32,
    free: Vec<u32>,
    places: Box<[Place]>,
    /// One owner at a time: `data_mut` through a shared reference is for that owner's thread.
    _not_sync: PhantomData<*const ()>,
}

// SAFETY: the area is plain memory of the process, and all else is owned data; only `Sync` is
// withheld by the marker.
unsafe impl Send for Umem {}

impl Umem {
    /// Maps the area and puts all frames into the free list.
    ///
    /// # Errors
    /// When a size is not one that the kernel takes, or memory is short.
    pub fn new(config: UmemConfig) -> Result<Self, Error> {
        let UmemConfig { frame_count, frame_size, headroom, huge_pages } = config;
        let frame_size = match frame_size {
            2048 => 2048_u16,
            4096 => 4096_u16,
            _ => return Err(invalid("frame_size", frame_size, "must be 2048 or 4096")),
        };
        if frame_count == 0 {
            return Err(invalid("frame_count", frame_count, "must be at least 1"));
        }
        // The kernel takes 256 bytes of each frame for XDP itself.
        if headroom >= u32::from(frame_size) - 256 {
            return Err(invalid("headroom", headroom, "must leave room in the frame"));
        }
        let len = (frame_count as usize)
            .checked_mul(usize::from(frame_size))
            .ok_or_else(|| invalid("frame_count", frame_count, "is more than memory can hold"))?;
        let area = Mapping::anonymous(len, huge_pages)?;
        Ok(Self {
            area,
            id: next_id(),
            frame_count,
            frame_size,
            frame_shift: frame_size.trailing_zeros(),
            headroom,
            // Popped from the end: the lowest frames, which stay in the cache, go out first.
            free: (0..frame_count).rev().collect(),
            places: vec![Place::Free; frame_count as usize].into_boxed_slice(),
            _not_sync: PhantomData,
        })
    }

    /// Takes a free frame; its packet is empty and begins behind the headroom.
    pub fn allocate(&mut self) -> Option<Frame> {
        let index = self.free.pop()?;
        self.places[index as usize] = Place::Held;
        let offset = u16::try_from(self.headroom).expect("checked to be less than a frame");
        Some(Frame { umem_id: self.id, index, size: self.frame_size, offset, len: 0 })
    }

    /// Takes a frame back into the free list.
    ///
    /// # Panics
    /// When the frame came from another UMEM.
    pub fn free(&mut self, frame: Frame) {
        self.check(&frame);
        self.places[frame.index as usize] = Place::Free;
        self.free.push(frame.index);
    }

    /// The packet in a frame.
    ///
    /// # Panics
    /// When the frame came from another UMEM.
    #[must_use]
    pub fn data<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        &self.buffer(frame)[frame.offset()..][..frame.len()]
    }

    /// The packet in a frame, to change.
    ///
    /// The UMEM is only borrowed shared, so that the packets of several frames can be open at once.
    ///
    /// # Panics
    /// When the frame came from another UMEM.
    #[must_use]
    pub fn data_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let (offset, len) = (frame.offset(), frame.len());
        &mut self.buffer_mut(frame)[offset..][..len]
    }

    /// The whole frame, with what lies in front of and behind the packet.
    ///
    /// # Panics
    /// When the frame came from another UMEM.
    #[must_use]
    pub fn buffer<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        let start = self.start(frame);
        // SAFETY: `start` is the first of `size` bytes inside the area, which lives as long as
        // `self`. The `Frame` is the only one of its index, the kernel does not have the frame
        // (see `Place`), and it is borrowed shared, so nobody writes meanwhile.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), frame.size()) }
    }

    /// The whole frame, to change.
    ///
    /// # Panics
    /// When the frame came from another UMEM.
    #[must_use]
    pub fn buffer_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let start = self.start(frame);
        // SAFETY: as in `buffer`, and the only `Frame` of this index is borrowed exclusively, so
        // nobody else reads or writes these bytes. Frames do not overlap.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), frame.size()) }
    }

    /// Frames in the free list.
    #[must_use]
    pub fn free_frames(&self) -> usize {
        self.free.len()
    }

    /// Frames in the area.
    #[must_use]
    pub fn frame_count(&self) -> u32 {
        self.frame_count
    }

    /// Bytes in a frame.
    #[must_use]
    pub fn frame_size(&self) -> usize {
        usize::from(self.frame_size)
    }

    /// True when the area lies in reserved huge pages; of transparent ones the kernel does not tell.
    #[must_use]
    pub fn uses_huge_pages(&self) -> bool {
        self.area.is_huge()
    }

    /// Free bytes in front of each packet, as configured.
    pub(crate) fn headroom(&self) -> u32 {
        self.headroom
    }

    /// Start and length of the area, to register with the kernel.
    pub(crate) fn area(&self) -> (NonNull<u8>, u64) {
        (self.area.start(), self.len())
    }

    /// Takes a free frame for the fill ring: its address.
    pub(crate) fn lend_to_fill(&mut self) -> Option<u64> {
        let index = self.free.pop()?;
        self.places[index as usize] = Place::Filling;
        Some(u64::from(index) << self.frame_shift)
    }

    /// Undoes [`Self::lend_to_fill`] or gives back a received frame that is of no use.
    pub(crate) fn take_back(&mut self, address: u64) {
        if let Some(index) = self.index_in(address, Place::Filling) {
            self.places[index as usize] = Place::Free;
            self.free.push(index);
        }
    }

    /// Takes a received packet over from the kernel. None when the kernel cannot have meant it:
    /// an address outside the area or across the end of a frame, or a frame that was not lent.
    pub(crate) fn received(&mut self, address: u64, len: u32) -> Option<Frame> {
        let index = self.index_in(address, Place::Filling)?;
        let offset = u16::try_from(address & u64::from(self.frame_size - 1)).ok()?;
        let Some(len) = u16::try_from(len).ok().filter(|len| *len <= self.frame_size - offset)
        else {
            self.take_back(address);
            return None;
        };
        self.places[index as usize] = Place::Held;
        Some(Frame { umem_id: self.id, index, size: self.frame_size, offset, len })
    }

    /// Lends a frame to the kernel to be sent: the address of its packet.
    pub(crate) fn lend_to_send(&mut self, frame: Frame) -> u64 {
        self.check(&frame);
        self.places[frame.index as usize] = Place::Sending;
        (u64::from(frame.index) << self.frame_shift) + u64::from(frame.offset)
    }

    /// Takes a sent frame back into the free list; false when it was not with the kernel.
    pub(crate) fn sent(&mut self, address: u64) -> bool {
        let Some(index) = self.index_in(address, Place::Sending) else { return false };
        self.places[index as usize] = Place::Free;
        self.free.push(index);
        true
    }

    /// The frame that `address` lies in, if it is where it should be.
    fn index_in(&self, address: u64, place: Place) -> Option<u32> {
        let index = u32::try_from(address >> self.frame_shift).ok()?;
        (*self.places.get(index as usize)? == place).then_some(index)
    }

    /// Stops a frame of another UMEM: its index would give a second owner to one of our frames.
    fn check(&self, frame: &Frame) {
        assert_eq!(frame.umem_id, self.id, "a frame was used with a UMEM it is not from");
    }

    fn start(&self, frame: &Frame) -> NonNull<u8> {
        self.check(frame);
        // SAFETY: a frame with our id was made by this UMEM with an index below `frame_count`, and
        // the area holds `frame_count` frames.
        unsafe { self.area.start().add((frame.index as usize) << self.frame_shift) }
    }

    fn len(&self) -> u64 {
        u64::from(self.frame_count) << self.frame_shift
    }
}

fn invalid(name: &'static str, value: u32, rule: &'static str) -> Error {
    Error::Config { name, value: value.into(), rule }
}

/// A number for each UMEM of the process.
fn next_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |id| id.checked_add(1))
        .expect("a process makes fewer than 2^32 UMEMs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Umem {
        Umem::new(UmemConfig { frame_count: 4, headroom: 64, ..UmemConfig::default() }).unwrap()
    }

    #[test]
    fn frames_are_distinct_and_come_back() {
        let mut umem = small();
        let mut frames: Vec<_> = std::iter::from_fn(|| umem.allocate()).collect();
        assert_eq!(frames.len(), 4);
        assert_eq!(umem.free_frames(), 0);
        for (i, frame) in frames.iter_mut().enumerate() {
            frame.set_range(64, 100).unwrap();
            umem.data_mut(frame).fill(u8::try_from(i).unwrap());
        }
        for (i, frame) in frames.iter().enumerate() {
            assert!(umem.data(frame).iter().all(|b| usize::from(*b) == i));
            assert_eq!(umem.buffer(frame)[63], 0);
            assert_eq!(umem.buffer(frame)[164], 0);
        }
        for frame in frames {
            umem.free(frame);
        }
        assert_eq!(umem.free_frames(), 4);
    }

    #[test]
    fn a_range_beyond_the_frame_is_refused_and_changes_nothing() {
        let mut umem = small();
        let mut frame = umem.allocate().unwrap();
        frame.set_range(2000, 48).unwrap();
        assert_eq!(
            frame.set_range(2000, 49),
            Err(OutOfFrame { offset: 2000, len: 49, size: 2048 })
        );
        assert!(frame.set_range(usize::MAX, 2).is_err());
        assert!(frame.set_range(0, 65536).is_err());
        assert_eq!((frame.offset(), frame.len()), (2000, 48));
        umem.free(frame);
    }

    #[test]
    #[should_panic(expected = "not from")]
    fn a_frame_of_another_umem_is_refused() {
        let mut other = small();
        let frame = other.allocate().unwrap();
        let _ = small().data(&frame);
    }

    #[test]
    fn the_kernel_is_only_believed_about_frames_it_has() {
        let mut umem = small();
        let address = umem.lend_to_fill().unwrap();
        assert!(umem.received(4 * 2048, 10).is_none(), "outside the area");
        assert!(umem.received(u64::MAX, 10).is_none(), "far outside the area");
        assert!(umem.received(address + 2048, 10).is_none(), "not lent");
        assert!(!umem.sent(address), "lent to receive, not to send");

        let mut frame = umem.received(address + 256, 1000).unwrap();
        assert_eq!((frame.offset(), frame.len()), (256, 1000));
        assert!(umem.received(address + 256, 1000).is_none(), "received twice");

        frame.set_range(128, 500).unwrap();
        let sending = umem.lend_to_send(frame);
        assert_eq!(sending, address + 128);
        assert!(umem.sent(sending));
        assert!(!umem.sent(sending), "completed twice");
        assert_eq!(umem.free_frames(), 4);
    }

    #[test]
    fn a_packet_across_the_end_of_its_frame_returns_to_the_pool() {
        let mut umem = small();
        let address = umem.lend_to_fill().unwrap();
        assert!(umem.received(address + 2000, 49).is_none());
        assert_eq!(umem.free_frames(), 4);
        let address = umem.lend_to_fill().unwrap();
        assert!(umem.received(address, u32::MAX).is_none());
        assert_eq!(umem.free_frames(), 4);
    }

    #[test]
    fn sizes_that_the_kernel_refuses_are_named() {
        for (config, field) in [
            (UmemConfig { frame_size: 1024, ..UmemConfig::default() }, "frame_size"),
            (UmemConfig { frame_count: 0, ..UmemConfig::default() }, "frame_count"),
            (UmemConfig { headroom: 1900, ..UmemConfig::default() }, "headroom"),
        ] {
            let error = Umem::new(config).unwrap_err();
            assert!(error.to_string().starts_with(field), "{error}");
        }
    }
}
