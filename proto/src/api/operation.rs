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
    /// Looks.
    Get,
    /// Does.
    Post,
    /// Changes what is there.
    Patch,
    /// Takes away.
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

/// One thing that can be asked of an agent. It has its line in [`operations!`](super::operations).
pub trait Operation: InTable + Serialize + DeserializeOwned + Send + 'static {
    /// How it answers, and with what: [`Whole`], [`Large`], [`Listed`] or [`Streamed`].
    type Answer: Shape;
    /// Its method.
    const METHOD: Method;
    /// Its path below [`ROOT`](super::ROOT). `{field}` stands for one segment, `{*field}` for all
    /// that follow.
    const PATH: &'static str;
    /// What the caller must be allowed to do, somewhere at least: whoever may do it nowhere is refused
    /// before the body is read, which says where.
    const VERB: Verb;
    /// The fields that travel in the query although there is a body.
    const QUERY: &'static [&'static str] = &[];
    /// How large the body may be, in bytes.
    const BODY_BYTES_MAX: usize = BODY_BYTES_MAX;

    /// To what it is to be done. [`Resource::Anywhere`] is for what is [`Listed`] or [`Streamed`], of
    /// which each item is asked for as well, and for what has [`parts`](Self::parts).
    fn resource(&self) -> Resource<'_>;

    /// Each of the things that it is about, where these are several: then the caller must have the
    /// right on each of them, too.
    fn parts(&self) -> Vec<Resource<'_>> {
        Vec::new()
    }

    /// The right that the caller must have: [`VERB`](Self::VERB) there.
    fn right(&self) -> Right<'_> {
        Self::VERB.on(self.resource())
    }

    /// How long an answer may take to begin: what only looks is answered from memory. A client that
    /// has waited so long takes the agent for one that hangs.
    fn patience(&self) -> Duration {
        if Self::METHOD.only_looks() { LOOKING_MAX } else { WRITING_MAX }
    }

    /// The HTTP status of this answer. Lists and streams have 200.
    fn status(_output: &Output<Self>) -> u16 {
        200
    }

    /// What the thing is known by, so that a later write can say what it has seen (HTTP header `ETag`). Lists and
    /// streams have none.
    fn stamp(_output: &Output<Self>) -> Option<&str> {
        None
    }
}

/// What a client has of an operation's answer once it has all of it; of a stream, one item.
pub type Output<O> = <<O as Operation>::Answer as Shape>::Output;

/// How an operation answers.
pub trait Shape: 'static {
    /// What a client has once it has all of it; of a stream, one item.
    type Output: Serialize + DeserializeOwned + Send + 'static;
    /// The same as a value.
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

/// One thing, which is small, or is told whatever its size, since it was done.
#[derive(Debug)]
pub struct Whole<T>(PhantomData<T>);

/// One thing that may be large. It is made when there is room for it.
#[derive(Debug)]
pub struct Large<T>(PhantomData<T>);

/// A JSON array, written piece by piece.
#[derive(Debug)]
pub struct Listed<T>(PhantomData<T>);

/// Server-sent events, one after the other, without an end of their own unless the operation's
/// fields ask for one. Each tells [`Told`](super::events::Told), with the place that a client gives
/// back as `Last-Event-ID` to go on behind it.
#[derive(Debug)]
pub struct Streamed<T>(PhantomData<T>);

/// Something that an answer is made of.
pub trait Part: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Part for T {}

/// An item of a list or a stream.
pub trait Item: Part {
    /// What the caller must have to be shown it; `None` where that is what the call itself took.
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
