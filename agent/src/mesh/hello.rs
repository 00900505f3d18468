//! The exchange of hellos at the start of a connection between members, which decides who may be a
//! peer.
//!
//! TLS proves that the other side holds its key; each side then asks its [`Gate`] whether that key
//! is welcome. Nothing of the connection reaches the router before both gates have said yes.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, ConnectionError};
use tokio::time::Instant;

use peerage_proto::codec::DecodeError;
use peerage_proto::id::NodeId;
use peerage_proto::links::canonical;
use peerage_proto::time::HowLong;
use peerage_proto::wire::{
    Answer, CloseCode, HELLO_BYTES_MAX, Hello, Refusal, RefusalCode, WIRE_VERSION_OLDEST,
};

use super::frames::{FrameError, read_frame, write_frame};

/// How long the exchange may take, from the end of the handshake.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// The clocks in a hello and in its answer are compared only if the hello waited at most this long
/// beyond its way. A longer wait would look like a clock that is off. This bound is well below the
/// deviation of clocks that causes a warning.
const SAMPLE_WAIT_MAX: Duration = Duration::from_millis(250);

/// How long the connection of a refused peer stays open, so that it can read why.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// Decides who may be a peer, and speaks for this node.
pub trait Gate: Send + Sync + 'static {
    /// Returns once it is settled what this node says of itself. While this node is joining, the
    /// other members know of its admission a moment before it does. A member that dials it in that
    /// moment is kept waiting, for the time of a hello exchange at most, rather than refused.
    fn settled(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// What this node says of itself now; `None` while it is in no Data Center, when it neither
    /// dials nor accepts members. Called for every connection: the wall clock in it is compared
    /// with the peer's.
    fn hello(&self) -> Option<Hello>;

    /// Whether a node that proved its key, and speaks from the address `remote`, may be a peer.
    /// This checks the Data Center, the membership and its proof, and whether the node is the only
    /// one with its key. The version was checked before.
    fn judge(
        &self,
        peer: NodeId,
        hello: &Hello,
        remote: SocketAddr,
    ) -> impl Future<Output = Verdict> + Send;

    /// A peer that this node dialled refused this node. The evidence in the refusal is not verified
    /// yet.
    fn refused(&self, peer: NodeId, refusal: Refusal);

    /// Whether some member is known to be reached at this address. A caller from there is let in
    /// even when strangers have used up the places that they may have.
    fn is_members(&self, _address: IpAddr) -> bool {
        false
    }
}

/// The gate of a mesh that only dials, on the join protocol: it says nothing of this node, and lets
/// nobody in.
#[derive(Debug, Clone, Copy)]
pub struct Closed;

impl Gate for Closed {
    fn hello(&self) -> Option<Hello> {
        None
    }

    async fn judge(&self, _peer: NodeId, _hello: &Hello, _remote: SocketAddr) -> Verdict {
        Verdict::Refuse(Refusal::new(RefusalCode::Standalone, "nobody is served here"))
    }

    fn refused(&self, _peer: NodeId, _refusal: Refusal) {}
}

impl<G: Gate> Gate for Arc<G> {
    fn is_members(&self, address: IpAddr) -> bool {
        G::is_members(self, address)
    }

    fn settled(&self) -> impl Future<Output = ()> + Send {
        G::settled(self)
    }

    fn hello(&self) -> Option<Hello> {
        G::hello(self)
    }

    fn judge(
        &self,
        peer: NodeId,
        hello: &Hello,
        remote: SocketAddr,
    ) -> impl Future<Output = Verdict> + Send {
        G::judge(self, peer, hello, remote)
    }

    fn refused(&self, peer: NodeId, refusal: Refusal) {
        G::refused(self, peer, refusal);
    }
}

/// What the [`Gate`] says of a peer.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It is a member.
    Welcome,
    /// It is not let in, and is told this refusal.
    Refuse(Refusal),
}

/// [`Gate`] as a trait object, so that the pool need not know the type of its gate.
pub(super) trait AnyGate: Send + Sync {
    fn settled<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
    fn hello(&self) -> Option<Hello>;
    fn judge<'a>(
        &'a self,
        peer: NodeId,
        hello: &'a Hello,
        remote: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;
    fn refused(&self, peer: NodeId, refusal: Refusal);
    fn is_members(&self, address: IpAddr) -> bool;
}

