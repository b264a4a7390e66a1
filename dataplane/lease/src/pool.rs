//! Pools: ranges of leases, which of them this server may give out now, and which are taken.

use std::{
    net::Ipv6Addr,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{IaKind, Lease, alone::Alone, bitmap::Bitmap, reserved, strays};

/// The largest pool that is kept as a bitmap (2 MiB); larger ones are sparse.
pub const DENSE_LEASES_MAX: u32 = 1 << 24;

/// Index into a [`PoolSet`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PoolId(pub u16);

/// The leases of a pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PoolRange {
    /// All addresses from `first` to `last`, for IA_NA.
    Addresses {
        /// The first address.
        first: Ipv6Addr,
        /// The last address.
        last: Ipv6Addr,
    },
    /// All prefixes of length `delegated_len` inside `prefix`/`prefix_len`, for IA_PD.
    Prefixes {
        /// The prefix that is split up.
        prefix: Ipv6Addr,
        /// Its length in bits.
        prefix_len: u8,
        /// The length of what a client gets, in bits.
        delegated_len: u8,
    },
}

/// Which of a pool's free leases this server may give out (RFC 8156 section 4.2).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Ownership {
    /// All: there is no partner.
    #[default]
    Sole,
    /// Addresses whose low bit is 1 (section 4.2.1.1), and prefixes that are FREE.
    Primary,
    /// Addresses whose low bit is 0, and prefixes that are FREE-BACKUP: none at first.
    Secondary,
}

/// One pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PoolConfig {
    /// Its leases.
    pub range: PoolRange,
    /// This server's part of them.
    pub ownership: Ownership,
}

/// Why pools cannot be used as configured. `pool` counts from 0 in the order given.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PoolError {
    /// The range ends before it begins.
    #[error("pool {pool}: the last address {last} comes before the first, {first}")]
    Backwards {
        /// Which pool.
        pool: usize,
        /// Its first address.
        first: Ipv6Addr,
        /// Its last address.
        last: Ipv6Addr,
    },
    /// A prefix length that cannot be.
    #[error(
        "pool {pool}: prefixes of length {delegated_len} cannot be delegated out of a /{prefix_len}; \
         the delegated length must be from {prefix_len} to 127"
    )]
    Length {
        /// Which pool.
        pool: usize,
        /// Length of the pool's prefix.
        prefix_len: u8,
        /// Length of a delegated prefix.
        delegated_len: u8,
    },
    /// Bits set after the prefix.
    #[error("pool {pool}: {prefix}/{prefix_len} has bits set after its length; write {network}")]
    HostBits {
        /// Which pool.
        pool: usize,
        /// As configured.
        prefix: Ipv6Addr,
        /// Its length.
        prefix_len: u8,
        /// What was probably meant.
        network: Ipv6Addr,
    },
    /// Holds addresses that no client can use.
    #[error(
        "pool {pool}: {first} to {last} holds unspecified, loopback, link-local or multicast addresses"
    )]
    NotUnicast {
        /// Which pool.
        pool: usize,
        /// First address.
        first: Ipv6Addr,
        /// Last address.
        last: Ipv6Addr,
    },
    /// Two pools share addresses.
    #[error("pools {pool} and {other} overlap at {at}")]
    Overlap {
        /// One pool.
        pool: usize,
        /// The other.
        other: usize,
        /// The first address that they share.
        at: Ipv6Addr,
    },
    /// Nothing in the pool can ever be given out.
    #[error("pool {pool}: {first} to {last} holds only reserved interface identifiers (RFC 5453)")]
    Empty {
        /// Which pool.
        pool: usize,
        /// First address.
        first: Ipv6Addr,
        /// Last address.
        last: Ipv6Addr,
    },
    /// A prefix pool of a failover pair that is too large to remember who owns each prefix.
    #[error(
        "pool {pool}: {prefixes} prefixes; with a failover partner a prefix pool holds at most \
         {DENSE_LEASES_MAX}: split it or delegate larger prefixes"
    )]
    TooManyPrefixes {
        /// Which pool.
        pool: usize,
        /// How many there are.
        prefixes: u128,
    },
    /// More pools than a [`PoolId`] can tell apart.
    #[error("{0} pools; at most 65535 are possible")]
    TooManyPools(usize),
}

