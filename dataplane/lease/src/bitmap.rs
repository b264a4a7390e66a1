//! A set of leases as a hierarchical bitmap in atomics: the available leases of a dense pool.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::prefetch::prefetch_lines;

/// Words of 64 bits; a set bit of a higher level says that the word below it is not zero.
///
/// The lowest level is the truth, and a claim is one atomic operation on it: no bit is ever given
/// out twice. Summary bits follow it: between the change of a word and that of its summary bit
/// another thread may see the old summary. Such a thread tries the next word (summary says there
/// is something, word is empty) or overlooks a bit for that moment (the other way round); once no
/// thread is between the two, no bit is overlooked:
/// - whoever makes a word nonzero sets its summary bit afterwards;
/// - whoever makes a word zero clears its summary bit, looks at the word again, and sets the
///   summary bit again if the word is no longer zero.
///
/// So the last change of a word from zero to nonzero is followed by setting the summary bit, and
/// each clearing after that is followed by a look that finds the word nonzero. All operations are
/// sequentially consistent for that argument's sake; on x86 they cost the same.
#[derive(Debug)]
pub(crate) struct Bitmap {
    /// Level 0 holds the bits; the last level is a single word.
    levels: Vec<Box<[AtomicU64]>>,
    len: u32,
}

const WORD_BITS: u32 = u64::BITS;

impl Bitmap {
    /// `len` clear bits.
    pub(crate) fn new(len: u32) -> Self {
        let mut levels = Vec::new();
        let mut words = len.max(1);
        loop {
            words = words.div_ceil(WORD_BITS);
            levels.push((0..words).map(|_| AtomicU64::new(0)).collect());
            if words == 1 {
                return Self { levels, len };
            }
        }
    }

    /// `len` bits, of which `word` gives 64 at a time: those from 64 times its argument on. What it
    /// says of bits beyond the last does not matter.
    pub(crate) fn from_words(len: u32, word: impl Fn(u32) -> u64) -> Self {
        let mut bits: Vec<u64> = (0..len.max(1).div_ceil(WORD_BITS)).map(word).collect();
        if let Some(last) = bits.last_mut()
            && (len == 0 || !len.is_multiple_of(WORD_BITS))
        {
            *last &= (1 << (len % WORD_BITS)) - 1;
        }
        let mut levels: Vec<Box<[AtomicU64]>> = Vec::new();
        loop {
            let above: Vec<u64> = bits
                .chunks(WORD_BITS as usize)
                .map(|words| {
                    words.iter().rev().fold(0, |all, word| all << 1 | u64::from(*word != 0))
                })
                .collect();
            let is_last = bits.len() == 1;
            levels.push(bits.into_iter().map(AtomicU64::new).collect());
            if is_last {
                return Self { levels, len };
            }
            bits = above;
        }
    }

    /// Number of set bits, word by word.
    pub(crate) fn count(&self) -> u64 {
        self.levels[0].iter().map(|word| u64::from(word.load(Ordering::SeqCst).count_ones())).sum()
    }

    /// Whether the bit is set.
    pub(crate) fn contains(&self, bit: u32) -> bool {
        let (word, mask) = split(bit);
        self.levels[0][word].load(Ordering::SeqCst) & mask != 0
    }

    /// Asks for the memory of the bit, before it is needed.
    pub(crate) fn fetch(&self, bit: u32) {
        if let Some(word) = self.levels[0].get(split(bit).0) {
            prefetch_lines(word, 1);
        }
    }

    /// Sets the bit; whether it was clear.
    pub(crate) fn insert(&self, bit: u32) -> bool {
        assert!(bit < self.len, "bit {bit} of {}", self.len);
        let (word, mask) = split(bit);
        let before = self.levels[0][word].fetch_or(mask, Ordering::SeqCst);
        if before == 0 {
            self.raise(1, bit / WORD_BITS);
        }
        before & mask == 0
    }

    /// Clears the bit; whether it was set. Of several threads that clear a bit, one gets `true`.
    pub(crate) fn remove(&self, bit: u32) -> bool {
        let (word, mask) = split(bit);
        let before = self.levels[0][word].fetch_and(!mask, Ordering::SeqCst);
        if before & !mask == 0 && before & mask != 0 {
            self.lower(1, bit / WORD_BITS);
        }
        before & mask != 0
    }

    /// The first set bit at or after `start`, else the first one from the beginning.
    pub(crate) fn next(&self, start: u32) -> Option<u32> {
        // A bit that another thread is just changing can be overlooked; look again before saying
        // that there is none.
        for _ in 0..3 {
            if let Some(bit) = self.first_from(start).or_else(|| self.first_from(0)) {
                return Some(bit);
            }
            if self.levels[self.levels.len() - 1][0].load(Ordering::SeqCst) == 0 {
                return None;
            }
        }
        None
    }

    /// The first set bit at or after `start`; one that another thread is just changing can be
    /// overlooked.
    pub(crate) fn first_from(&self, start: u32) -> Option<u32> {
        let mut level = 0;
        // Position in units of the level's bits; everything before it has been seen to be empty.
        let mut at = start;
        loop {
            let word_index = at / WORD_BITS;
            let word = self.levels[level].get(word_index as usize)?;
            let rest = word.load(Ordering::SeqCst) & (u64::MAX << (at % WORD_BITS));
            if rest != 0 {
                at = word_index * WORD_BITS + rest.trailing_zeros();
                if level == 0 {
                    return Some(at);
                }
                level -= 1;
                at *= WORD_BITS;
            } else {
                level += 1;
                if level == self.levels.len() {
                    return None;
                }
                at = word_index + 1;
            }
        }
    }