impl<G: Gate> AnyGate for G {
    fn is_members(&self, address: IpAddr) -> bool {
        Gate::is_members(self, address)
    }

    fn settled<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(Gate::settled(self))
    }

    fn hello(&self) -> Option<Hello> {
        Gate::hello(self)
    }

    fn judge<'a>(
        &'a self,
        peer: NodeId,
        hello: &'a Hello,
        remote: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>> {
        Box::pin(Gate::judge(self, peer, hello, remote))
    }

    fn refused(&self, peer: NodeId, refusal: Refusal) {
        Gate::refused(self, peer, refusal);
    }
}

/// What the exchange told of the peer.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) hello: Arc<Hello>,
    /// How far the peer's wall clock is ahead of ours, exact to [`SAMPLE_WAIT_MAX`] and half a
    /// round trip; `None` if one of the two hellos had to wait for longer.
    pub(super) clock_ahead_ms: Option<i64>,
    /// The connection that the dialler gives up for this one.
    pub(super) supersedes: Option<u64>,
}

/// Why the exchange did not end well. The connection is closed.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum GreetError {
    #[error("this node is in no Data Center")]
    Standalone,
    #[error("refused: {0}")]
    RefusedByPeer(Refusal),
    #[error("refused here: {0}")]
    RefusedHere(Refusal),
    #[error("no answer to the hello within {}", HowLong(HELLO_TIMEOUT))]
    TooSlow,
    #[error("not a hello: {0}")]
    Malformed(String),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl From<FrameError> for GreetError {
    fn from(error: FrameError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<DecodeError> for GreetError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// The dialler's side: says hello, and judges the answer. `supersedes` names the connection with
/// the peer that this one is made in place of.
pub(super) async fn greet(
    connection: &Connection,
    peer: NodeId,
    supersedes: Option<u64>,
    gate: &dyn AnyGate,
) -> Result<Greeted, GreetError> {
    let exchange = async {
        let ours = gate.hello().ok_or(GreetError::Standalone)?;
        let ours = Hello { supersedes, ..ours };
        let said = Instant::now();
        let theirs = match say_hello(connection, &ours).await? {
            Answer::Hello(hello) => hello,
            Answer::Refusal(refusal) => return Err(GreetError::RefusedByPeer(refusal)),
        };
        let waited = said.elapsed().saturating_sub(connection.rtt());
        let clock_ahead_ms = clock_ahead_ms(&ours, &theirs, way_ms(connection), waited);
        match judged(connection, peer, &theirs, gate).await {
            Verdict::Welcome => Ok(Greeted { hello: Arc::new(theirs), clock_ahead_ms, supersedes }),
            Verdict::Refuse(refusal) => Err(GreetError::RefusedHere(refusal)),
        }
    };
    let result = tokio::time::timeout(HELLO_TIMEOUT, exchange).await;
    let result = result.unwrap_or(Err(GreetError::TooSlow));
    if let Err(error) = &result {
        close_for(connection, error);
    }
    result
}

/// Says hello on a new connection, and reads the answer.
pub(super) async fn say_hello(connection: &Connection, ours: &Hello) -> Result<Answer, GreetError> {
    let (mut send, mut recv) = connection.open_bi().await?;
    write_frame(&mut send, &ours.encode(), HELLO_BYTES_MAX).await?;
    let answer = read_frame(&mut recv, HELLO_BYTES_MAX).await?.ok_or(FrameError::CutShort)?;
    Ok(Answer::decode(&answer)?)
}

/// The acceptor's side: reads the hello, judges it, answers.
pub(super) async fn welcome(
    connection: &Connection,
    peer: NodeId,
    own: NodeId,
    gate: &dyn AnyGate,
    trust: fn(&Connection),
) -> Result<Greeted, GreetError> {
    let exchange = async {
        let (mut send, mut recv) = connection.accept_bi().await?;
        let hello = read_frame(&mut recv, HELLO_BYTES_MAX).await?.ok_or(FrameError::CutShort)?;
        let theirs = Hello::decode(&hello);
        let heard = Instant::now();
        gate.settled().await;
        let waited = heard.elapsed();
        let ours = gate.hello();
        let verdict = match (&theirs, &ours) {
            (Err(error), _) => refuse(RefusalCode::Malformed, format!("not a hello: {error}")),
            (Ok(_), Some(_)) if peer == own => {
                refuse(RefusalCode::DuplicateIdentity, "this node has the same identity")
            }
            // The gate is asked even if this node is in no Data Center: its refusal then tells how
            // this node came to be out of its last one.
            (Ok(theirs), _) => judged(connection, peer, theirs, gate).await,
        };
        match (verdict, theirs, ours) {
            (Verdict::Welcome, Ok(theirs), Some(ours)) => {
                let clock_ahead_ms = clock_ahead_ms(&ours, &theirs, -way_ms(connection), waited);
                let answer = Answer::Hello(ours).encode();
                // The peer may send more as soon as it reads that it is welcome, so its limits are
                // raised before the answer is sent.
                trust(connection);
                write_frame(&mut send, &answer, HELLO_BYTES_MAX).await?;
                // An error would only say that the stream has ended already.
                let _ = send.finish();
                let supersedes = theirs.supersedes;
                Ok(Greeted { hello: Arc::new(theirs), clock_ahead_ms, supersedes })
            }
            (Verdict::Refuse(refusal), _, _) => {
                let answer = Answer::Refusal(refusal.clone()).encode();
                write_frame(&mut send, &answer, HELLO_BYTES_MAX).await?;
                let _ = send.finish();
                // If the connection were closed at once, the close could overtake the refusal.
                let _ = tokio::time::timeout(REFUSAL_LINGER, send.stopped()).await;
                Err(GreetError::RefusedHere(refusal))
            }
            (Verdict::Welcome, _, _) => Err(GreetError::Standalone),
        }
    };
    let result = tokio::time::timeout(HELLO_TIMEOUT, exchange).await;
    let result = result.unwrap_or(Err(GreetError::TooSlow));
    if let Err(error) = &result {
        close_for(connection, error);
    }
    result
}

async fn judged(
    connection: &Connection,
    peer: NodeId,
    theirs: &Hello,
    gate: &dyn AnyGate,
) -> Verdict {
    if theirs.wire_version < WIRE_VERSION_OLDEST {
        let spoken = theirs.wire_version;
        return refuse(
            RefusalCode::Version,
            format!("version {spoken} is spoken there, {WIRE_VERSION_OLDEST} or later is needed"),
        );
    }
    gate.judge(peer, theirs, canonical(connection.remote_address())).await
}

fn refuse(code: RefusalCode, message: impl Into<String>) -> Verdict {
    Verdict::Refuse(Refusal::new(code, message))
}

/// How far the peer's clock is ahead of ours, if it was read `later_ms` after ours; `None` if the
/// hello waited for longer than [`SAMPLE_WAIT_MAX`] beyond that.
fn clock_ahead_ms(ours: &Hello, theirs: &Hello, later_ms: i64, waited: Duration) -> Option<i64> {
    let ahead = i128::from(theirs.wall_ms) - i128::from(ours.wall_ms) - i128::from(later_ms);
    let ahead = ahead.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
    (waited <= SAMPLE_WAIT_MAX).then_some(ahead)
}

/// How long a packet takes to the peer, as far as QUIC has measured.
fn way_ms(connection: &Connection) -> i64 {
    i64::try_from(connection.rtt().as_millis() / 2).unwrap_or(i64::MAX)
}

fn close_for(connection: &Connection, error: &GreetError) {
    let code = match error {
        GreetError::RefusedHere(_) => CloseCode::Refused,
        GreetError::Malformed(_) => CloseCode::Protocol,
        GreetError::TooSlow => CloseCode::TooSlow,
        GreetError::Standalone | GreetError::RefusedByPeer(_) | GreetError::Connection(_) => {
            CloseCode::Done
        }
    };
    connection.close(code.number().into(), error.to_string().as_bytes());
}