/// All pools of a server.
#[derive(Debug)]
pub struct PoolSet {
    pools: Vec<Pool>,
    /// Pools by their first address, for finding the one that a lease belongs to.
    sorted: Vec<(u128, u128, PoolId)>,
}

/// A pool and its occupancy.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Pool {
    config: PoolConfig,
    pub(crate) first: u128,
    last: u128,
    /// Number of leases, whether usable or not.
    size: u128,
    /// Distance of two leases as a power of two.
    step_log2: u32,
    /// Prefix length of a lease.
    lease_len: u8,
    capacity: u64,
    /// What this server may give out now; `None` for a sparse pool, where it is every lease that is
    /// not in the lease index.
    free: Option<Bitmap>,
    /// Prefix pools of a pair: whose the free leases are.
    owners: Option<Owners>,
    counts: Alone<Counts>,
}

/// How many leases there are of which kind.
#[derive(Debug)]
struct Counts {
    available: AtomicU64,
    in_use: AtomicU64,
}

/// The free prefixes of a pair's pool, as far as this server knows: each is the primary's or the
/// secondary's, and one with a binding is neither's.
#[derive(Debug)]
struct Owners {
    primary: Owned,
    secondary: Owned,
    /// Those of the secondary's that are on their way from one server to the other.
    moving: AtomicU64,
}

#[derive(Debug)]
struct Owned {
    leases: Bitmap,
    count: AtomicU64,
}

impl PoolSet {
    /// Checks the pools and builds their maps.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn new(configs: Vec<PoolConfig>) -> Result<Self, PoolError> {
        Self::with_dense_max(configs, DENSE_LEASES_MAX)
    }

    /// As [`PoolSet::new`], with another limit (at most [`DENSE_LEASES_MAX`]) from which on pools
    /// are sparse.
    ///
    /// # Errors
    /// The first thing that is wrong with the pools.
    pub fn with_dense_max(configs: Vec<PoolConfig>, dense_max: u32) -> Result<Self, PoolError> {
        if configs.len() > usize::from(u16::MAX) {
            return Err(PoolError::TooManyPools(configs.len()));
        }
        let dense_max = dense_max.min(DENSE_LEASES_MAX);
        let pools: Vec<_> = configs
            .into_iter()
            .enumerate()
            .map(|(number, config)| Pool::new(number, config, dense_max))
            .collect::<Result<_, _>>()?;
        let mut sorted: Vec<_> =
            (0..).zip(&pools).map(|(id, pool)| (pool.first, pool.last, PoolId(id))).collect();
        sorted.sort_unstable();
        for pair in sorted.windows(2) {
            let ((_, last, a), (first, _, b)) = (pair[0], pair[1]);
            if first <= last {
                let (pool, other) = (usize::from(a.0.min(b.0)), usize::from(a.0.max(b.0)));
                return Err(PoolError::Overlap { pool, other, at: first.into() });
            }
        }
        Ok(Self { pools, sorted })
    }

    /// The pool that the lease belongs to, if it is one of an association of this kind.
    #[must_use]
    pub fn find(&self, lease: Lease, kind: IaKind) -> Option<PoolId> {
        let id = self.find_lease(lease)?;
        let is_prefix =
            matches!(self.pools[usize::from(id.0)].config.range, PoolRange::Prefixes { .. });
        (is_prefix == (kind == IaKind::Pd)).then_some(id)
    }

    /// The pool that the lease belongs to.
    pub(crate) fn find_lease(&self, lease: Lease) -> Option<PoolId> {
        let bits = lease.bits();
        let after = self.sorted.partition_point(|&(first, ..)| first <= bits);
        let (.., id) = *self.sorted.get(after.checked_sub(1)?)?;
        self.pools[usize::from(id.0)].contains(lease).then_some(id)
    }

    /// How a pool was configured.
    ///
    /// # Panics
    /// For an id that is not of this set.
    #[must_use]
    pub fn config(&self, id: PoolId) -> &PoolConfig {
        &self.pool(id).config
    }

    /// Number of leases that could ever be given out by this server or its partner; `u64::MAX`
    /// stands for that and more.
    #[must_use]
    pub fn capacity(&self, id: PoolId) -> u64 {
        self.pool(id).capacity
    }

    /// Number of leases that this server may give out now.
    #[must_use]
    pub fn available(&self, id: PoolId) -> u64 {
        self.pool(id).counts.available.load(Ordering::Relaxed)
    }

    /// Number of leases that have a binding of any status.
    #[must_use]
    pub fn in_use(&self, id: PoolId) -> u64 {
        self.pool(id).counts.in_use.load(Ordering::Relaxed)
    }

    /// All pools.
    pub fn ids(&self) -> impl Iterator<Item = PoolId> + use<> {
        (0..u16::try_from(self.pools.len()).expect("checked by new")).map(PoolId)
    }

    /// The pool that the lease belongs to, and its place there.
    pub(crate) fn locate(&self, lease: Lease) -> Option<(&Pool, u128)> {
        let pool = self.pool(self.find_lease(lease)?);
        Some((pool, pool.index(lease)?))
    }

    /// The pools that share addresses with a lease, and which of their leases do: first and last.
    pub(crate) fn overlapping(&self, lease: Lease) -> impl Iterator<Item = (&Pool, u128, u128)> {
        let (first, last) = strays::range(lease);
        let from = self.sorted.partition_point(|&(_, pool_last, _)| pool_last < first);
        self.sorted[from..].iter().take_while(move |pool| pool.0 <= last).map(move |&(.., id)| {
            let pool = self.pool(id);
            let index = |bits: u128| (bits - pool.first) >> pool.step_log2;
            (pool, index(first.max(pool.first)), index(last.min(pool.last)))
        })
    }

    pub(crate) fn pool(&self, id: PoolId) -> &Pool {
        &self.pools[usize::from(id.0)]
    }
}

