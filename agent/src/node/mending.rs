//! What a start does about damage that it finds in the journal.
//!
//! A record that cannot be read does not count as one that never was. What signed changes say is
//! derived from them: which Data Center this is, how the last membership ended, where the node was
//! reached. What nothing says any more takes the reading that harms least: a host that may be a
//! copy keeps apart, and a host that may have been taken out stays out. Where too little is left to
//! be the same member, the start stops with words. What a lost change said comes back from the
//! other members.

use peerage_proto::address::Address;
use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::identity::Keypair;
use peerage_proto::links::{Link, Priority};
use peerage_proto::replica::{Actor, Edit, Outputs, Path, StoreOp, Vector};
use peerage_proto::roster::{NodeName, Roster, Standing, datacenter_path, ending_of, member_path};
use peerage_proto::time::Now;
use tracing::warn;

use super::disk::{META_DATACENTER, META_NOTICE, META_PAST, META_TWIN};
use super::notice::{LEFT_HINT, Notice, REMOVED_HINT, TWIN_HINT};
use crate::admission::past::Past;
use crate::host::links::META_LINKS;
use crate::store::{About, Home, Image, StoreError, Trace, Write};

/// The names under which the store keeps the agent's own values.
pub const META_BOOT: &str = "boot";
/// See [`META_BOOT`].
pub const META_PORT: &str = "port";

/// Mends what can be mended of a data folder that was just opened, and writes that to disk. What
/// was done is in the image and in the log, and is returned in words.
///
/// # Errors
/// [`StoreError`]: too little is left to be the same node, or the disk failed.
pub async fn mend(
    home: &mut Home,
    name: Option<NodeName>,
    now: Now,
) -> Result<Vec<String>, StoreError> {
    if home.image.damage.is_none() && !home.is_behind {
        return Ok(Vec::new());
    }
    let mut image = home.image.clone();
    let traces = Trace::all(&image, &home.key, now);
    let found =
        Found { key: &home.key, about: home.about.as_ref(), is_behind: home.is_behind, now };
    let ended =
        || home.backups().find_map(|backup| found.ended(&Trace::all(&backup, found.key, now)));
    let plan = found.plan(&mut image, traces, name, ended).map_err(|lost| home.lost(&lost))?;
    home.store.commit(plan.writes).await?;
    if let (true, Some(about)) = (home.is_behind, &home.about) {
        // The label said that there was more; that is dealt with now.
        home.store.label(about.label.clone()).await?;
    }
    for words in &plan.told {
        warn!("{words}");
    }
    home.image = image;
    Ok(plan.told)
}

/// What is known from outside the journal.
struct Found<'a> {
    key: &'a Keypair,
    about: Option<&'a About>,
    /// Whether the journal's end is missing.
    is_behind: bool,
    now: Now,
}

/// What is to be written, and what to say about it.
#[derive(Default)]
struct Plan {
    writes: Vec<Write>,
    told: Vec<String>,
}

impl Plan {
    /// Keeps a value under a name, here and on disk.
    fn keep(&mut self, image: &mut Image, name: &'static str, value: Vec<u8>) {
        image.meta.insert(name.into(), value.clone());
        self.writes.push(Write::Meta { name, value });
    }

    fn delete(&mut self, image: &mut Image, name: &'static str) {
        image.meta.remove(name);
        self.writes.push(Write::MetaDelete { name });
    }

    fn tell(&mut self, words: impl Into<String>) {
        self.told.push(words.into());
    }
}

