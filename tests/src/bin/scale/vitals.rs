//! The agents' own exchange of vitals, chitchat and all, between queues in memory under simulated
//! time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerage::membership::vitals::{INBOX_LEN, Received, VitalsHandle};
use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::vitals::Vitals;
use peerage_tests::process::cpu_seconds;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, watch};

/// How long the first exchanges take, until every node knows all of its circle and more.
const SETTLE: Duration = Duration::from_secs(120);

/// For how long idle nodes are looked at.
const WINDOW: Duration = Duration::from_secs(60);

/// How long it may take until all of a circle know a new fact.
const GIVE_UP: Duration = Duration::from_secs(600);

/// The queues between the nodes, and what went through them.
#[derive(Default)]
struct Net {
    inboxes: Mutex<BTreeMap<NodeId, mpsc::Sender<Received>>>,
    messages: AtomicU64,
    bytes: AtomicU64,
    longest: AtomicU64,
}

impl Net {
    fn carry(&self, from: NodeId, to: NodeId, bytes: bytes::Bytes) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.longest.fetch_max(bytes.len() as u64, Ordering::Relaxed);
        let inboxes = self.inboxes.lock().expect("nobody panics with it");
        if let Some(inbox) = inboxes.get(&to) {
            // A full queue loses messages, as the agent's does.
            let _ = inbox.try_send(Received { from, bytes });
        }
    }
}

/// Measures one Data Center of this size.
pub(crate) fn measure(size: usize, cell: &mut dyn FnMut(&str, String, Option<f64>)) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().expect("a runtime can be made");
    runtime.block_on(run(size, cell));
}

async fn run(size: usize, cell: &mut dyn FnMut(&str, String, Option<f64>)) {
    let mut rng = StdRng::seed_from_u64(1);
    let members: BTreeSet<NodeId> = (0..size).map(|_| NodeId(rng.random())).collect();
    let net = Arc::new(Net::default());
    let (_keep, roster) = watch::channel(members.clone());
    let start = |me: &NodeId| {
        let (inbox_tx, inbox) = mpsc::channel(INBOX_LEN);
        net.inboxes.lock().expect("nobody panics with it").insert(*me, inbox_tx);
        let own = Vitals {
            version: Some("0.1.0".into()),
            name: Some(me.short()),
            boot: Some(1_700_000_000),
            load1: Some(0.1),
            digest: Some(vec![1; 8]),
            ..Vitals::default()
        };
        let (net, me) = (net.clone(), *me);
        let send = move |to: NodeId, bytes: bytes::Bytes| net.carry(me, to, bytes);
        let vitals =
            VitalsHandle::spawn(me, 1, DataCenterId([1; 16]), own, roster.clone(), inbox, send);
        (me, vitals)
    };
    let nodes: Vec<(NodeId, VitalsHandle)> = members.iter().map(start).collect();
    tokio::time::sleep(SETTLE).await;
    let read = || {
        let counts = [&net.messages, &net.bytes].map(|count| count.load(Ordering::Relaxed) as f64);
        (counts, cpu_seconds(std::process::id()))
    };
    let (before, cpu_before) = read();
    tokio::time::sleep(WINDOW).await;
    let (after, cpu_after) = read();
    let per_node = |total: f64| total / size as f64 / WINDOW.as_secs_f64();
    let [messages, bytes] = [0, 1].map(|at| per_node(after[at] - before[at]));
    let cpu = per_node(cpu_after - cpu_before) * 1e6;
    cell("idle: vitals messages per node and second", format!("{messages:.2}"), Some(messages));
    cell("idle: vitals bytes per node and second", format!("{bytes:.0}"), Some(bytes));
    cell("idle: CPU of vitals, µs per node and second", format!("{cpu:.0}"), Some(cpu));
    let circle = nodes[0].1.circle();
    cell("vitals: other members in a node's circle", circle.to_string(), None);
    let longest = net.longest.load(Ordering::Relaxed) as f64;
    cell("vitals: longest message, bytes", format!("{longest:.0}"), Some(longest));

    let (teller, vitals) = &nodes[0];
    let told = tokio::time::Instant::now();
    vitals.tell(|own| own.load1 = Some(7.7));
    let knows = |all: &peerage::membership::vitals::AllVitals| {
        all.get(teller).is_some_and(|vital| vital.vitals.load1 == Some(7.7))
    };
    let mut knowing = 0;
    while knowing < circle && told.elapsed() < GIVE_UP {
        tokio::time::sleep(Duration::from_millis(500)).await;
        knowing = nodes.iter().filter(|(_, vitals)| knows(&vitals.all().borrow())).count();
    }
    let took = told.elapsed().as_secs_f64();
    let figure = if knowing < circle { "never".to_owned() } else { format!("{took:.1} s") };
    cell("vitals: a new fact, until all of the circle know it", figure, Some(took));
}
