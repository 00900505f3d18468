//! What streams consist of: a first byte that tells the kind, and frames, which are a length of four
//! bytes, big endian, then as many bytes.
//!
//! The length is checked before anything is allocated for it, and the buffer grows with what has
//! arrived, so that a peer that announces a long frame and sends little of it costs little memory.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use quinn::{ConnectionError, WriteError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use peerage_proto::wire::StreamKind;

/// How many bytes precede a frame.
pub(super) const PREFIX_BYTES: usize = 4;

/// How much is allocated ahead of what has arrived.
const STEP_BYTES: usize = 64 * 1024;

/// Why a frame was not read or written. The stream is of no use afterwards.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The frame is over the bound; nothing of it was read or written.
    #[error("a frame of {found} bytes, more than the {bound} that are allowed")]
    TooLong {
        /// The length of the frame.
        found: usize,
        /// What is allowed.
        bound: usize,
    },
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    CutShort,
    /// The stream or its connection failed.
    #[error(transparent)]
    Stream(io::Error),
}

/// Why a stream was not opened.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Stream(#[from] WriteError),
}

/// The first byte of a stream, without an allocation.
pub(super) fn kind_byte(kind: StreamKind) -> Bytes {
    static BYTES: [u8; 256] = {
        let mut bytes = [0; 256];
        let mut value = 0;
        while value < 256 {
            bytes[value] = value as u8;
            value += 1;
        }
        bytes
    };
    let at = usize::from(kind.byte());
    Bytes::from_static(&BYTES[at..=at])
}

/// Appends a frame to a buffer. The caller has checked that it is within its bound.
pub(super) fn put_frame(buffer: &mut BytesMut, frame: &[u8]) {
    buffer.put_u32(u32::try_from(frame.len()).expect("bounds of frames are far below 4 GiB"));
    buffer.put_slice(frame);
}

/// Writes one frame of at most `bound` bytes. The stream is left open.
///
/// # Errors
/// [`FrameError::TooLong`] before anything is written; otherwise what the stream says.
pub async fn write_frame<S>(stream: &mut S, frame: &[u8], bound: usize) -> Result<(), FrameError>
where
    S: AsyncWrite + Unpin,
{
    if frame.len() > bound {
        return Err(FrameError::TooLong { found: frame.len(), bound });
    }
    let mut buffer = BytesMut::with_capacity(PREFIX_BYTES + frame.len());
    put_frame(&mut buffer, frame);
    stream.write_all(&buffer).await.map_err(FrameError::Stream)
}

/// Reads one frame of at most `bound` bytes; `None` where the stream ended before one began.
///
/// # Errors
/// [`FrameError`]; what was read of an unfinished frame is lost.
pub async fn read_frame<S>(stream: &mut S, bound: usize) -> Result<Option<Bytes>, FrameError>
where
    S: AsyncRead + Unpin,
{
    let mut prefix = [0; PREFIX_BYTES];
    let mut have = 0;
    while have < PREFIX_BYTES {
        match stream.read(&mut prefix[have..]).await.map_err(FrameError::Stream)? {
            0 if have == 0 => return Ok(None),
            0 => return Err(FrameError::CutShort),
            count => have += count,
        }
    }
    let length = u32::from_be_bytes(prefix) as usize;
    if length > bound {
        return Err(FrameError::TooLong { found: length, bound });
    }
    let mut frame = BytesMut::new();
    while frame.len() < length {
        let step = (length - frame.len()).min(STEP_BYTES);
        frame.reserve(step);
        let mut room = (&mut frame).limit(step);
        if stream.read_buf(&mut room).await.map_err(FrameError::Stream)? == 0 {
            return Err(FrameError::CutShort);
        }
    }
    Ok(Some(frame.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_read_back_in_order_and_then_end() {
        let mut wire = Vec::new();
        let long = vec![7; 3 * STEP_BYTES + 1];
        for frame in [b"".as_slice(), b"one", &long] {
            write_frame(&mut wire, frame, long.len()).await.unwrap();
        }
        let mut rest = wire.as_slice();
        for frame in [b"".as_slice(), b"one", &long] {
            assert_eq!(read_frame(&mut rest, long.len()).await.unwrap().unwrap(), frame);
        }
        assert!(read_frame(&mut rest, long.len()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_frame_over_its_bound_is_refused_before_it_is_read_or_written() {
        let mut wire = Vec::new();
        let error = write_frame(&mut wire, &[0; 9], 8).await.unwrap_err();
        assert!(matches!(error, FrameError::TooLong { found: 9, bound: 8 }));
        assert!(wire.is_empty());
        let mut claimed = [0xff, 0xff, 0xff, 0xff, 1].as_slice();
        let error = read_frame(&mut claimed, 8).await.unwrap_err();
        assert!(matches!(error, FrameError::TooLong { bound: 8, .. }));
        assert_eq!(claimed, [1]);
    }

    #[tokio::test]
    async fn an_end_within_a_frame_is_an_error() {
        for cut in 1..7 {
            let mut wire = &[0, 0, 0, 3, b'a', b'b', b'c'][..cut];
            assert!(matches!(read_frame(&mut wire, 8).await, Err(FrameError::CutShort)), "{cut}");
        }
    }
}
