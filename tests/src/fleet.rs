//! A Data Center of several agents.

use std::ops::{Deref, DerefMut};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::netlab::Lab;
use crate::patience::{LATER, eventually};

/// What a fleet's Data Center is called.
pub const DATA_CENTER: &str = "north";

/// Agents `pve-1` to `pve-N` in one Data Center, `pve-1` its founder. It reads as a slice of them.
#[derive(Debug)]
pub struct Fleet(Vec<Agent>);

impl Fleet {
    /// Starts `n` agents, founds with the first, and lets the others join by one token, all at
    /// once. Returns when all see all alive.
    pub fn found(n: usize) -> Self {
        Self::found_of((1..=n).map(|i| Agent::named(&format!("pve-{i}"))).collect())
    }

    /// As [`Fleet::found`], with an agent on every host of a lab.
    pub fn found_in(lab: &Lab) -> Self {
        Self::found_of((0..lab.hosts()).map(|host| lab.agent(host)).collect())
    }

    /// As [`Fleet::found`], of these agents, which do not run yet.
    pub fn found_of(agents: Vec<Agent>) -> Self {
        let fleet = Self::start_of(agents);
        fleet[0].create(DATA_CENTER);
        let token = fleet[0].invite(json!({"uses": "any"}));
        fleet.join_all(&token);
        fleet.all_see_all();
        fleet
    }

    /// Starts `n` agents that are standalone.
    pub fn start(n: usize) -> Self {
        Self::start_of((1..=n).map(|i| Agent::named(&format!("pve-{i}"))).collect())
    }

    /// As [`Fleet::start`], of these agents.
    pub fn start_of(mut agents: Vec<Agent>) -> Self {
        agents.iter_mut().for_each(Agent::spawn);
        agents.iter_mut().for_each(Agent::ready);
        Self(agents)
    }

    /// Lets all but the first join with this token, at the same time.
    pub fn join_all(&self, token: &str) {
        thread::scope(|scope| {
            for agent in &self.0[1..] {
                scope.spawn(move || {
                    if let Err(failure) = agent.join(token) {
                        panic!("{} could not join: {failure}", agent.name());
                    }
                });
            }
        });
    }

    /// Waits until every agent sees every other one, and no more, alive.
    #[track_caller]
    pub fn all_see_all(&self) {
        eventually("all see all alive", LATER, || {
            self.each(|agent| {
                let status = agent.client().get("status").unwrap_or_default();
                if status["members"]["alive"] == self.len()
                    && status["members"]["suspect"] == 0
                    && status["members"]["down"] == 0
                {
                    Ok(())
                } else {
                    Err(status["members"].clone())
                }
            })
        });
    }

    /// Waits until all agents but `except` see a member in one of these states.
    #[track_caller]
    pub fn all_see(&self, name: &str, states: &[&str], bound: Duration) {
        eventually(&format!("all see {name} {}", states.join(" or ")), bound, || {
            self.each(|agent| {
                let state = agent.state_of(name);
                if agent.name() == name || states.contains(&state.as_str()) {
                    Ok(())
                } else {
                    Err(json!(state))
                }
            })
        });
    }

    /// Waits until every agent shows this document with these fields.
    #[track_caller]
    pub fn all_read(&self, path: &str, fields: &Value) {
        eventually(&format!("all read {path}"), LATER, || {
            self.each(|agent| {
                let found = agent.fields(path);
                if found == *fields { Ok(()) } else { Err(found) }
            })
        });
    }

    /// Waits until all agents hold the same settings.
    #[track_caller]
    pub fn converged(&self) {
        eventually("all hold the same", LATER, || {
            let first = self[0].digest();
            self.each(|agent| {
                let digest = agent.digest();
                if digest == first && !first.is_empty() { Ok(()) } else { Err(json!(digest)) }
            })
        });
    }

    /// Kills the agents with these indices, in this order.
    pub fn kill(&mut self, indices: &[usize]) {
        indices.iter().for_each(|&i| self.0[i].kill());
    }

    /// Adds an agent that is a member already.
    pub fn push(&mut self, agent: Agent) {
        self.0.push(agent);
    }

    /// Takes an agent out, so that the others are looked at without it.
    pub fn take(&mut self, index: usize) -> Agent {
        self.0.remove(index)
    }

    /// Looks at each agent, and returns the names of those that are not as expected, with what was
    /// seen.
    fn each(&self, look: impl Fn(&Agent) -> Result<(), Value>) -> Result<(), Vec<Value>> {
        let named = |agent: &Agent| look(agent).err().map(|seen| json!([agent.name(), seen]));
        let wrong: Vec<_> = self.0.iter().filter_map(named).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

impl Deref for Fleet {
    type Target = [Agent];

    fn deref(&self) -> &[Agent] {
        &self.0
    }
}

impl DerefMut for Fleet {
    fn deref_mut(&mut self) -> &mut [Agent] {
        &mut self.0
    }
}
