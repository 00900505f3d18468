//! How the agent serves an operation: [`Serve`], implemented once for each, beside its code.

use std::future::Future;

use peerage_proto::access::Caller;
use peerage_proto::api::events::Told;
use peerage_proto::api::{ApiError, Item, Large, Listed, Operation, Part, Shape, Streamed, Whole};
use tokio::sync::mpsc;

use super::{Due, List};

/// An agent that can be asked for an operation.
///
/// The caller has the right when this is called. The future may be dropped at any await, when the
/// caller hangs up; work that must be finished once it is begun is handed to a task.
pub trait Serve<O: Operation>
where
    O::Answer: Form,
{
    /// Does what is asked for.
    ///
    /// # Errors
    /// Why it was not done, in words for whoever asked.
    fn serve(&self, caller: &Caller, operation: O)
    -> impl Future<Output = Answer<Reply<O>>> + Send;
}

/// A reply, or why there is none.
pub type Answer<T> = Result<T, ApiError>;

/// What the agent returns for an operation.
pub type Reply<O> = <<O as Operation>::Answer as Form>::Reply;

/// How the agent holds an answer of this shape until it is told.
pub trait Form: Shape {
    /// The answer, as far as it is made.
    type Reply: Send;
}

impl<T: Part> Form for Whole<T> {
    type Reply = T;
}

impl<T: Part> Form for Large<T> {
    type Reply = Due<T>;
}

impl<T: Item> Form for Listed<T> {
    type Reply = List<T>;
}

impl<T: Item> Form for Streamed<T> {
    type Reply = Items<T>;
}

/// The steps of a stream, in order. The agent waits for no reader: items that a slow reader misses
/// become a gap, which the stream tells.
pub type Items<T> = mpsc::Receiver<Step<Due<T>>>;

/// One step of a stream: the place to which the stream has come, and what it tells there. A reader
/// that hands the place in again goes on behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step<T> {
    /// The place.
    pub id: String,
    /// What is told; none where there is nothing to tell up to there.
    pub told: Option<Told<T>>,
}
