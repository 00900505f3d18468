//! The side of peerage: agents as in every test; a message is a write, which each agent tells those
//! who watch the settings.

use std::sync::Arc;
use std::time::Duration;

use peerage_tests::client::{Connection, Events};
use peerage_tests::netlab::Namespace;
use peerage_tests::{Agent, Lab, Verdicts};
use serde_json::{Value, json};

use crate::messages::MESSAGE_BYTES;
use crate::side::{Inbox, Side};

/// Agents of peerage on the hosts of a lab.
pub(crate) struct Peerage {
    networks: Vec<Arc<Namespace>>,
    agents: Vec<Agent>,
    /// Connections for questions, by host; none where there was no answer.
    connections: Vec<Option<Connection>>,
    /// How many agents have been made, so that each has a name of its own.
    made: usize,
    /// The token by which agents join.
    token: String,
    /// What agents say of each other, from the first question after the last start of one.
    verdicts: Option<Verdicts>,
}

impl Peerage {
    pub(crate) fn new(lab: &Lab) -> Self {
        let networks: Vec<_> = (0..lab.hosts()).map(|host| lab.host(host).clone()).collect();
        Self {
            agents: (0..lab.hosts()).map(|host| lab.agent(host)).collect(),
            connections: networks.iter().map(|_| None).collect(),
            networks,
            made: 0,
            token: String::new(),
            verdicts: None,
        }
    }

    /// Asks over the connection that stands, or over a new one.
    fn ask(
        &mut self,
        host: usize,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Option<Value> {
        let connection = match self.connections[host].take() {
            Some(connection) => Some(connection),
            None => Connection::open(&self.agents[host].socket()).ok(),
        };
        let mut connection = connection?;
        let answer = connection.ask(method, path, body, &[]).ok()?.success().ok();
        self.connections[host] = Some(connection);
        answer
    }
}

impl Side for Peerage {
    fn name(&self) -> &'static str {
        "peerage"
    }

    fn hosts(&self) -> usize {
        self.agents.len()
    }

    fn fresh(&mut self, host: usize) {
        self.made += 1;
        self.connections[host] = None;
        self.agents[host] =
            Agent::named(&format!("pve-{}", self.made)).in_network(&self.networks[host]);
        self.agents[host].restart();
        if host == 0 {
            self.agents[0].create("bench");
            self.token = self.agents[0].invite(json!({"uses": "any"}));
        }
    }

    fn join(&mut self, host: usize) {
        self.agents[host].join(&self.token).expect("a node with a token joins");
    }

    fn leave(&mut self, host: usize) {
        self.agents[host].cli(&["leave"]).exits(0);
    }

    fn start(&mut self, host: usize) {
        self.connections[host] = None;
        self.verdicts = None;
        self.agents[host].spawn();
    }

    fn kill(&mut self, host: usize) {
        self.agents[host].kill();
    }

    fn stop(&mut self, host: usize) {
        self.agents[host].tell_to_stop();
    }

    fn ended(&mut self, host: usize) {
        self.agents[host].ended();
    }

    fn pid(&self, host: usize) -> u32 {
        self.agents[host].pid()
    }

    fn present(&mut self, host: usize) -> Option<usize> {
        let status = self.ask(host, "GET", "status", None)?;
        let count = |state: &str| status["members"][state].as_u64().unwrap_or(0);
        usize::try_from(count("alive") + count("suspect")).ok()
    }

    fn downs(&mut self) -> usize {
        let agents = &self.agents;
        let verdicts = self.verdicts.get_or_insert_with(|| Verdicts::from_now(agents));
        verdicts.read(agents);
        verdicts.of_kind("down").len()
    }

    fn send(&mut self, host: usize, number: u64) {
        let body = json!({"set": {"number": number, "value": "x".repeat(MESSAGE_BYTES)}});
        let sent = self.ask(host, "PATCH", "settings/bench/message", Some(&body));
        sent.expect("an agent takes a write");
    }

    fn inbox(&mut self, host: usize) -> Box<dyn Inbox> {
        Box::new(Watch(self.agents[host].events("watch?prefix=bench/message")))
    }
}

/// The writes as an agent tells them.
struct Watch(Events);

impl Inbox for Watch {
    fn next(&mut self, bound: Duration) -> Option<u64> {
        self.0.next(bound)?.data["set"]["number"].as_u64()
    }
}