impl Pool {
    fn new(number: usize, config: PoolConfig, dense_max: u32) -> Result<Self, PoolError> {
        let (first, last, step_log2, lease_len) = check_range(number, config.range)?;
        let size = ((last - first) >> step_log2) + 1;
        let is_prefix = lease_len != 128;
        let pair = config.ownership != Ownership::Sole;
        let dense = u32::try_from(size).ok().filter(|size| *size <= dense_max);
        if is_prefix && pair && dense.is_none() {
            return Err(PoolError::TooManyPrefixes { pool: number, prefixes: size });
        }
        let usable = |parities: &[u128]| {
            let count =
                if is_prefix { size } else { reserved::count_usable(first, last, parities) };
            u64::try_from(count).unwrap_or(u64::MAX)
        };
        let capacity = usable(&[0, 1]);
        if capacity == 0 {
            return Err(PoolError::Empty { pool: number, first: first.into(), last: last.into() });
        }
        let available = match config.ownership {
            Ownership::Sole => capacity,
            Ownership::Primary => usable(&[1]),
            Ownership::Secondary if is_prefix => 0,
            Ownership::Secondary => usable(&[0]),
        };
        let mut pool = Self {
            config,
            first,
            last,
            size,
            step_log2,
            lease_len,
            capacity,
            free: None,
            owners: dense.filter(|_| is_prefix && pair).map(Owners::new),
            counts: Alone(Counts {
                available: AtomicU64::new(available),
                in_use: AtomicU64::new(0),
            }),
        };
        if let Some(len) = dense {
            let free = Bitmap::from_words(len, |word| pool.mine_of_word(word));
            assert_eq!(free.count(), available, "available leases of pool {number}");
            pool.free = Some(free);
        }
        Ok(pool)
    }

