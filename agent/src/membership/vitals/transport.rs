//! chitchat's transport over the mesh.
//!
//! chitchat knows its peers by socket address. Here an address only stands for a node: it is a
//! unique local one (RFC 4193) made from the hash of the node's id. So real addresses can change
//! freely, a message can only go to a member, and the sender of a message is the peer that the mesh
//! has authenticated.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use peerage_proto::id::NodeId;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, mpsc, watch};

use super::guard::{self, MESSAGE_MAX};

/// How many messages may wait for chitchat.
pub const INBOX_LEN: usize = 128;

/// A placeholder: nobody listens on this port.
const PORT: u16 = 1;

/// Sends messages to peers. It never waits: a message that cannot be taken on is dropped.
pub trait Messages: Send + Sync + 'static {
    /// Sends a message of at most [`MESSAGE_MAX`] bytes to `node`, if a connection with it stands.
    fn send_message(&self, node: NodeId, message: Bytes);

    /// Whether there is time to begin a round, asked once for each round. Where the host is late,
    /// some rounds are left out: a later round brings all that they would have brought.
    fn has_time(&self) -> bool {
        true
    }
}

impl<F: Fn(NodeId, Bytes) + Send + Sync + 'static> Messages for F {
    fn send_message(&self, node: NodeId, message: Bytes) {
        self(node, message);
    }
}

/// A message from an authenticated peer.
#[derive(Debug, Clone)]
pub struct Received {
    /// The peer.
    pub from: NodeId,
    /// What it sent.
    pub bytes: Bytes,
}

/// The members by the addresses that stand for them. A node is recognised by this address, so two
/// nodes with the same short id stay two.
pub(super) type Directory = Arc<BTreeMap<SocketAddr, NodeId>>;

/// The address that stands for a node.
pub(super) fn address(node: NodeId) -> SocketAddr {
    let hash = Sha256::digest([b"peerage vitals 1".as_slice(), node.as_bytes()].concat());
    let mut octets: [u8; 16] = hash[..16].try_into().expect("16 of 32 bytes");
    octets[0] = 0xfd;
    SocketAddr::new(Ipv6Addr::from(octets).into(), PORT)
}

/// Opens sockets one after the other on the same inbox, so that a chitchat that died can be
/// followed by another.
pub(super) struct MeshTransport {
    pub(super) messages: Arc<dyn Messages>,
    pub(super) inbox: Arc<Mutex<mpsc::Receiver<Received>>>,
    pub(super) directory: watch::Receiver<Directory>,
}

struct MeshSocket {
    messages: Arc<dyn Messages>,
    inbox: Arc<Mutex<mpsc::Receiver<Received>>>,
    directory: watch::Receiver<Directory>,
}

#[async_trait]
impl Transport for MeshTransport {
    async fn open(&self, _address: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(MeshSocket {
            messages: self.messages.clone(),
            inbox: self.inbox.clone(),
            directory: self.directory.clone(),
        }))
    }
}

#[async_trait]
impl Socket for MeshSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        if matches!(message, ChitchatMessage::Syn { .. }) && !self.messages.has_time() {
            return Ok(());
        }
        let node = self.directory.borrow().get(&to).copied();
        if let Some(node) = node {
            let bytes = message.serialize_to_vec();
            if bytes.len() <= MESSAGE_MAX {
                self.messages.send_message(node, bytes.into());
            }
        }
        Ok(())
    }

    /// Fails only when no message can come any more, since an error ends chitchat. May be
    /// cancelled: after it took a message it awaits nothing.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let received = self.inbox.lock().await.recv().await;
            let Some(Received { from, bytes }) = received else {
                anyhow::bail!("the mesh is gone");
            };
            let address = address(from);
            let directory = self.directory.borrow().clone();
            if !directory.contains_key(&address) {
                continue;
            }
            if let Err(unfit) = guard::inspect(&bytes, &directory) {
                tracing::warn!(%from, %unfit, "vitals of a peer were refused");
                continue;
            }
            match ChitchatMessage::deserialize(&mut &bytes[..]) {
                Ok(message) => return Ok((address, message)),
                Err(error) => tracing::warn!(%from, %error, "vitals of a peer were refused"),
            }
        }
    }
}
