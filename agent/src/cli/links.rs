//! `peerage links`.

use clap::{Args, Subcommand};
use peerage_proto::api::links::{
    GetLinks, GetNodeLinks, LinkWish, Links, OwnLink, PeerLinks, ResetLinks, SetLinks,
};

use super::table::Table;
use super::text::{UNKNOWN, or_unknown};
use super::{Client, Console, Outcome};

/// Tell where this node and the others are reached.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct LinksArgs {
    #[command(subcommand)]
    command: Option<LinksCommand>,
    /// Only of this member: its name, its id, or the beginning of its id
    node: Option<String>,
}

#[derive(Debug, Subcommand)]
enum LinksCommand {
    /// Make these the links of this node, in place of all that it had, over restarts too
    Set {
        /// An IP address of this node, or a DNS name that leads to it, which the others look up when
        /// they dial; without a port it is the one that the agent listens on. 1 is the best priority
        /// and the default, 255 the last; of equal ones the first is tried first
        #[arg(required = true, value_name = "ADDRESS[:PORT][@PRIORITY]")]
        links: Vec<LinkWish>,
    },
    /// Go back to the links of the configuration, or else to the host's interfaces
    Auto,
}

pub(super) async fn links(args: LinksArgs, client: &Client, console: &mut Console) -> Outcome {
    let waiting = "asking the agent";
    let links = match (args.command, args.node) {
        (None, None) => console.attend(waiting, client.call(&GetLinks {})).await?,
        (None, Some(node)) => {
            let links = console.attend(waiting, client.call(&GetNodeLinks { node })).await?;
            return show_node(&links, console);
        }
        (Some(LinksCommand::Set { links }), _) => {
            console.attend("setting the links", client.call(&SetLinks { links })).await?
        }
        (Some(LinksCommand::Auto), _) => {
            console.attend("setting the links", client.call(&ResetLinks {})).await?
        }
    };
    show(&links, console)
}

fn show(links: &Links, console: &mut Console) -> Outcome {
    if console.wants_json() {
        return console.json(links);
    }
    console.table(&own(links))?;
    if !links.peers.is_empty() {
        console.line("")?;
        console.table(&peers(&links.peers))?;
    }
    if let Some(overruled) = &links.overruled {
        console.say(format_args!(
            "set at run time; what {overruled} says does not count until `peerage links auto`"
        ));
    }
    Ok(())
}

fn own(links: &Links) -> Table {
    let mut table = Table::new(&["LINK", "PRIORITY", "NAME", "INTERFACE", "IN", "SOURCE"]);
    let source = links.layer.as_deref().unwrap_or(&links.source);
    for OwnLink { address, priority, name, interface, peers_in, .. } in &links.links {
        let (priority, peers_in) = (priority.to_string(), peers_in.to_string());
        let (name, interface) = (or_unknown(name.as_deref()), or_unknown(interface.as_deref()));
        table.row([address.as_str(), &priority, name, interface, &peers_in, source]);
    }
    table
}

fn peers(peers: &[PeerLinks]) -> Table {
    let mut table = Table::new(&["PEER", "STATE", "LINK", "RTT", "PATH"]);
    for peer in peers {
        let link = or_unknown(peer.address.as_deref());
        table.row([peer.name.as_str(), peer.state.word(), link, &rtt(peer), &peer.path]);
    }
    table
}

fn show_node(links: &PeerLinks, console: &mut Console) -> Outcome {
    if console.wants_json() {
        return console.json(links);
    }
    console.table(&of_node(links))?;
    // A peer that dialled from behind NAT, or from a port of its own, is seen at none of its links.
    // A name is reached at the address to which it leads.
    let listed =
        |used: &&String| links.addresses.iter().chain(&links.seen_at).any(|at| at == *used);
    if let Some(address) = links.address.as_ref().filter(|used| !listed(used)) {
        if links.dialled == Some(true) {
            console.say(format_args!("{} is reached at {address}", links.name));
            return Ok(());
        }
        console.say(format_args!("{} is connected from {address}", links.name));
    }
    Ok(())
}

fn of_node(links: &PeerLinks) -> Table {
    let mut table = Table::new(&["LINK", "RANK", "USE"]);
    let in_use = |address: &String| links.address.as_ref() == Some(address);
    for (index, address) in links.addresses.iter().enumerate() {
        let word = if in_use(address) { rtt(links) } else { UNKNOWN.to_owned() };
        table.row([address.as_str(), &(index + 1).to_string(), &word]);
    }
    for (index, address) in links.seen_at.iter().enumerate() {
        let rank = (links.addresses.len() + index + 1).to_string();
        let word =
            if in_use(address) { rtt(links) } else { "seen there when it joined".to_owned() };
        table.row([address.as_str(), &rank, &word]);
    }
    table
}

fn rtt(peer: &PeerLinks) -> String {
    peer.rtt_ms.map_or(UNKNOWN.to_owned(), |rtt_ms| format!("{rtt_ms:.1}ms"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn links_line_up_and_the_one_in_use_is_marked() {
        let links: Links = serde_json::from_value(json!({
            "source": "interfaces",
            "links": [{"address": "192.0.2.7:4747", "rank": 1, "priority": 1, "name": null,
                       "interface": "eth0", "peers_in": 1}],
            "peers": [{"name": "pve-2", "id": "01", "state": "alive", "address": "192.0.2.8:4747",
                       "dialled": true, "path": "direct", "rtt_ms": 0.25,
                       "addresses": ["10.0.0.8:4747", "192.0.2.8:4747"],
                       "seen_at": ["203.0.113.8:31000"]}],
        }))
        .unwrap();
        let expected = "\
LINK            PRIORITY  NAME  INTERFACE  IN  SOURCE
192.0.2.7:4747  1         -     eth0       1   interfaces
";
        assert_eq!(own(&links).to_string(), expected);
        let expected = "\
PEER   STATE  LINK            RTT    PATH
pve-2  alive  192.0.2.8:4747  0.2ms  direct
";
        assert_eq!(peers(&links.peers).to_string(), expected);
        let expected = "\
LINK               RANK  USE
10.0.0.8:4747      1     -
192.0.2.8:4747     2     0.2ms
203.0.113.8:31000  3     seen there when it joined
";
        assert_eq!(of_node(&links.peers[0]).to_string(), expected);
    }
}