    /// [`Pool::is_mine`] of 64 leases, from 64 times `word` on. Nearly always all of them are usable,
    /// and a large pool has hundreds of thousands of words.
    fn mine_of_word(&self, word: u32) -> u64 {
        let first = u128::from(word) * 64;
        let end = (first + 64).min(self.size);
        let is_address = self.lease_len == 128;
        let (from, to) = (self.first + first, self.first + end - 1);
        let all_usable = || reserved::count_usable(from, to, &[0, 1]) == end - first;
        match self.config.ownership {
            Ownership::Sole if !is_address || all_usable() => u64::MAX,
            _ => (first..end)
                .filter(|index| self.is_mine(*index))
                .fold(0, |mine, index| mine | 1 << (index - first)),
        }
    }

    pub(crate) fn ownership(&self) -> Ownership {
        self.config.ownership
    }

    pub(crate) fn is_dense(&self) -> bool {
        self.free.is_some()
    }

    fn contains(&self, lease: Lease) -> bool {
        self.index(lease).is_some()
    }

    /// The lease's place in the pool.
    pub(crate) fn index(&self, lease: Lease) -> Option<u128> {
        let bits = lease.bits();
        let inside = lease.prefix_len == self.lease_len && self.first <= bits && bits <= self.last;
        let index = bits.wrapping_sub(self.first) >> self.step_log2;
        (inside && self.lease(index).bits() == bits).then_some(index)
    }

    pub(crate) fn lease(&self, index: u128) -> Lease {
        let address = Ipv6Addr::from_bits(self.first + (index << self.step_log2));
        Lease { address, prefix_len: self.lease_len }
    }

    /// Whether this server may give out the lease when nobody has it.
    pub(crate) fn is_mine(&self, index: u128) -> bool {
        if self.lease_len == 128 {
            let address = self.first + index;
            return !reserved::is_reserved(address)
                && match self.config.ownership {
                    Ownership::Sole => true,
                    Ownership::Primary => address & 1 == 1,
                    Ownership::Secondary => address & 1 == 0,
                };
        }
        match self.config.ownership {
            Ownership::Sole => true,
            Ownership::Primary => {
                let owners = self.owners.as_ref();
                owners.is_none_or(|owners| owners.primary.leases.contains(dense_index(index)))
            }
            Ownership::Secondary => self.is_backup(index),
        }
    }

    /// Whether prefixes of this pool can be the secondary's.
    pub(crate) fn has_backup(&self) -> bool {
        self.owners.is_some()
    }

    /// Whether a free prefix is the secondary's.
    pub(crate) fn is_backup(&self, index: u128) -> bool {
        let owners = self.owners.as_ref();
        owners.is_some_and(|owners| owners.secondary.leases.contains(dense_index(index)))
    }

    /// The first free prefix of the primary's, or of the secondary's, at or after the place.
    pub(crate) fn next_owned(&self, secondary: bool, place: u32) -> Option<u128> {
        let owners = self.owners.as_ref()?;
        let owned = if secondary { &owners.secondary } else { &owners.primary };
        owned.leases.first_from(place).map(u128::from)
    }

    /// Number of free prefixes of the primary's and of the secondary's, without those that are on
    /// their way.
    pub(crate) fn balance(&self) -> (u64, u64) {
        let Some(owners) = &self.owners else { return (0, 0) };
        let moving = owners.moving.load(Ordering::Relaxed);
        let [primary, secondary] =
            [&owners.primary, &owners.secondary].map(|owned| owned.count.load(Ordering::Relaxed));
        (primary, secondary.saturating_sub(moving))
    }

    /// Number of prefixes that are on their way.
    pub(crate) fn moving(&self) -> u64 {
        self.owners.as_ref().map_or(0, |owners| owners.moving.load(Ordering::Relaxed))
    }

    /// Counts a prefix of the secondary's that begins or ends to be on its way.
    pub(crate) fn count_moving(&self, more: bool) {
        match (&self.owners, more) {
            (Some(owners), true) => _ = owners.moving.fetch_add(1, Ordering::Relaxed),
            (Some(owners), false) => _ = owners.moving.fetch_sub(1, Ordering::Relaxed),
            (None, _) => {}
        }
    }

