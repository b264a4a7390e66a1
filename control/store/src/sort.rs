//! Sorting in short pieces.

use crate::priority;

/// Items sorted, or merged, between two moments of giving way: some 50 us of work.
const PIECE: usize = 1024;

/// Sorts as [`slice::sort_unstable`] does, and gives way to others in between unless in a hurry:
/// millions of leases would else hold up the threads that answer clients, where they share a processor.
pub(crate) fn sort<T: Copy + Ord>(mut items: Vec<T>, in_a_hurry: bool) -> Vec<T> {
    for piece in items.chunks_mut(PIECE) {
        if !in_a_hurry {
            priority::give_way();
        }
        piece.sort_unstable();
    }
    let mut run = PIECE;
    let mut merged = Vec::with_capacity(if items.len() > run { items.len() } else { 0 });
    while run < items.len() {
        merged.clear();
        for pair in items.chunks(2 * run) {
            let (left, right) = pair.split_at(run.min(pair.len()));
            merge(left, right, &mut merged, in_a_hurry);
        }
        std::mem::swap(&mut items, &mut merged);
        run *= 2;
    }
    items
}

fn merge<T: Copy + Ord>(mut left: &[T], mut right: &[T], out: &mut Vec<T>, in_a_hurry: bool) {
    while let (Some(first), Some(second)) = (left.first(), right.first()) {
        if !in_a_hurry && out.len().is_multiple_of(PIECE) {
            priority::give_way();
        }
        if first <= second {
            out.push(*first);
            left = &left[1..];
        } else {
            out.push(*second);
            right = &right[1..];
        }
    }
    out.extend_from_slice(left);
    out.extend_from_slice(right);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn it_sorts_whatever_the_length() {
        let mut random = Random::new(3);
        for len in [0, 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE - 1, 7 * PIECE + 5, 16 * PIECE] {
            let items: Vec<u64> = (0..len).map(|_| random.below(3000)).collect();
            let mut expected = items.clone();
            expected.sort_unstable();
            assert_eq!(sort(items, false), expected, "{len}");
        }
    }
}
