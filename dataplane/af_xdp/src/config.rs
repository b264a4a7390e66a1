//! How a socket is to be set up.

use crate::Error;

/// How packets get between the driver and the UMEM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BindMode {
    /// Zero-copy where the driver has it, else copy.
    #[default]
    Auto,
    /// Copy, whatever the driver can do.
    Copy,
    /// Zero-copy or an error.
    ZeroCopy,
}

/// Busy polling: the kernel works on the queue inside our system calls instead of in interrupts.
#[derive(Clone, Copy, Debug)]
pub struct BusyPoll {
    /// Longest busy poll, in microseconds (`SO_BUSY_POLL`).
    pub micros: u32,
    /// Packets per busy poll (`SO_BUSY_POLL_BUDGET`).
    pub budget: u32,
}

/// Where and how to bind a [`Socket`](crate::Socket).
#[derive(Clone, Debug)]
pub struct SocketConfig {
    /// Interface; [`interface_index`](crate::interface_index) finds it by name.
    pub ifindex: u32,
    /// Queue of the interface. Packets of other queues never reach this socket.
    pub queue_id: u32,
    /// Entries in the RX ring, a power of two.
    pub rx_size: u32,
    /// Entries in the TX ring, a power of two.
    pub tx_size: u32,
    /// Entries in the fill ring, a power of two. Twice `rx_size` lets the driver hold frames while
    /// the RX ring is full.
    pub fill_size: u32,
    /// Entries in the completion ring, a power of two. At least `tx_size`.
    pub completion_size: u32,
    /// Zero-copy or copy.
    pub mode: BindMode,
    /// Wake the kernel only when it asks for it. Leave on but to measure the difference.
    pub need_wakeup: bool,
    /// Frames that [`Socket::refill`](crate::Socket::refill) leaves in the pool for sending.
    pub tx_reserve: u32,
    /// In copy mode, frames that one system call sends; 32 without it. Ignored by kernels before
    /// 6.18.
    pub tx_budget: Option<u32>,
    /// Busy polling. Has no effect with drivers without NAPI ids, see
    /// [`Socket::busy_poll_works`](crate::Socket::busy_poll_works).
    pub busy_poll: Option<BusyPoll>,
}

impl SocketConfig {
    /// The usual sizes for queue `queue_id` of interface `ifindex`.
    #[must_use]
    pub fn new(ifindex: u32, queue_id: u32) -> Self {
        Self {
            ifindex,
            queue_id,
            rx_size: 2048,
            tx_size: 2048,
            fill_size: 4096,
            completion_size: 4096,
            mode: BindMode::Auto,
            need_wakeup: true,
            tx_reserve: 2048,
            tx_budget: Some(256),
            busy_poll: None,
        }
    }

    pub(crate) fn check(&self, frame_count: u32) -> Result<(), Error> {
        for (name, value) in [
            ("rx_size", self.rx_size),
            ("tx_size", self.tx_size),
            ("fill_size", self.fill_size),
            ("completion_size", self.completion_size),
        ] {
            if !value.is_power_of_two() {
                let rule = "must be a power of two";
                return Err(Error::Config { name, value: value.into(), rule });
            }
        }
        let refuse =
            |name, value: u32, rule| Err(Error::Config { name, value: value.into(), rule });
        if self.completion_size < self.tx_size {
            let rule = "must be at least tx_size, or the kernel stops sending";
            return refuse("completion_size", self.completion_size, rule);
        }
        if self.tx_reserve >= frame_count {
            let rule = "must be less than frame_count, or nothing can be received";
            return refuse("tx_reserve", self.tx_reserve, rule);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_wrong_sizes_are_named() {
        let good = SocketConfig::new(1, 0);
        good.check(8192).unwrap();
        for (bad, field) in [
            (SocketConfig { rx_size: 100, ..good.clone() }, "rx_size"),
            (SocketConfig { fill_size: 0, ..good.clone() }, "fill_size"),
            (SocketConfig { completion_size: 1024, ..good.clone() }, "completion_size"),
            (SocketConfig { tx_reserve: 8192, ..good.clone() }, "tx_reserve"),
        ] {
            let error = bad.check(8192).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }
}