    /// Number of leases, usable or not.
    pub(crate) fn size(&self) -> u128 {
        self.size
    }

    /// Whether the lease is available.
    pub(crate) fn is_free(&self, index: u128) -> bool {
        let free = self.free.as_ref().expect("only dense pools know without the lease index");
        free.contains(dense_index(index))
    }

    /// Says whose a prefix is when it is free. Only for a prefix that nobody can claim at this
    /// moment: it has been claimed, or it is not this server's.
    pub(crate) fn set_backup(&self, index: u128, to_secondary: bool) {
        if let Some(owners) = &self.owners {
            let index = dense_index(index);
            owners.primary.set(index, !to_secondary);
            owners.secondary.set(index, to_secondary);
        }
    }

    /// Says that a prefix has a binding, so that it is nobody's. Only while the lease's name is
    /// locked and it is in the index.
    pub(crate) fn set_bound(&self, index: u128) {
        if let Some(owners) = &self.owners {
            let index = dense_index(index);
            owners.primary.set(index, false);
            owners.secondary.set(index, false);
        }
    }

    /// Dense pools: takes the lease at `index` if it is available.
    pub(crate) fn claim(&self, index: u128) -> bool {
        let free = self.free.as_ref().expect("only dense pools are claimed by index");
        let claimed = free.remove(dense_index(index));
        if claimed {
            self.counts.available.fetch_sub(1, Ordering::Relaxed);
        }
        claimed
    }

    /// Dense pools: the first available lease at or after the place, round the end.
    pub(crate) fn next_free(&self, place: u32) -> Option<u128> {
        self.free.as_ref().and_then(|free| free.next(place)).map(u128::from)
    }

    /// Dense pools: asks for the memory that tells what is free from the place of a hash on.
    pub(crate) fn fetch_place(&self, hash: u128) {
        if let Some(free) = &self.free {
            free.fetch(dense_index(self.place(hash)));
        }
    }

