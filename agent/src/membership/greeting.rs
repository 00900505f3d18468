//! What this node says first to a peer: who it is, where it is reached, and how it was admitted.

use peerage_proto::address::Address;
use peerage_proto::id::NodeId;
use peerage_proto::roster::admission_chain;
use peerage_proto::wire::Hello;
use serde_bytes::ByteBuf;
use tokio::sync::watch;

use crate::replica::ReplicaHandle;

/// How many admissions a hello shows: this node's, and those that led to it.
const PROOF_LINKS: usize = 8;

/// The hello of a member, which follows the roster and this node's addresses.
#[derive(Clone)]
pub(super) struct Greeting {
    me: NodeId,
    replica: ReplicaHandle,
    hello: watch::Sender<Hello>,
}

impl Greeting {
    /// A greeting of this node, beginning with `hello`. The name and the proof in it are set by
    /// [`Greeting::renew`].
    pub(super) fn new(me: NodeId, replica: ReplicaHandle, hello: Hello) -> Self {
        Self { me, replica, hello: watch::Sender::new(hello) }
    }

    /// The hello as of now; the clock in it is not set.
    pub(super) fn hello(&self) -> Hello {
        let digest = self.replica.progress().borrow().digest.clone();
        Hello { digest: Some(digest), ..self.hello.borrow().clone() }
    }

    /// Takes this node's name and its admission from the roster.
    pub(super) async fn renew(&self) {
        let me = self.me;
        let chain = self.replica.read(move |replica| admission_chain(replica, &me, PROOF_LINKS));
        let chain = chain.await.unwrap_or_default();
        let name = self.replica.views().borrow().roster.name_of(&me);
        self.hello.send_modify(|hello| {
            hello.name = name;
            hello.proof = chain.iter().map(|c| ByteBuf::from(c.bytes().to_vec())).collect();
        });
    }

    /// Says from now on that this node is reached at these addresses.
    pub(super) fn move_to(&self, addresses: &[Address]) {
        self.hello.send_modify(|hello| hello.addresses = addresses.to_vec());
    }

    /// Whether this node announces an address at which other hosts can reach it: one that is not a
    /// loopback address.
    pub(super) fn leads_other_hosts_here(&self) -> bool {
        self.hello.borrow().addresses.iter().any(|at| !at.is_loopback())
    }
}
