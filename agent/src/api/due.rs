//! Answers that take no room until they are written out.
//!
//! A node holds its changes in memory once, and all parts share them. An answer that is made of
//! them as a whole is a copy for each caller: 60 callers that did not read theirs once took a
//! hundred times the memory of the store. So an answer that can be large is taken from one look,
//! which shares the changes, and its items are made one by one, when there is room for the item and
//! somebody reads it.

/// A value that is made once there is room for it.
pub struct Due<T> {
    bytes: usize,
    make: Box<dyn FnOnce() -> T + Send>,
}

/// About how many bytes a small value takes.
const SMALL: usize = 1024;

impl<T> Due<T> {
    /// A value that takes about `bytes` bytes once `make` has made it.
    pub fn new(bytes: usize, make: impl FnOnce() -> T + Send + 'static) -> Self {
        Self { bytes, make: Box::new(make) }
    }

    /// A value that exists already, since it is small.
    pub fn made(thing: T) -> Self
    where
        T: Send + 'static,
    {
        Self::new(SMALL, move || thing)
    }

    /// About how many bytes the value takes once it is made.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes the value.
    pub fn make(self) -> T {
        (self.make)()
    }
}

/// A list as it was in one look, whose items are made one after the other.
pub struct List<T> {
    held_bytes: usize,
    items: Box<dyn Iterator<Item = Due<T>> + Send>,
}

impl<T> List<T> {
    /// A list of these items; `held_bytes` bytes are held for them until they are made.
    pub fn new(
        held_bytes: usize,
        items: impl IntoIterator<Item = Due<T>, IntoIter: Send + 'static>,
    ) -> Self {
        Self { held_bytes, items: Box::new(items.into_iter()) }
    }

    /// A list of items that exist already, since each is small.
    pub fn made(items: Vec<T>) -> Self
    where
        T: Send + 'static,
    {
        Self::new(items.len() * SMALL, items.into_iter().map(Due::made))
    }

    /// How many bytes are held for this list, beside what is held anyway.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// All items at once, for a caller that has the room.
    pub fn all(self) -> Vec<T> {
        self.items.map(Due::make).collect()
    }
}

impl<T> IntoIterator for List<T> {
    type Item = Due<T>;
    type IntoIter = Box<dyn Iterator<Item = Due<T>> + Send>;

    fn into_iter(self) -> Self::IntoIter {
        self.items
    }
}
