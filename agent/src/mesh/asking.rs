//! Asks a peer a question, and looks at who answers at an address.
//!
//! [`Mesh::ask`] and [`Mesh::look`] find out whether a node is there, and make no connection that
//! counts. [`Mesh::dial_and_ask`] dials first where there is no connection.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream};
use tokio::time::{Instant, timeout};

use peerage_proto::id::NodeId;
use peerage_proto::wire::{ALPN_MEMBER, Answer, CloseCode, Hello, StreamCode, StreamKind};

use super::Mesh;
use super::dial::DialError;
use super::frames::{FrameError, OpenError, read_frame, write_frame};
use super::hello::say_hello;
use super::path::Path;

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// There is no connection with the node, and none was made.
    #[error("not connected")]
    NotConnected,
    /// The peer is there and does not answer this: it knows no such question, or has no room.
    #[error("the peer does not answer that: {0}")]
    Declined(StreamCode),
    /// The connection failed, or the answer did not come in time.
    #[error("no answer")]
    NoAnswer,
}

impl Mesh {
    /// Asks a peer something over the connection that is there; tells what it answered, and how
    /// long that took. An answer is at most [`StreamKind::frame_bytes_max`].
    ///
    /// # Errors
    /// [`AskError`]; after [`AskError::Declined`] the peer is known to be alive.
    pub async fn ask(
        &self,
        peer: NodeId,
        kind: StreamKind,
        question: &[u8],
        patience: Duration,
    ) -> Result<(Bytes, Duration), AskError> {
        let peer = self.pool.peer(peer).ok_or(AskError::NotConnected)?;
        let asked = Instant::now();
        let exchange = async {
            let opened = peer.open(kind).await;
            exchange(opened.map_err(|_: OpenError| AskError::NoAnswer)?, kind, question).await
        };
        let answer = timeout(patience, exchange).await.unwrap_or(Err(AskError::NoAnswer))?;
        Ok((answer, asked.elapsed()))
    }

    /// As [`Mesh::ask`], but dials first if there is no connection. The caller bounds the time.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn dial_and_ask(
        &self,
        peer: NodeId,
        kind: StreamKind,
        question: &[u8],
    ) -> Result<Bytes, AskError> {
        let opened = self.open(peer, kind).await.map_err(|_: DialError| AskError::NotConnected)?;
        exchange(opened, kind, question).await
    }

    /// Whether a peer that is connected answers within this time, whatever it says.
    pub async fn answers(&self, peer: NodeId, patience: Duration) -> bool {
        let asked = self.ask(peer, StreamKind::Clock, &[], patience).await;
        !matches!(asked, Err(AskError::NotConnected | AskError::NoAnswer))
    }

    /// The path that the remote address of a connection stands for. A detour through another member
    /// has a made-up address, which would tell a reader nothing.
    pub fn path_of(&self, remote: SocketAddr) -> Path {
        self.pool.detours.path(remote)
    }

    /// What the node that holds this key and answers at this address says of itself; `None` if no
    /// such node answers within `patience`, or if it refuses this node. The connection is closed
    /// again, and counts on neither side.
    pub async fn look(
        &self,
        peer: NodeId,
        address: SocketAddr,
        patience: Duration,
    ) -> Option<Hello> {
        let ours = Hello { only_looks: true, ..self.pool.gate.hello()? };
        let looking = async {
            let raced = self.pool.dialler.race(peer, ALPN_MEMBER, &[address.into()]).await;
            let connection = raced.ok()?;
            let answer = say_hello(&connection, &ours).await;
            connection.close(CloseCode::Done.number().into(), b"looked");
            match answer.ok()? {
                Answer::Hello(hello) => Some(hello),
                Answer::Refusal(_) => None,
            }
        };
        timeout(patience, looking).await.ok()?
    }
}

/// Writes the answer to a question of [`Mesh::ask`] or [`Mesh::dial_and_ask`], and ends the stream.
///
/// # Errors
/// What the stream says.
pub async fn write_answer(
    send: &mut SendStream,
    kind: StreamKind,
    answer: &[u8],
) -> Result<(), FrameError> {
    write_frame(send, answer, kind.frame_bytes_max()).await?;
    // An error would only say that the stream has ended already.
    let _ = send.finish();
    Ok(())
}

/// Writes the question as one frame, ends the stream, and reads the answer as one frame.
async fn exchange(
    (mut send, mut recv): (SendStream, RecvStream),
    kind: StreamKind,
    question: &[u8],
) -> Result<Bytes, AskError> {
    // If the peer declines, the write may fail first; the read then tells why.
    let _ = write_frame(&mut send, question, kind.frame_bytes_max()).await;
    let _ = send.finish();
    match read_frame(&mut recv, kind.frame_bytes_max()).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) | Err(FrameError::CutShort | FrameError::TooLong { .. }) => {
            Err(AskError::NoAnswer)
        }
        Err(FrameError::Stream(error)) => Err(match error.downcast::<ReadError>() {
            Ok(ReadError::Reset(code)) => AskError::Declined(StreamCode::from(code.into_inner())),
            _ => AskError::NoAnswer,
        }),
    }
}
