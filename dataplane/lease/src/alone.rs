//! A value in a cache line of its own.

use std::ops::Deref;

/// What all workers write all the time, kept away from what they only read: who writes takes the whole
/// cache line away from everybody else.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Alone<T>(pub(crate) T);

impl<T> Deref for Alone<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_no_line() {
        let pair = [Alone(1_u8), Alone(2)];
        let [first, second] = pair.each_ref().map(|value| std::ptr::from_ref(value).addr());
        assert_eq!((second - first, first % 64, *pair[1]), (64, 0, 2));
    }
}
