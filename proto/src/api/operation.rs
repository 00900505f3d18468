//! What an operation is, and how it answers.

use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::table::InTable;
use super::{BODY_BYTES_MAX, LOOKING_MAX, WRITING_MAX};
use crate::access::{Resource, Right, Verb};

/// The HTTP method of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Looks at something.
    Get,
    /// Does something.
    Post,
    /// Changes what is there.
    Patch,
    /// Takes something away.
    Delete,
}

impl Method {
    /// The word on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether it changes nothing.
    pub const fn only_looks(self) -> bool {
        matches!(self, Self::Get)
    }

    /// Whether requests carry a JSON object in their body.
    pub const fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Patch)
    }
}

/// One operation that an agent can be asked for. It has its line in
/// [`operations!`](super::operations).
pub trait Operation: InTable + Serialize + DeserializeOwned + Send + 'static {
    /// How it answers, and with what: [`Whole`], [`Large`], [`Listed`] or [`Streamed`].
    type Answer: Shape;
    /// Its method.
    const METHOD: Method;
    /// Its path below [`ROOT`](super::ROOT). `{field}` stands for one segment, `{*field}` for all
    /// further segments.
    const PATH: &'static str;
    /// The verb that the caller must have on at least one resource. A caller that has it on none is
    /// refused before the body, which names the resource, is read.
    const VERB: Verb;
    /// The fields that travel in the query although there is a body.
    const QUERY: &'static [&'static str] = &[];
    /// How large the body may be, in bytes.
    const BODY_BYTES_MAX: usize = BODY_BYTES_MAX;

    /// The resource that the operation is about. It is [`Resource::Anywhere`] for an operation
    /// whose answer is [`Listed`] or [`Streamed`], since each item is checked as well, and for one
    /// that has [`parts`](Self::parts).
    fn resource(&self) -> Resource<'_>;

    /// The resources, for an operation that is about several. The caller must have the verb on each
    /// of them.
    fn parts(&self) -> Vec<Resource<'_>> {
        Vec::new()
    }

    /// The right that the caller must have: [`VERB`](Self::VERB) on [`resource`](Self::resource).
    fn right(&self) -> Right<'_> {
        Self::VERB.on(self.resource())
    }

    /// How long an answer may take to begin; an operation that only looks is answered from memory.
    /// A client that has waited longer assumes that the agent hangs.
    fn patience(&self) -> Duration {
        if Self::METHOD.only_looks() { LOOKING_MAX } else { WRITING_MAX }
    }

    /// The HTTP status of this answer. Lists and streams have 200.
    fn status(_output: &Output<Self>) -> u16 {
        200
    }

    /// The stamp of what the answer shows (HTTP header `ETag`), so that a later write can say which
    /// state it has seen. Lists and streams have none.
    fn stamp(_output: &Output<Self>) -> Option<&str> {
        None
    }
}

/// The value that a client reads from an operation's whole answer; of a stream, one item.
pub type Output<O> = <<O as Operation>::Answer as Shape>::Output;

/// How an operation answers.
pub trait Shape: 'static {
    /// The value that a client reads from the whole answer; of a stream, one item.
    type Output: Serialize + DeserializeOwned + Send + 'static;
    /// The kind of this answer, as a value.
    const KIND: Kind;
}

/// The kinds of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`Whole`].
    Whole,
    /// [`Large`].
    Large,
    /// [`Listed`].
    Listed,
    /// [`Streamed`].
    Streamed,
}

/// One value. It is small, or it tells the result of a write and is sent whatever its size.
#[derive(Debug)]
pub struct Whole<T>(PhantomData<T>);

/// One value that may be large. The agent makes it when it has room for it.
#[derive(Debug)]
pub struct Large<T>(PhantomData<T>);

/// A JSON array, written piece by piece.
#[derive(Debug)]
pub struct Listed<T>(PhantomData<T>);

/// Server-sent events, one after the other, without an end of their own unless the operation's
/// fields ask for one. Each event tells a [`Told`](super::events::Told), with the place that a
/// client gives back as `Last-Event-ID` to go on after it.
#[derive(Debug)]
pub struct Streamed<T>(PhantomData<T>);

/// A value that an answer is made of.
pub trait Part: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Part for T {}

/// An item of a list or a stream.
pub trait Item: Part {
    /// The right that the caller must have to be shown the item; `None` where the right for the
    /// operation is enough.
    fn right(&self) -> Option<Right<'_>>;
}

impl<T: Part> Shape for Whole<T> {
    type Output = T;
    const KIND: Kind = Kind::Whole;
}

impl<T: Part> Shape for Large<T> {
    type Output = T;
    const KIND: Kind = Kind::Large;
}

impl<T: Item> Shape for Listed<T> {
    type Output = Vec<T>;
    const KIND: Kind = Kind::Listed;
}

impl<T: Item> Shape for Streamed<T> {
    type Output = T;
    const KIND: Kind = Kind::Streamed;
}

/// An answer with an end, which a client can wait for.
pub trait Ends: Shape {}

impl<T: Part> Ends for Whole<T> {}
impl<T: Part> Ends for Large<T> {}
impl<T: Item> Ends for Listed<T> {}