impl Found<'_> {
    fn me(&self) -> NodeId {
        self.key.node_id()
    }

    /// The writes to do and what to tell, or else what is lost. `ended` looks for the end of a
    /// membership in the backups.
    fn plan(
        &self,
        image: &mut Image,
        mut traces: Vec<Trace>,
        name: Option<NodeName>,
        ended: impl FnOnce() -> Option<Past>,
    ) -> Result<Plan, String> {
        let mut plan = Plan::default();
        if !image.damage.is_none() {
            plan.tell(format!(
                "the journal was damaged: {}. What is left of it counts, what a change said comes \
                 back from the members that have it, and the file as it was is kept as \
                 journal.damaged",
                image.damage
            ));
        }
        if self.is_behind {
            plan.tell(format!(
                "the journal lost its end, commits that had been acknowledged: {} changes are left. \
                 What other members hold comes back from them, what only this node held is gone",
                image.changes.len()
            ));
        }
        let datacenter = self.datacenter(image, &traces, &mut plan)?;
        let place = traces.iter().position(|trace| Some(trace.replica.datacenter()) == datacenter);
        let own = place.map(|place| traces.remove(place));
        if let Some(datacenter) = datacenter {
            let Some(mut trace) = own else {
                return Err(format!(
                    "all that it held of its Data Center ({}) is lost",
                    datacenter.short()
                ));
            };
            self.stand(image, &mut trace, name, &mut plan)?;
            self.reached(image, &trace, &mut plan);
            forget(&traces, &mut plan);
        } else if lost(image, META_LINKS) {
            plan.delete(image, META_LINKS);
            plan.tell("this node's links, as `peerage links set` kept them, were damaged and are lost: set them again");
        }
        self.last_membership(image, datacenter, &traces, ended, &mut plan);
        if lost(image, META_TWIN) {
            let notice = Notice {
                message: "this host keeps apart: that another host with its node.key was alive is \
                          on its disk, and which one is damaged"
                    .into(),
                hint: TWIN_HINT.into(),
                removed: false,
            };
            plan.keep(image, META_TWIN, notice.bytes());
            plan.tell(notice.message);
        }
        self.boot(image, &mut plan);
        if lost(image, META_PORT) {
            plan.delete(image, META_PORT);
            plan.tell("the port that this agent had was damaged and is lost: it may take another");
        }
        plan.writes.push(Write::Mended);
        Ok(plan)
    }

    /// Which Data Center the node is in.
    fn datacenter(
        &self,
        image: &mut Image,
        traces: &[Trace],
        plan: &mut Plan,
    ) -> Result<Option<DataCenterId>, String> {
        let stated = image.meta.get(META_DATACENTER);
        let stated = stated.and_then(|id| id.as_slice().try_into().ok()).map(DataCenterId);
        let by_about = self.about.and_then(|about| about.label.datacenter.as_ref());
        let by_about = by_about.map(|(datacenter, _)| *datacenter);
        let in_doubt = image.damage.unnamed > 0 || self.is_behind;
        if let (Some(stated), true, Some(_)) = (stated, in_doubt, self.about) {
            let stands = |trace: &Trace| {
                trace.replica.datacenter() == stated && trace.roster.is_current(&self.me())
            };
            return match by_about {
                Some(later) if later != stated && self.is_behind => Err(format!(
                    "its end is lost, in which this node went from the Data Center {} to {}",
                    stated.short(),
                    later.short()
                )),
                None if self.is_behind || !traces.iter().any(stands) => {
                    plan.delete(image, META_DATACENTER);
                    plan.tell(
                        "that this node left its Data Center is in a part of the journal that is \
                         lost: it stays out",
                    );
                    Ok(None)
                }
                _ => Ok(Some(stated)),
            };
        }
        let is_sure = !lost(image, META_DATACENTER) && image.damage.unnamed == 0 && !self.is_behind;
        if stated.is_some() || is_sure {
            return Ok(stated);
        }
        let found = self.derived(traces, by_about)?;
        match found {
            Some(trace) => {
                let datacenter = trace.replica.datacenter();
                plan.keep(image, META_DATACENTER, datacenter.0.to_vec());
                plan.tell(format!(
                    "which Data Center this node is in was damaged; its signed changes say {} ({})",
                    trace.roster.datacenter_name,
                    datacenter.short()
                ));
            }
            None => {
                if lost(image, META_DATACENTER) {
                    let is_known = self.about.is_some() || self.ended(traces).is_some();
                    if !is_known {
                        return Err("which Data Center this node is in is lost, and all that was \
                                    decided there"
                            .into());
                    }
                    plan.tell(
                        "which Data Center this node was in was damaged; it is in none any more",
                    );
                }
                plan.delete(image, META_DATACENTER);
            }
        }
        Ok(found.map(|trace| trace.replica.datacenter()))
    }

    /// The Data Center that signed changes say the node is in; none where it is in none.
    fn derived<'t>(
        &self,
        traces: &'t [Trace],
        by_about: Option<DataCenterId>,
    ) -> Result<Option<&'t Trace>, String> {
        let me = self.me();
        // The label beside the journal is at least as new as a journal that lost its end.
        if self.is_behind && self.about.is_some() && by_about.is_none() {
            return Ok(None);
        }
        let is_ended = |trace: &Trace| trace.roster.member(&me).is_some_and(|m| !m.is_current());
        let named = traces.iter().find(|trace| Some(trace.replica.datacenter()) == by_about);
        let current: Vec<_> = traces.iter().filter(|t| t.roster.is_current(&me)).collect();
        match (&current[..], named) {
            ([one], _) => Ok(Some(one)),
            ([_, ..], Some(named)) if named.roster.is_current(&me) => Ok(Some(named)),
            ([_, ..], _) => Err("which of several Data Centers this node is in is lost".into()),
            // The node's own admission is among the lost changes.
            ([], Some(named)) if !is_ended(named) => Ok(Some(named)),
            ([], None) => match (by_about, traces) {
                (Some(datacenter), _) => Err(format!(
                    "all that it held of its Data Center ({}) is lost",
                    datacenter.short()
                )),
                (None, [one]) if self.about.is_none() && !is_ended(one) => Ok(Some(one)),
                (None, _) => Ok(None),
            },
            ([], Some(_)) => Ok(None),
        }
    }

    /// Sees to it that the node is a member of the Data Center that it is in. Changes of others,
    /// and changes of its own that others hold, come back from them; a node that is alone writes
    /// anew what only it had written.
    fn stand(
        &self,
        image: &mut Image,
        trace: &mut Trace,
        name: Option<NodeName>,
        plan: &mut Plan,
    ) -> Result<(), String> {
        let me = self.me();
        let label = self.about.map(|about| &about.label);
        if trace.roster.current().next().is_none() && trace.roster.member(&me).is_none() {
            let only_that = image.damage.changes.len() == 1 && image.damage.unnamed == 0;
            if !only_that || self.is_behind {
                return Err("no member of its Data Center is left in it, this node included".into());
            }
            let name = label
                .and_then(|label| label.name.parse().ok())
                .or(name)
                .or_else(|| format!("node-{}", me.short()).parse().ok())
                .ok_or("this node has no name")?;
            let admission = trace.roster.admission(&me, &name, &[], me, None, self.now.wall_ms);
            self.say(image, trace, member_path(&me), admission, plan)?;
            plan.tell("this node's own admission was damaged, and no other member holds it: it is written anew");
        }
        let alone = trace.roster.others(me).next().is_none();
        if let (true, "", Some((_, name))) = (
            alone,
            trace.roster.datacenter_name.as_str(),
            label.and_then(|label| label.datacenter.as_ref()),
        ) {
            let founding = Roster::founding(name, self.now.wall_ms);
            self.say(image, trace, datacenter_path(), founding, plan)?;
            plan.tell(format!("the Data Center's name was damaged: it is {name} again"));
        }
        Ok(())
    }

    fn say(
        &self,
        image: &mut Image,
        trace: &mut Trace,
        path: Path,
        edit: Edit,
        plan: &mut Plan,
    ) -> Result<(), String> {
        let actor = Actor { who: "peerage".into(), via: "agent".into() };
        let written = trace.replica.write(&path, edit, actor, rand::random(), self.now);
        let (_, outputs) = written.map_err(|error| error.to_string())?;
        let Outputs { commit, .. } = outputs;
        for op in &commit.ops {
            if let StoreOp::Put { bytes, .. } = op {
                image.changes.push(bytes.clone());
            }
        }
        plan.writes.extend(commit.ops.into_iter().map(Write::Replica));
        trace.roster = Roster::of(&trace.replica);
        Ok(())
    }

    /// Where a member was reached, as its own record says.
    fn reached(&self, image: &mut Image, trace: &Trace, plan: &mut Plan) {
        let addresses = trace.roster.member(&self.me()).map(|me| me.addresses.clone());
        let addresses: Vec<Address> = addresses.unwrap_or_default();
        if lost(image, META_PORT)
            && let Some(address) = addresses.first()
        {
            plan.keep(image, META_PORT, address.port().to_be_bytes().to_vec());
            plan.tell(format!(
                "the agent's port was damaged; its own record says {}",
                address.port()
            ));
        }
        if !lost(image, META_LINKS) {
            return;
        }
        let link = |(place, address): (usize, &Address)| {
            let address = address.to_string().parse().ok()?;
            Some(Link { address, priority: Priority::of_place(place), name: None })
        };
        let links: Vec<_> = addresses.iter().enumerate().filter_map(link).collect();
        match links.is_empty() {
            true => {
                plan.delete(image, META_LINKS);
                plan.tell("this node's links, as `peerage links set` kept them, were damaged and are lost: set them again");
            }
            false => {
                let value = serde_json::to_vec(&links).expect("links are plain text and numbers");
                plan.keep(image, META_LINKS, value);
                plan.tell(
                    "this node's links, as `peerage links set` kept them, were damaged: the \
                     addresses are those that the others know, and their names are lost (`peerage \
                     links`)",
                );
            }
        }
    }

    /// Mends how the last membership ended, and keeps a node out that may have been taken out,
    /// until somebody tells it to join.
    fn last_membership(
        &self,
        image: &mut Image,
        datacenter: Option<DataCenterId>,
        traces: &[Trace],
        ended: impl FnOnce() -> Option<Past>,
        plan: &mut Plan,
    ) {
        let went_out = datacenter.is_none() && !image.meta.contains_key(META_NOTICE);
        if lost(image, META_PAST) {
            match self.ended(traces).or_else(ended) {
                Some(past) => {
                    plan.keep(image, META_PAST, past.encode());
                    plan.tell("how this node's last membership ended was damaged; its signed changes say it");
                }
                None => {
                    plan.delete(image, META_PAST);
                    plan.tell(
                        "how this node's last membership ended was damaged and is lost: who still \
                         takes it for a member there hears no proof (`peerage remove` there helps)",
                    );
                }
            }
        }
        let past = image.meta.get(META_PAST).and_then(|past| Past::decode(past));
        let leftover = traces.iter().any(|trace| trace.roster.member(&self.me()).is_some());
        let is_hidden = image.damage.unnamed > 0 && (past.is_some() || leftover);
        let wants = lost(image, META_NOTICE) || self.is_behind || is_hidden;
        if datacenter.is_some() {
            if lost(image, META_NOTICE) {
                plan.delete(image, META_NOTICE);
            }
        } else if went_out && wants {
            let removed = past.as_ref().is_some_and(|past| past.says_removed(&self.me()));
            let how = past.map_or_else(
                || "may have left a Data Center: what would say so on its disk is lost".into(),
                |past| past.how,
            );
            let hint = if removed { REMOVED_HINT } else { LEFT_HINT };
            let notice = Notice { message: format!("this node {how}"), hint: hint.into(), removed };
            plan.keep(image, META_NOTICE, notice.bytes());
            plan.tell(
                "whether this node was taken out of a Data Center is lost: it joins one only when it \
                 is told to",
            );
        }
    }

    /// The end of this node's membership, where a signed change says it.
    fn ended(&self, traces: &[Trace]) -> Option<Past> {
        let me = self.me();
        let ended = |trace: &&Trace| ending_of(&trace.replica, &me).is_some();
        let Trace { replica, roster } = traces.iter().find(ended)?;
        let datacenter = &roster.datacenter_name;
        let how = match &roster.member(&me)?.standing {
            Standing::Member => return None,
            Standing::Left(ending) => {
                format!("left {datacenter}: {} on {}", ending.who, roster.name_of(&ending.by))
            }
            Standing::Removed(ending) => {
                let on = roster.name_of(&ending.by);
                format!("was removed from {datacenter} by {} on {on}", ending.who)
            }
        };
        Some(Past::of(replica, &me, how))
    }

    /// The number of the last start: at least as high as any that is known.
    fn boot(&self, image: &mut Image, plan: &mut Plan) {
        let kept = image.meta.get(META_BOOT).and_then(|boot| boot.as_slice().try_into().ok());
        let kept = kept.map(u64::from_be_bytes);
        let by_about = self.about.map(|about| about.label.boot);
        let known = kept.max(by_about);
        if known != kept || lost(image, META_BOOT) {
            plan.keep(image, META_BOOT, known.unwrap_or(0).to_be_bytes().to_vec());
        }
        if lost(image, META_BOOT) {
            plan.tell("the number of this node's starts was damaged: it goes on from the last that is known, and the clock");
        }
    }
}

/// Whether the value under a name was damaged, and is not mended.
fn lost(image: &Image, name: &str) -> bool {
    image.damage.meta.iter().any(|lost| lost == name) && !image.meta.contains_key(name)
}

/// Forgets changes of other Data Centers: this node had put them aside, but the record of that is
/// lost.
fn forget(traces: &[Trace], plan: &mut Plan) {
    let mut forgotten = 0;
    for trace in traces {
        for change in trace.replica.delta(&Vector::default()).0 {
            plan.writes.push(Write::Replica(StoreOp::Forget(change.dot)));
            forgotten += 1;
        }
    }
    if forgotten > 0 {
        plan.tell(format!(
            "{forgotten} changes of a Data Center that this node is not in are forgotten"
        ));
    }
}