    /// Makes a lease that has no binding available, if it is this server's.
    pub(crate) fn put_back(&self, index: u128) {
        if !self.is_mine(index) {
            return;
        }
        // A bitmap forgives being told twice, as happens during a restore.
        if self.free.as_ref().is_none_or(|free| free.insert(dense_index(index))) {
            self.counts.available.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes a lease that got a binding without being claimed unavailable.
    pub(crate) fn take_out(&self, index: u128) {
        if self.is_dense() {
            self.claim(index);
        } else if self.is_mine(index) {
            self.counts.available.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Counts bindings.
    pub(crate) fn count_in_use(&self, more: bool) {
        if more {
            self.counts.in_use.fetch_add(1, Ordering::Relaxed);
        } else {
            self.counts.in_use.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Turns a hash into a place.
    pub(crate) fn place(&self, hash: u128) -> u128 {
        scale(hash, self.size)
    }

    /// Turns a hash into a place of this server's part of the pool, reserved ones included.
    pub(crate) fn place_of_mine(&self, hash: u128) -> u128 {
        let skip = match self.config.ownership {
            Ownership::Primary if self.lease_len == 128 => (self.first & 1) ^ 1,
            Ownership::Secondary if self.lease_len == 128 => self.first & 1,
            _ => return self.place(hash),
        };
        skip + 2 * scale(hash, (self.size - skip).div_ceil(2))
    }
}

impl Owners {
    /// All `len` are the primary's.
    fn new(len: u32) -> Self {
        let primary = Bitmap::from_words(len, |_| u64::MAX);
        Self {
            primary: Owned { leases: primary, count: AtomicU64::new(len.into()) },
            secondary: Owned { leases: Bitmap::new(len), count: AtomicU64::new(0) },
            moving: AtomicU64::new(0),
        }
    }
}

impl Owned {
    fn set(&self, index: u32, owned: bool) {
        if owned {
            if self.leases.insert(index) {
                self.count.fetch_add(1, Ordering::Relaxed);
            }
        } else if self.leases.remove(index) {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A number below `size` from a hash.
fn scale(hash: u128, size: u128) -> u128 {
    match u64::try_from(size) {
        Ok(_) => ((hash >> 64) * size) >> 64,
        Err(_) => hash % size,
    }
}

/// A place in a dense pool.
pub(crate) fn dense_index(index: u128) -> u32 {
    u32::try_from(index).expect("a dense pool has at most 2^24 leases")
}

/// First and last address, step and lease length of a range.
fn check_range(pool: usize, range: PoolRange) -> Result<(u128, u128, u32, u8), PoolError> {
    let (first, last, step_log2, lease_len) = match range {
        PoolRange::Addresses { first, last } => {
            if last < first {
                return Err(PoolError::Backwards { pool, first, last });
            }
            (first.to_bits(), last.to_bits(), 0, 128)
        }
        PoolRange::Prefixes { prefix, prefix_len, delegated_len } => {
            if prefix_len == 0 || delegated_len < prefix_len || delegated_len > 127 {
                return Err(PoolError::Length { pool, prefix_len, delegated_len });
            }
            let host_bits = u128::MAX >> prefix_len;
            let bits = prefix.to_bits();
            if bits & host_bits != 0 {
                let network = (bits & !host_bits).into();
                return Err(PoolError::HostBits { pool, prefix, prefix_len, network });
            }
            (bits, bits | host_bits, u32::from(128 - delegated_len), delegated_len)
        }
    };
    // ::/127, fe80::/10, ff00::/8.
    let unusable = [(0, 1), (0xfe80 << 112, (0xfec0 << 112) - 1), (0xff << 120, u128::MAX)];
    if unusable.iter().any(|&(from, to)| first <= to && from <= last) {
        return Err(PoolError::NotUnicast { pool, first: first.into(), last: last.into() });
    }
    Ok((first, last, step_log2, lease_len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(first: &str, last: &str, ownership: Ownership) -> PoolConfig {
        let range =
            PoolRange::Addresses { first: first.parse().unwrap(), last: last.parse().unwrap() };
        PoolConfig { range, ownership }
    }

    fn prefixes(prefix: &str, prefix_len: u8, delegated_len: u8) -> PoolConfig {
        let prefix = prefix.parse().unwrap();
        let range = PoolRange::Prefixes { prefix, prefix_len, delegated_len };
        PoolConfig { range, ownership: Ownership::Sole }
    }

    fn error(configs: &[PoolConfig]) -> String {
        PoolSet::new(configs.to_vec()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_said() {
        let sole = Ownership::Sole;
        let ok = addresses("2001:db8::1:0", "2001:db8::1:ff", sole);
        let cases: &[(&[PoolConfig], &str)] = &[
            (&[addresses("2001:db8::9", "2001:db8::1", sole)], "comes before"),
            (&[ok, prefixes("2001:db8:1::", 48, 47)], "pool 1: prefixes of length 47 cannot"),
            (&[prefixes("2001:db8:1::", 48, 128)], "from 48 to 127"),
            (&[prefixes("2001:db8:1::", 0, 64)], "out of a /0"),
            (&[prefixes("2001:db8:1::", 129, 130)], "out of a /129"),
            (&[prefixes("2001:db8:1:8::", 48, 56)], "write 2001:db8:1::"),
            (&[addresses("::1", "::1", sole)], "loopback"),
            (&[addresses("fe80::1", "fe80::2", sole)], "link-local"),
            (&[addresses("2000::", "ffff::", sole)], "multicast"),
            (&[addresses("2001:db8::", "2001:db8::", sole)], "only reserved"),
            (&[addresses("2001:db8::200:5eff:fe00:1", "2001:db8::200:5eff:fe00:9", sole)], "5453"),
            (&[ok, addresses("2001:db8::1:80", "2001:db8::2:0", sole)], "pools 0 and 1 overlap"),
            (&[ok, prefixes("2001:db8::", 48, 56)], "overlap at 2001:db8::1:0"),
            (&[prefixes("2001:db8:2::", 48, 56), prefixes("2001:db8:2::", 48, 64)], "overlap"),
        ];
        for (configs, part) in cases {
            let error = error(configs);
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
        let mut large = prefixes("2001:db8::", 32, 60);
        assert!(PoolSet::new(vec![large]).is_ok());
        large.ownership = Ownership::Primary;
        assert!(error(&[large]).contains("at most 16777216"));
        let many = vec![ok; 65_536];
        assert!(error(&many).contains("65536 pools"));
    }

    #[test]
    fn finds_the_pool_of_a_lease() {
        let set = PoolSet::new(vec![
            prefixes("2001:db8:1::", 48, 56),
            addresses("2001:db8::10", "2001:db8::1f", Ownership::Sole),
        ])
        .unwrap();
        let find =
            |text: &str, len, kind| set.find(Lease::prefix(text.parse().unwrap(), len), kind);
        assert_eq!(find("2001:db8::10", 128, IaKind::Na), Some(PoolId(1)));
        assert_eq!(find("2001:db8::1f", 128, IaKind::Ta), Some(PoolId(1)));
        assert_eq!(find("2001:db8::10", 128, IaKind::Pd), None);
        assert_eq!(find("2001:db8::f", 128, IaKind::Na), None);
        assert_eq!(find("2001:db8::20", 128, IaKind::Na), None);
        assert_eq!(find("2001:db8:1:ff00::", 56, IaKind::Pd), Some(PoolId(0)));
        assert_eq!(find("2001:db8:1:ff80::", 56, IaKind::Pd), None);
        assert_eq!(find("2001:db8:1:ff00::", 60, IaKind::Pd), None);
        assert_eq!(find("2001:db8:1:ff00::", 128, IaKind::Na), None);
        assert_eq!(find("2001:db8:2::", 56, IaKind::Pd), None);
        assert_eq!(find("::", 56, IaKind::Pd), None);
        assert_eq!(set.ids().map(|id| set.capacity(id)).collect::<Vec<_>>(), [256, 16]);
    }

    #[test]
    fn counts_know_parity_and_reserved_identifiers() {
        for (ownership, available) in
            [(Ownership::Sole, 31), (Ownership::Primary, 16), (Ownership::Secondary, 15)]
        {
            let set = PoolSet::new(vec![addresses("2001:db8::", "2001:db8::1f", ownership)]);
            let set = set.unwrap();
            assert_eq!(set.capacity(PoolId(0)), 31);
            assert_eq!(set.available(PoolId(0)), available);
            let end = "2001:db8:0:1:ffff:ffff:ffff:ffff";
            let set = PoolSet::new(vec![addresses("2001:db8:0:1::", end, ownership)]).unwrap();
            let capacity = u64::MAX - (1 << 24) - 128;
            assert_eq!(set.capacity(PoolId(0)), capacity);
            let odd = (1 << 63) - (1 << 23) - 64;
            let expected = match ownership {
                Ownership::Sole => capacity,
                Ownership::Primary => odd,
                Ownership::Secondary => capacity - odd,
            };
            assert_eq!(set.available(PoolId(0)), expected);
        }
    }

    #[test]
    fn own_places_have_the_own_parity_and_cover_the_pool() {
        for first in ["2001:db8::10", "2001:db8::11"] {
            for last in ["2001:db8::20", "2001:db8::21"] {
                for ownership in [Ownership::Sole, Ownership::Primary, Ownership::Secondary] {
                    let config = addresses(first, last, ownership);
                    let pool = Pool::new(0, config, 0).unwrap();
                    let mut places: Vec<_> = (0..1 << 12)
                        .map(|i| pool.place_of_mine(i << 116))
                        .inspect(|place| assert!(pool.is_mine(*place)))
                        .collect();
                    places.sort_unstable();
                    places.dedup();
                    assert_eq!(places.len() as u64, pool.counts.available.load(Ordering::Relaxed));
                }
            }
        }
    }
}
