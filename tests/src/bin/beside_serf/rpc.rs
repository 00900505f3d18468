//! What is needed of Serf's RPC protocol: MessagePack over TCP, each request a header and a body.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use peerage_tests::netlab::Namespace;
use rmp_serde::decode::{Error, ReadReader};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

/// Where an agent answers on its host.
pub(crate) const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 7373);

/// The version of the protocol.
const VERSION: u32 = 1;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection with an agent of Serf.
pub(crate) struct Rpc {
    requests: TcpStream,
    answers: rmp_serde::Deserializer<ReadReader<BufReader<TcpStream>>>,
    next: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    command: &'a str,
    seq: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    error: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Handshake {
    version: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Join<'a> {
    existing: [&'a str; 1],
    replay: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct UserEvent<'a> {
    name: &'a str,
    payload: &'a str,
    coalesce: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Stream<'a> {
    r#type: &'a str,
}

#[derive(Deserialize)]
struct Stats {
    serf: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    name: String,
}

impl Rpc {
    /// Connects with the agent that answers on a host.
    pub(crate) fn open(host: &Namespace) -> io::Result<Self> {
        let address = SocketAddr::from(ADDRESS);
        let requests = host.within(|| TcpStream::connect(address))?;
        requests.set_nodelay(true)?;
        requests.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let answers = rmp_serde::Deserializer::new(BufReader::new(requests.try_clone()?));
        let mut rpc = Self { requests, answers, next: 0 };
        rpc.tell("handshake", &Handshake { version: VERSION })?;
        Ok(rpc)
    }

    /// Joins the agent at this address.
    pub(crate) fn join(&mut self, address: &str) -> io::Result<()> {
        self.tell("join", &Join { existing: [address], replay: false })?;
        self.read::<IgnoredAny>().map(drop)
    }

    /// How many members are neither failed nor gone.
    pub(crate) fn present(&mut self) -> io::Result<usize> {
        self.request("stats")?;
        self.answered()?;
        let stats: Stats = self.read()?;
        let count = |name: &str| stats.serf.get(name).and_then(|text| text.parse::<usize>().ok());
        let [members, failed, left] = ["members", "failed", "left"].map(count);
        let gone = failed.zip(left).map(|(failed, left)| failed + left);
        let present = members.zip(gone).map(|(members, gone)| members.saturating_sub(gone));
        present.ok_or_else(|| malformed("statistics without the members"))
    }

    /// Sends an event to all agents, at once and not merged with others.
    pub(crate) fn send(&mut self, name: &str, payload: &str) -> io::Result<()> {
        self.tell("event", &UserEvent { name, payload, coalesce: false })
    }

    /// Leaves the others for good, and ends the agent.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        self.request("leave")?;
        self.answered()
    }

    /// Asks the agent to tell the events that users send.
    pub(crate) fn follow_events(&mut self) -> io::Result<()> {
        self.tell("stream", &Stream { r#type: "user" })
    }

    /// The name of the next event, once they are followed.
    pub(crate) fn next_event(&mut self, bound: Duration) -> io::Result<String> {
        self.requests.set_read_timeout(Some(bound))?;
        self.answered()?;
        Ok(self.read::<Told>()?.name)
    }

    fn tell(&mut self, command: &str, body: &impl Serialize) -> io::Result<()> {
        self.request(command)?;
        self.write(body)?;
        self.answered()
    }

    fn request(&mut self, command: &str) -> io::Result<()> {
        self.next += 1;
        self.write(&Request { command, seq: self.next })
    }

    fn write(&mut self, what: &impl Serialize) -> io::Result<()> {
        let bytes = rmp_serde::to_vec_named(what).map_err(io::Error::other)?;
        self.requests.write_all(&bytes)
    }

    /// Reads the header of an answer.
    fn answered(&mut self) -> io::Result<()> {
        let Answer { error } = self.read()?;
        if error.is_empty() { Ok(()) } else { Err(io::Error::other(error)) }
    }

    fn read<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        T::deserialize(&mut self.answers).map_err(|error| match error {
            Error::InvalidMarkerRead(error) | Error::InvalidDataRead(error) => error,
            other => malformed(&other.to_string()),
        })
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not Serf's RPC: {what}"))
}
