//! The frames between a joiner and the member that it asks, each of them bounded in time.

use std::time::Duration;

use peerage_proto::admission::exchange::{JoinerFrame, MemberFrame};
use peerage_proto::admission::refusal::Refusal;
use peerage_proto::admission::verdict::{Binding, JoinRequest, REQUEST_BYTES_MAX};
use peerage_proto::replica::sync::FRAME_BYTES_MAX;
use quinn::{Connection, RecvStream, SendStream};
use tokio::time::timeout;

use crate::mesh::{FrameError, joining_binding, read_frame, write_frame};
use crate::replica::WriteFailure;

/// How long a stranger may take to say what it wants, and to take in a refusal: few are served at
/// once.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the joiner may take for its next frame.
pub(super) const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// Why an exchange ended without an admission and without a refusal that could be told.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The joiner hung up, or the network failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    /// The joiner fell silent or said something out of turn.
    #[error("the joiner {0}")]
    Joiner(&'static str),
    /// This node could not do its part.
    #[error(transparent)]
    Own(#[from] WriteFailure),
}

/// The value that ties a proof to this connection.
///
/// # Errors
/// [`Refusal::Busy`] where the TLS session gives no keying material.
pub fn binding(connection: &Connection) -> Result<Binding, Refusal> {
    let none = || Refusal::Busy("the connection gives no keying material".into());
    joining_binding(connection).ok_or_else(none)
}

/// What a joiner asks for at first, or why it is refused.
pub(super) type FirstRequest = Result<(JoinRequest, Binding), Refusal>;

pub(super) async fn first_request(
    connection: &Connection,
    recv: &mut RecvStream,
) -> Result<FirstRequest, AdmissionError> {
    let frame = in_time(read_frame(recv, REQUEST_BYTES_MAX)).await??;
    let frame = frame.ok_or(AdmissionError::Joiner("said nothing"))?;
    Ok(match JoinerFrame::decode(&frame) {
        Ok(JoinerFrame::Request(request)) => binding(connection).map(|b| (request, b)),
        Ok(JoinerFrame::Ready) => Err(Refusal::Malformed("it does not open with a request".into())),
        Err(error) => Err(Refusal::Malformed(error.to_string())),
    })
}

pub(super) async fn refuse(send: &mut SendStream, refusal: Refusal) -> Result<(), AdmissionError> {
    write(send, &MemberFrame::Refused(refusal)).await?;
    let _ = send.finish();
    // The connection stays open until the joiner has the last frame.
    let _ = timeout(STRANGER_TIMEOUT, send.stopped()).await;
    Ok(())
}

pub(super) async fn read(recv: &mut RecvStream) -> Result<JoinerFrame, AdmissionError> {
    let frame = within(read_frame(recv, REQUEST_BYTES_MAX)).await??;
    let frame = frame.ok_or(AdmissionError::Joiner("hung up before it was ready"))?;
    JoinerFrame::decode(&frame).map_err(|_| AdmissionError::Joiner("sent what does not read"))
}

pub(super) async fn write(
    send: &mut SendStream,
    frame: &MemberFrame,
) -> Result<(), AdmissionError> {
    Ok(within(write_frame(send, &frame.encode(), FRAME_BYTES_MAX)).await??)
}

pub(super) async fn in_time<T>(step: impl Future<Output = T>) -> Result<T, AdmissionError> {
    timeout(STRANGER_TIMEOUT, step).await.map_err(|_| AdmissionError::Joiner("said nothing"))
}

pub(super) async fn within<T>(step: impl Future<Output = T>) -> Result<T, AdmissionError> {
    timeout(FRAME_TIMEOUT, step).await.map_err(|_| AdmissionError::Joiner("fell silent"))
}
