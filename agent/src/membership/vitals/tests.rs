//! Vitals over queues in memory, under paused time.

use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use chitchat::Serializable;

use super::*;

/// The queues between nodes, and what went through them.
#[derive(Default)]
struct Net {
    inboxes: StdMutex<BTreeMap<NodeId, mpsc::Sender<Received>>>,
    /// No message passes between these nodes and the others.
    cut: StdMutex<BTreeSet<NodeId>>,
    messages: AtomicU64,
    bytes: AtomicU64,
    longest: AtomicU64,
}

impl Net {
    fn carry(&self, from: NodeId, to: NodeId, bytes: Bytes) {
        let cut = self.cut.lock().unwrap();
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.longest.fetch_max(bytes.len() as u64, Ordering::Relaxed);
        if cut.contains(&from) == cut.contains(&to)
            && let Some(inbox) = self.inboxes.lock().unwrap().get(&to)
        {
            let _ = inbox.try_send(Received { from, bytes });
        }
    }
}

struct Node {
    id: NodeId,
    vitals: VitalsHandle,
    members: watch::Sender<BTreeSet<NodeId>>,
}

fn id(node: u8) -> NodeId {
    NodeId([node; 32])
}

fn start(net: &Arc<Net>, id: NodeId, boot: u64, members: &BTreeSet<NodeId>) -> Node {
    let (inbox_tx, inbox) = mpsc::channel(INBOX_LEN);
    net.inboxes.lock().unwrap().insert(id, inbox_tx);
    let (members_tx, members) = watch::channel(members.clone());
    let own = Vitals { name: Some(id.short()), boot: Some(boot), ..Vitals::default() };
    let net = net.clone();
    let send = move |to: NodeId, bytes: Bytes| net.carry(id, to, bytes);
    let data_center = DataCenterId([1; 16]);
    let vitals = VitalsHandle::spawn(id, boot, data_center, own, members, inbox, send);
    Node { id, vitals, members: members_tx }
}

fn fleet(of: u8) -> (Arc<Net>, Vec<Node>) {
    let net = Arc::new(Net::default());
    let members = (0..of).map(id).collect();
    let nodes = (0..of).map(|node| start(&net, id(node), 1, &members)).collect();
    (net, nodes)
}

/// Waits until `node` has vitals of `about` that satisfy `holds`, for 20 s at most.
async fn until(node: &Node, about: NodeId, holds: impl Fn(&Vital) -> bool) -> Vital {
    within(node, about, Duration::from_secs(20), holds).await
}

/// As [`until`], for `bound` at most.
async fn within(
    node: &Node,
    about: NodeId,
    bound: Duration,
    holds: impl Fn(&Vital) -> bool,
) -> Vital {
    let mut all = node.vitals.all();
    let seen = all.wait_for(|all| all.get(&about).is_some_and(&holds));
    let seen = tokio::time::timeout(bound, seen).await;
    seen.expect("in time").expect("the task runs")[&about].clone()
}

