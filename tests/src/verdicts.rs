//! What nodes say of each other's life, from some moment on.

use std::fmt;
use std::time::Duration;

use crate::agent::Agent;

/// How long an agent may take to tell what it knows.
const TELLS: Duration = Duration::from_secs(10);

/// One node's word on another one.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The node that says it.
    pub by: String,
    /// The node that it is about.
    pub of: String,
    /// `alive`, `suspect`, `down`, `stopped`.
    pub kind: String,
    /// When, as the agent wrote it.
    pub at: String,
    /// Why.
    pub message: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} says: {}", self.at, self.by, self.message)
    }
}

/// The verdicts of some agents since this was made.
#[derive(Debug)]
pub struct Verdicts {
    /// The last event that was read, by agent.
    read: Vec<Option<String>>,
    all: Vec<Verdict>,
}

impl Verdicts {
    /// Begins with what happens from now on.
    pub fn from_now(agents: &[Agent]) -> Self {
        let mut verdicts = Self { read: vec![None; agents.len()], all: Vec::new() };
        verdicts.read(agents);
        verdicts.all.clear();
        verdicts
    }

    /// Reads what was added since the last time, of the same agents. An agent keeps some thousand
    /// events: where more may happen this must be asked in between.
    ///
    /// # Panics
    /// When an agent does not answer, or no longer keeps the events since the last time.
    #[track_caller]
    pub fn read(&mut self, agents: &[Agent]) -> &[Verdict] {
        for (agent, last) in agents.iter().zip(&mut self.read) {
            let mut events = agent
                .client()
                .events("events?follow=false", last.as_deref())
                .unwrap_or_else(|why| panic!("{} does not tell: {why}", agent.name()));
            while let Some(event) = events.next(TELLS) {
                let word = |field: &str| event.data[field].as_str().unwrap_or_default().to_owned();
                *last = Some(event.id);
                self.all.push(Verdict {
                    by: agent.name().to_owned(),
                    of: word("node"),
                    kind: word("kind"),
                    at: word("at"),
                    message: word("message"),
                });
            }
        }
        &self.all
    }

    /// The verdicts of this kind among those that were read.
    pub fn of_kind(&self, kind: &str) -> Vec<&Verdict> {
        self.all.iter().filter(|verdict| verdict.kind == kind).collect()
    }

    /// Checks that nobody was called down.
    ///
    /// # Panics
    /// When somebody was, with who said so and why.
    #[track_caller]
    pub fn nobody_is_down(&mut self, agents: &[Agent]) {
        self.read(agents);
        let down: Vec<_> = self.of_kind("down").iter().map(ToString::to_string).collect();
        assert!(
            down.is_empty(),
            "{} times a node that lives was called down: {down:#?}",
            down.len()
        );
    }
}
