/// A list with room for `N` items that lives on the stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounded<T, const N: usize> {
    items: [Option<T>; N],
    len: usize,
}

impl<T: Copy, const N: usize> Bounded<T, N> {
    pub(crate) const EMPTY: Self = Self { items: [None; N], len: 0 };

    /// Appends the item, or returns `false` if there is no room.
    pub(crate) fn push(&mut self, item: T) -> bool {
        let Some(slot) = self.items.get_mut(self.len) else { return false };
        *slot = Some(item);
        self.len += 1;
        true
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.items[..self.len].iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_fits() {
        let mut list = Bounded::<u8, 2>::EMPTY;
        assert!(list.push(1) && list.push(2) && !list.push(3));
        assert!(list.iter().eq(&[1, 2]));
    }
}