async fn all_know_all(nodes: &[Node]) {
    for node in nodes {
        for other in nodes.iter().filter(|other| other.id != node.id) {
            until(node, other.id, |vital| vital.vitals.name.is_some()).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_says_is_known_to_all() {
    let (_net, nodes) = fleet(5);
    all_know_all(&nodes).await;
    nodes[0].vitals.tell(|own| own.load1 = Some(1.5));
    for node in &nodes[1..] {
        let vital = until(node, id(0), |vital| vital.vitals.load1 == Some(1.5)).await;
        assert_eq!(vital.vitals.boot, Some(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_nodes_vitals_grow_old_and_a_restarted_ones_are_new() {
    let (net, mut nodes) = fleet(3);
    all_know_all(&nodes).await;
    let members = (0..3).map(id).collect();
    drop(nodes.remove(0));
    net.inboxes.lock().unwrap().remove(&id(0));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(nodes[0].vitals.all().borrow()[&id(0)].age() > Duration::from_secs(25));
    assert!(nodes[0].vitals.all().borrow()[&id(2)].age() < Duration::from_secs(10));
    let again = start(&net, id(0), 2, &members);
    until(&nodes[0], id(0), |vital| vital.vitals.boot == Some(2)).await;
    drop(again);
}

#[tokio::test(start_paused = true)]
async fn a_partition_longer_than_all_memory_heals_by_itself() {
    let (net, nodes) = fleet(4);
    all_know_all(&nodes).await;
    net.cut.lock().unwrap().extend([id(0), id(1)]);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(!nodes[0].vitals.all().borrow().contains_key(&id(2)));
    net.cut.lock().unwrap().clear();
    nodes[0].vitals.tell(|own| own.digest = Some(vec![1]));
    until(&nodes[3], id(0), |vital| vital.vitals.digest == Some(vec![1])).await;
    all_know_all(&nodes).await;
}

/// A message that chitchat 0.11.2 accepts and dies of: it says of `victim` that a fact has version
/// 1,000 and that the highest version is 500.
fn poison(victim: NodeId, boot: u64) -> Vec<u8> {
    let mut operations = vec![0];
    let short_id = &victim.to_string()[..SHORT_ID_LEN];
    ChitchatId::new(short_id, boot << 16, address(victim)).serialize(&mut operations);
    operations.extend([0; 16]);
    operations.push(1);
    "load1".to_owned().serialize(&mut operations);
    "9".to_owned().serialize(&mut operations);
    operations.extend(1_000_u64.to_le_bytes());
    operations.push(0);
    operations.push(2);
    operations.extend(500_u64.to_le_bytes());
    let mut message = [&45_139_u16.to_le_bytes()[..], &[0, 2, 2]].concat();
    message.extend((operations.len() as u16).to_le_bytes());
    message.extend(operations);
    message.push(0);
    message
}

#[tokio::test(start_paused = true)]
async fn the_death_of_chitchat_is_survived() {
    let (net, nodes) = fleet(3);
    all_know_all(&nodes).await;
    let inbox = net.inboxes.lock().unwrap()[&id(0)].clone();
    inbox.send(Received { from: id(1), bytes: poison(id(0), 1).into() }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // The node speaks and listens again, under another generation: under the former one the others
    // would not believe it.
    nodes[0].vitals.tell(|own| own.load1 = Some(2.5));
    until(&nodes[2], id(0), |vital| vital.vitals.load1 == Some(2.5)).await;
    nodes[2].vitals.tell(|own| own.load1 = Some(3.5));
    until(&nodes[0], id(2), |vital| vital.vitals.load1 == Some(3.5)).await;
}

#[tokio::test(start_paused = true)]
async fn noise_and_strangers_do_no_harm() {
    let (net, nodes) = fleet(2);
    all_know_all(&nodes).await;
    let inbox = net.inboxes.lock().unwrap()[&id(0)].clone();
    for bytes in [&b""[..], b"noise", &[0x53, 0xb0, 0, 2, 2, 255, 255]] {
        inbox.send(Received { from: id(1), bytes: Bytes::copy_from_slice(bytes) }).await.unwrap();
    }
    let stranger = Received { from: id(99), bytes: poison(id(0), 1).into() };
    inbox.send(stranger).await.unwrap();
    nodes[1].vitals.tell(|own| own.load1 = Some(4.5));
    until(&nodes[0], id(1), |vital| vital.vitals.load1 == Some(4.5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_members_vitals_are_dropped_and_a_new_ones_taken_on() {
    let (net, nodes) = fleet(3);
    all_know_all(&nodes).await;
    let now: BTreeSet<NodeId> = [id(0), id(1), id(7)].into();
    for node in &nodes[..2] {
        node.members.send_replace(now.clone());
    }
    let new = start(&net, id(7), 1, &now);
    until(&nodes[0], id(7), |vital| vital.vitals.boot == Some(1)).await;
    until(&new, id(1), |vital| vital.vitals.boot == Some(1)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!nodes[0].vitals.all().borrow().contains_key(&id(2)));
}

/// With 949 entries or more, chitchat's own messages are so long that it does not survive them.
#[tokio::test(start_paused = true)]
async fn of_1500_members_each_exchanges_vitals_with_its_circle_and_nothing_dies() {
    let many: BTreeSet<NodeId> = (0..1_500).map(numbered).collect();
    let net = Arc::new(Net::default());
    let live: Vec<Node> = (0..40).map(|n| start(&net, numbered(n), 1, &many)).collect();
    let of_circle = |node: &Node| circle::circle(node.id, &many, circle::shared_bits(1_500, 0));
    for node in &live {
        let circle = of_circle(node);
        assert_eq!(node.vitals.circle(), circle.len());
        assert!((300..450).contains(&circle.len()), "{}", circle.len());
        // A peer of the circle names the members of the circle again and again, each time under a
        // new generation.
        let inbox = net.inboxes.lock().unwrap()[&node.id].clone();
        let from = *circle.first().expect("it has a circle");
        for boot in 1..8 {
            let named = circle.iter().map(|named| (*named, boot));
            let bytes = syn(named).into();
            let _ = inbox.send(Received { from, bytes }).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    for node in &live {
        node.vitals.tell(|own| own.load1 = Some(9.5));
    }
    for node in &live {
        let circle = of_circle(node);
        for other in live.iter().filter(|other| circle.contains(&other.id)) {
            within(node, other.id, Duration::from_secs(600), |v| v.vitals.load1 == Some(9.5)).await;
        }
        assert!(node.vitals.all().borrow().keys().all(|known| circle.contains(known)));
    }
    assert!(net.longest.load(Ordering::Relaxed) <= MESSAGE_MAX as u64);
}

/// Between 308 and 384 members, a node that had more members before has a circle half as large as a
/// node that had fewer before. Such a node once refused all messages of the other one: they named
/// the other half of the members, too, or came from a member of that half.
#[tokio::test(start_paused = true)]
async fn a_node_answers_those_whose_circle_is_wider_than_its_own() {
    let more: BTreeSet<NodeId> = (0..400).map(numbered).collect();
    let now: BTreeSet<NodeId> = (0..350).map(numbered).collect();
    let net = Arc::new(Net::default());
    let node = start(&net, numbered(0), 1, &more);
    let circle = circle::circle(node.id, &now, 1);
    node.members.send_replace(now.clone());
    let mut sizes = node.vitals.circle.clone();
    sizes.wait_for(|size| *size == circle.len()).await.expect("the task runs");
    assert!(circle.len() < 250, "{}", circle.len());
    let within_it = *circle.first().expect("it has a circle");
    let outside = *now.iter().find(|n| **n != node.id && !circle.contains(n)).expect("half are");

    for asker in [within_it, outside] {
        let (answers, mut inbox) = mpsc::channel(INBOX_LEN);
        net.inboxes.lock().unwrap().insert(asker, answers);
        let names_all = syn(now.iter().map(|named| (*named, 1))).into();
        let to = net.inboxes.lock().unwrap()[&node.id].clone();
        to.send(Received { from: asker, bytes: names_all }).await.unwrap();
        let answered = async {
            // The node also asks by itself, which is another kind of message.
            while inbox.recv().await.expect("the node runs").bytes[3] != 1 {}
        };
        tokio::time::timeout(Duration::from_secs(5), answered).await.expect("it answers");
    }
}

#[tokio::test(start_paused = true)]
async fn the_bytes_of_an_idle_node_do_not_grow_with_the_number_of_nodes() {
    let mut per_node = Vec::new();
    for of in [96, 192] {
        let net = Arc::new(Net::default());
        let members = (0..of).map(numbered).collect();
        let nodes: Vec<Node> = (0..of).map(|n| start(&net, numbered(n), 1, &members)).collect();
        tokio::time::sleep(Duration::from_secs(40)).await;
        for node in &nodes {
            assert_eq!(node.vitals.all().borrow().len(), nodes.len() - 1);
        }
        let before = net.bytes.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let bytes = (net.bytes.load(Ordering::Relaxed) - before) as f64 / f64::from(of) / 60.0;
        assert!(bytes < 9_000.0, "{of} nodes: {bytes} bytes per node and second");
        per_node.push(bytes);
    }
    assert!(per_node[1] < per_node[0] * 1.25, "{per_node:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_fleet_says_little() {
    let (net, nodes) = fleet(32);
    all_know_all(&nodes).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    net.messages.store(0, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let messages = net.messages.load(Ordering::Relaxed) as f64 / 32.0 / 60.0;
    // Each exchange is a question, an answer and an acknowledgement. A node begins one in two
    // seconds, and chitchat begins some of its own.
    assert!((1.2..2.0).contains(&messages), "{messages}");
}

/// The id of a number: no two numbers share one, and they are spread over all ids.
fn numbered(n: u32) -> NodeId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.wrapping_mul(2_654_435_769).to_be_bytes());
    NodeId(id)
}

/// A message that asks, and that names these nodes with these boots.
fn syn(named: impl ExactSizeIterator<Item = (NodeId, u64)>) -> Vec<u8> {
    let mut message = [&45_139_u16.to_le_bytes()[..], &[0, 0]].concat();
    message.extend((named.len() as u16).to_le_bytes());
    for (node, boot) in named {
        let short_id = &node.to_string()[..SHORT_ID_LEN];
        ChitchatId::new(short_id, boot << 16, address(node)).serialize(&mut message);
        message.extend([7; 8]);
        message.extend([0; 16]);
    }
    DataCenterId([1; 16]).to_string().serialize(&mut message);
    message
}
