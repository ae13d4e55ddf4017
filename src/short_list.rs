//! Lists of questions and answers: one that needs no allocation while it is short, as nearly all are, and texts wherever
//! they are kept.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// Up to `N` entries in place, any number beyond that on the heap. Covariant in `T`.
#[derive(Clone)]
pub struct ShortList<T, const N: usize>(Entries<T, N>);

#[derive(Clone)]
enum Entries<T, const N: usize> {
    Empty,
    /// So many of the entries count; the others are copies of some.
    InPlace(u8, [T; N]),
    OnHeap(Vec<T>),
}

impl<T: Copy, const N: usize> ShortList<T, N> {
    /// The list without entries.
    #[must_use]
    pub const fn new() -> Self {
        Self(Entries::Empty)
    }

    /// Appends an entry.
    #[inline]
    pub fn push(&mut self, entry: T) {
        match &mut self.0 {
            Entries::Empty if N > 0 => self.0 = Entries::InPlace(1, [entry; N]),
            Entries::InPlace(count, entries) => match entries.get_mut(usize::from(*count)) {
                Some(place) if *count < u8::MAX => {
                    *place = entry;
                    *count += 1;
                }
                _ => self.push_on_heap(entry),
            },
            Entries::OnHeap(entries) => entries.push(entry),
            Entries::Empty => self.push_on_heap(entry),
        }
    }

    /// Puts an entry before the one at a position, or to the end if there is none.
    pub fn insert(&mut self, at: usize, entry: T) {
        self.push(entry);
        if let Some(from @ [_, ..]) = self.get_mut(at..) {
            from.rotate_right(1);
        }
    }

    #[cold]
    fn push_on_heap(&mut self, entry: T) {
        let mut entries = Vec::with_capacity(4 * N.max(1));
        entries.extend_from_slice(self);
        entries.push(entry);
        self.0 = Entries::OnHeap(entries);
    }
}

impl<T, const N: usize> Deref for ShortList<T, N> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match &self.0 {
            Entries::Empty => &[],
            Entries::InPlace(count, entries) => entries.get(..usize::from(*count)).unwrap_or_default(),
            Entries::OnHeap(entries) => entries,
        }
    }
}

impl<T, const N: usize> DerefMut for ShortList<T, N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Entries::Empty => &mut [],
            Entries::InPlace(count, entries) => entries.get_mut(..usize::from(*count)).unwrap_or_default(),
            Entries::OnHeap(entries) => entries,
        }
    }
}

impl<T, const N: usize> Default for ShortList<T, N> {
    fn default() -> Self {
        Self(Entries::Empty)
    }
}

impl<T: Copy, const N: usize> Extend<T> for ShortList<T, N> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, entries: I) {
        entries.into_iter().for_each(|entry| self.push(entry));
    }
}

impl<T: Copy, const N: usize> FromIterator<T> for ShortList<T, N> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Self {
        let mut list = Self::new();
        list.extend(entries);
        list
    }
}

impl<'l, T, const N: usize> IntoIterator for &'l ShortList<T, N> {
    type Item = &'l T;
    type IntoIter = std::slice::Iter<'l, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for ShortList<T, N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

impl<T: PartialEq, const N: usize> PartialEq for ShortList<T, N> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq, const N: usize> Eq for ShortList<T, N> {}

/// Texts in order, borrowed from whoever owns them.
#[derive(Clone, Copy, Debug)]
pub enum TextsRef<'a> {
    /// Of a message.
    Owned(&'a [String]),
    /// Of the bytes of a message.
    Borrowed(&'a [&'a str]),
}

impl<'a> TextsRef<'a> {
    /// The texts in order.
    pub fn iter(self) -> impl Iterator<Item = &'a str> + Clone {
        let (owned, borrowed) = match self {
            Self::Owned(list) => (list, &[][..]),
            Self::Borrowed(list) => (&[][..], list),
        };
        owned.iter().map(String::as_str).chain(borrowed.iter().copied())
    }

    /// How many there are.
    #[must_use]
    pub const fn len(self) -> usize {
        match self {
            Self::Owned(list) => list.len(),
            Self::Borrowed(list) => list.len(),
        }
    }

    /// Returns `true` if there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// A copy of them.
    #[must_use]
    pub fn to_vec(self) -> Vec<String> {
        self.iter().map(str::to_owned).collect()
    }
}

impl Default for TextsRef<'_> {
    fn default() -> Self {
        Self::Borrowed(&[])
    }
}

impl<'a, L: AsRef<[String]> + ?Sized> From<&'a L> for TextsRef<'a> {
    fn from(list: &'a L) -> Self {
        Self::Owned(list.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_what_was_pushed_in_place_and_on_the_heap() {
        fn check<const N: usize>() {
            for count in 0..=300_usize {
                let list: ShortList<usize, N> = (0..count).collect();
                assert_eq!(*list, *(0..count).collect::<Vec<_>>(), "{N}");
                assert_eq!(matches!(list.0, Entries::OnHeap(_)), count > N.min(255), "{count} of {N}");
                assert!(list == list.clone() && list.iter().eq(&list));
            }
        }
        check::<0>();
        check::<1>();
        check::<8>();
        check::<280>();
    }

    #[test]
    fn an_entry_is_put_before_the_one_of_its_position_and_what_is_there_can_be_changed() {
        fn check<const N: usize>() {
            for count in 0..8_usize {
                for at in 0..=count + 1 {
                    let mut list: ShortList<usize, N> = (0..count).collect();
                    let mut expected: Vec<_> = (0..count).collect();
                    list.insert(at, 100);
                    expected.insert(at.min(count), 100);
                    assert_eq!(*list, *expected, "{count} of {N} at {at}");
                    list.iter_mut().for_each(|entry| *entry += 1);
                    expected.iter_mut().for_each(|entry| *entry += 1);
                    assert_eq!(*list, *expected);
                }
            }
        }
        check::<0>();
        check::<1>();
        check::<4>();
    }

    #[test]
    fn texts_are_the_same_wherever_they_are_kept() {
        for count in 0..3 {
            let owned = vec!["a".to_owned(); count];
            let borrowed = vec!["a"; count];
            for texts in [TextsRef::from(&owned), TextsRef::Borrowed(&borrowed)] {
                assert_eq!((texts.len(), texts.is_empty()), (count, count == 0));
                assert!(texts.iter().eq(borrowed.iter().copied()) && texts.to_vec() == owned);
            }
        }
    }

    /// Compiles only if the list is covariant: text that lives longer may be used where a shorter life is enough.
    #[test]
    fn a_list_of_static_text_is_one_of_shorter_text() {
        fn same<'a>(list: ShortList<&'static str, 2>, _: &'a str) -> ShortList<&'a str, 2> {
            list
        }
        let own = String::from("b");
        let mut list = same(["a"].into_iter().collect(), &own);
        list.push(&own);
        assert_eq!(*list, ["a", "b"]);
    }
}
