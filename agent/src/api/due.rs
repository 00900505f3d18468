//! Answers that take no room until they are written out.
//!
//! What a node holds lies in memory once, as changes that all share. An answer that is made of it at
//! once is a copy for each who asks, and 60 who did not read theirs took a hundred times the store. So
//! what can be large is seen in one look, which shares the changes, and made item by item, when there
//! is room for it and somebody takes it.

/// Something that is made once there is room for it.
pub struct Due<T> {
    bytes: usize,
    make: Box<dyn FnOnce() -> T + Send>,
}

/// How many bytes something takes that is small, about.
const SMALL: usize = 1024;

impl<T> Due<T> {
    /// What takes so many bytes once it is made, about.
    pub fn new(bytes: usize, make: impl FnOnce() -> T + Send + 'static) -> Self {
        Self { bytes, make: Box::new(make) }
    }

    /// What is there already, since it is small.
    pub fn made(thing: T) -> Self
    where
        T: Send + 'static,
    {
        Self::new(SMALL, move || thing)
    }

    /// How many bytes it takes, about, once it is made.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The thing.
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
    /// These items; until they are made, so many bytes are held for them.
    pub fn new(
        held_bytes: usize,
        items: impl IntoIterator<Item = Due<T>, IntoIter: Send + 'static>,
    ) -> Self {
        Self { held_bytes, items: Box::new(items.into_iter()) }
    }

    /// What is there already, since each is small.
    pub fn made(items: Vec<T>) -> Self
    where
        T: Send + 'static,
    {
        Self::new(items.len() * SMALL, items.into_iter().map(Due::made))
    }

    /// How many bytes are held for it, beside what is held anyway.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// All of it at once, for whoever has the room.
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
