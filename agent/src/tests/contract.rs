//! Every operation answers. The tests walk the table, so that none is left out.

use peerage_proto::api::{
    ApiError, ErrorCode, Item, Large, Listed, Operation, Output, Part, Shape, Streamed, Whole,
    operations,
};

use super::DEADLINE;
use super::agent::Agent;
use super::example::{Examples, example};
use crate::api;
use crate::cli::Client;

#[tokio::test]
async fn every_operation_answers_on_a_member_or_on_a_node_that_belongs_nowhere() {
    macro_rules! each {
        ($($operation:ty),*) => { $(answers::<$operation>().await;)* };
    }
    operations!(each);
}

#[test]
fn no_two_operations_have_one_path_and_method_and_all_that_a_path_names_is_a_field() {
    let mut seen = Vec::new();
    macro_rules! each {
        ($($operation:ty),*) => { $(
            let line = (<$operation>::METHOD.name(), <$operation>::PATH);
            assert!(!seen.contains(&line), "{line:?}");
            seen.push(line);
            let fields = serde_json::to_value(example::<$operation>(&Examples::default())).unwrap();
            for name in <$operation>::PATH.split('/').filter_map(|s| s.strip_prefix('{')) {
                let name = name.trim_start_matches('*').trim_end_matches('}');
                assert!(fields.get(name).is_some(), "{line:?} names {name}");
            }
            for name in <$operation>::QUERY {
                assert!(fields.get(name).is_some(), "{line:?} names {name}");
            }
        )* };
    }
    operations!(each);
    assert!(seen.contains(&("GET", "status")));
}

/// Asks for an operation in a fresh Data Center of two members.
async fn answers<O: Operation<Answer: Asked>>()
where
    api::Agent: api::Serve<O>,
{
    let what = format!("{} {}", O::METHOD.name(), O::PATH);
    let (first, second) = Agent::pair().await;
    let examples = Examples::of(&first, &second).await;
    match ask::<O>(&first, &examples).await {
        // An operation that leads into a Data Center is refused to a member, so a standalone agent
        // is asked.
        Err(error) if error.code == ErrorCode::Refused => {
            let alone = Agent::start().await;
            let answered = ask::<O>(&alone, &examples).await;
            answered.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        }
        answered => drop(answered.unwrap_or_else(|error| panic!("{what}: {error:?}"))),
    }
}

async fn ask<O: Operation<Answer: Asked>>(
    agent: &Agent,
    examples: &Examples,
) -> Result<Output<O>, ApiError> {
    O::Answer::ask::<O>(agent, &example(examples)).await
}

/// An answer that a test can ask for, whatever its shape.
trait Asked: Shape + api::Form {
    async fn ask<O: Operation<Answer = Self>>(
        agent: &Agent,
        operation: &O,
    ) -> Result<Output<O>, ApiError>;
}

macro_rules! called {
    ($($shape:ident of $part:ident),*) => { $(
        impl<T: $part> Asked for $shape<T> {
            async fn ask<O: Operation<Answer = Self>>(
                agent: &Agent,
                operation: &O,
            ) -> Result<Output<O>, ApiError> {
                Client::new(&agent.socket).call(operation).await
            }
        }
    )* };
}
called!(Whole of Part, Large of Part, Listed of Item);

impl<T: Item> Asked for Streamed<T> {
    /// The first item that is told once something happens.
    async fn ask<O: Operation<Answer = Self>>(agent: &Agent, operation: &O) -> Result<T, ApiError> {
        let mut items = Client::new(&agent.socket).follow(operation).await?;
        agent.do_it("settings set storage/nas1 size=3").await;
        let first = tokio::time::timeout(DEADLINE, items.next()).await.expect("an item in time")?;
        match first {
            Some(peerage_proto::api::events::Told::Item(item)) => Ok(item),
            _ => panic!("{} has ended, or begins with a gap", O::PATH),
        }
    }
}