    /// Sets the summary bit of a word that has become nonzero.
    fn raise(&self, mut level: usize, mut bit: u32) {
        while level < self.levels.len() {
            let (word, mask) = split(bit);
            if self.levels[level][word].fetch_or(mask, Ordering::SeqCst) != 0 {
                return;
            }
            level += 1;
            bit /= WORD_BITS;
        }
    }

    /// Clears the summary bit of a word that has become zero, and puts it back if meanwhile the
    /// word is not.
    fn lower(&self, mut level: usize, mut bit: u32) {
        while level < self.levels.len() {
            let (word, mask) = split(bit);
            let before = self.levels[level][word].fetch_and(!mask, Ordering::SeqCst);
            if self.levels[level - 1][bit as usize].load(Ordering::SeqCst) != 0 {
                self.raise(level, bit);
            }
            if before & !mask != 0 || before & mask == 0 {
                return;
            }
            level += 1;
            bit /= WORD_BITS;
        }
    }
}

fn split(bit: u32) -> (usize, u64) {
    ((bit / WORD_BITS) as usize, 1 << (bit % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::atomic::AtomicU32, thread};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_set(
            len in prop_oneof![1_u32..200, 4000_u32..5000, 262_000_u32..263_000],
            steps in prop::collection::vec((any::<u32>(), 0..4_u8), 1..400),
        ) {
            let bitmap = Bitmap::new(len);
            let mut set = BTreeSet::new();
            for (number, step) in steps {
                // Some steps near each other, some anywhere.
                let bit = if number % 3 == 0 { number / 3 % len.min(70) } else { number % len };
                match step {
                    0 => prop_assert_eq!(bitmap.insert(bit), set.insert(bit)),
                    1 => prop_assert_eq!(bitmap.remove(bit), set.remove(&bit)),
                    2 => {
                        // As a claim does it.
                        let found = bitmap.next(bit);
                        if let Some(found) = found {
                            prop_assert!(bitmap.remove(found));
                        }
                        let expected = set.range(bit..).next().or_else(|| set.first()).copied();
                        prop_assert_eq!(found, expected);
                        expected.map(|bit| set.remove(&bit));
                    }
                    _ => prop_assert_eq!(bitmap.contains(bit), set.contains(&bit)),
                }
            }
        }
    }

    #[test]
    fn from_words_is_as_bit_by_bit() {
        for len in [0, 1, 63, 64, 65, 4095, 4096, 4097, 300_000] {
            for word in [
                |_| u64::MAX,
                |at: u32| 0x8000_0000_dead_beef_u64 << (at % 3),
                |at| u64::from(at == 65),
            ] {
                let whole = Bitmap::from_words(len, word);
                let single = Bitmap::new(len);
                let is_set = |bit: &u32| word(bit / 64) >> (bit % 64) & 1 == 1;
                (0..len).filter(is_set).for_each(|bit| assert!(single.insert(bit)));
                let words = |bitmap: &Bitmap| -> Vec<Vec<u64>> {
                    let load = |word: &AtomicU64| word.load(Ordering::SeqCst);
                    bitmap.levels.iter().map(|level| level.iter().map(load).collect()).collect()
                };
                assert_eq!(words(&whole), words(&single), "{len} bits");
                assert_eq!(whole.count(), (0..len).filter(is_set).count() as u64);
            }
        }
    }

    #[test]
    fn every_bit_is_found_once() {
        for len in [1, 63, 64, 65, 4095, 4096, 4097, 300_000] {
            let bitmap = Bitmap::new(len);
            (0..len).for_each(|bit| assert!(bitmap.insert(bit)));
            let start = len / 3;
            for i in 0..len {
                let bit = bitmap.next((start + i) % len).unwrap();
                assert_eq!(bit, (start + i) % len);
                assert!(bitmap.remove(bit));
            }
            assert_eq!(bitmap.next(0), None);
            assert_eq!(bitmap.next(start), None);
        }
    }

    /// Threads claim and give back over a few words, so that words and summaries become zero and
    /// nonzero all the time. No bit may be held twice, and none may be lost at the end.
    #[test]
    fn threads_neither_lose_nor_double_a_bit() {
        const THREADS: u32 = 8;
        for len in [3, 64, 129, 4200] {
            let bitmap = Bitmap::new(len);
            let held: Vec<_> = (0..len).map(|_| AtomicU32::new(0)).collect();
            // Spread thinly, a few more or less than there are threads.
            let bits: Vec<_> = (0..len).filter(|bit| len < 100 || bit % 40 == 7).collect();
            bits.iter().for_each(|&bit| assert!(bitmap.insert(bit)));
            thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (bitmap, held) = (&bitmap, &held);
                    scope.spawn(move || {
                        let mut random = thread + 1;
                        let mut mine = Vec::new();
                        for _ in 0..40_000 {
                            random = random.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
                            if mine.len() < 3 && random >> 31 == 0 {
                                let Some(bit) = bitmap.next(random % len) else { continue };
                                if bitmap.remove(bit) {
                                    let holders = held[bit as usize].fetch_add(1, Ordering::SeqCst);
                                    assert_eq!(holders, 0, "bit {bit} was claimed twice");
                                    mine.push(bit);
                                }
                            } else if let Some(bit) = mine.pop() {
                                held[bit as usize].fetch_sub(1, Ordering::SeqCst);
                                assert!(bitmap.insert(bit));
                            }
                        }
                        for bit in mine {
                            held[bit as usize].fetch_sub(1, Ordering::SeqCst);
                            assert!(bitmap.insert(bit));
                        }
                    });
                }
            });
            // Found through the summaries, not by looking at each.
            let mut found = Vec::new();
            while let Some(bit) = bitmap.next(0) {
                assert!(bitmap.remove(bit));
                found.push(bit);
            }
            assert_eq!(found, bits);
        }
    }
}
