//! The journal's view of a disk, narrow enough to be played by a simulation.

use std::{io, path::PathBuf};

pub(crate) mod mapped;
#[cfg(test)]
pub(crate) mod sim;

/// A folder of segments.
pub(crate) trait Disk: Send + Sync + 'static {
    /// A segment that can be written.
    type Segment: Segment;

    /// Numbers of the segments there are.
    fn list(&self) -> io::Result<Vec<u32>>;

    /// Makes a segment of zeros. When this returns, its space is written, and the segment and its
    /// name are durable; after an error nothing is left of it.
    fn create(&self, id: u32, len: usize) -> io::Result<Self::Segment>;

    /// Opens a segment for writing.
    fn open(&self, id: u32) -> io::Result<Self::Segment>;

    /// Opens a segment for reading and tells its octets.
    fn reader(&self, id: u32) -> io::Result<(<Self::Segment as Segment>::Reader, usize)>;

    /// Removes a segment. The removal need not be durable.
    fn remove(&self, id: u32) -> io::Result<()>;

    /// The segment's name for messages.
    fn path(&self, id: u32) -> PathBuf;
}

/// A segment that can be written.
pub(crate) trait Segment: Send + 'static {
    /// Reads it, also while it is written.
    type Reader: SegmentReader;

    /// Octets.
    fn len(&self) -> usize;

    /// Writes; durable after the next successful [`sync`](Self::sync).
    ///
    /// # Panics
    /// Beyond the end.
    fn write(&mut self, at: usize, octets: &[u8]);

    /// Makes what was written durable. After an error nobody knows what is.
    fn sync(&mut self) -> io::Result<()>;

    /// Makes sure that writing need not wait for the disk to read.
    fn warm(&mut self) -> io::Result<()>;

    /// A reader.
    fn reader(&self) -> io::Result<Self::Reader>;
}

/// Reads a segment.
pub(crate) trait SegmentReader: Clone + Send + Sync + 'static {
    /// Fills `octets` from offset `at`.
    fn read(&self, at: usize, octets: &mut [u8]) -> io::Result<()>;
}
