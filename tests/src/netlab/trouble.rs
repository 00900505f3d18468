//! What goes wrong between hosts, as rules of the bridges.

use std::fmt::Write;

use super::layout::port;

/// Something that goes wrong on the way. Hosts are told by their index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Hosts of different sides do not reach each other.
    Split(Vec<Vec<usize>>),
    /// What one host sends to another is lost; what the other sends arrives.
    OneWay {
        /// The host whose packets are lost.
        from: usize,
        /// The host that does not get them.
        to: usize,
    },
    /// Two hosts do not reach each other, while both reach all others.
    Apart(usize, usize),
    /// This share of all packets is lost, in percent.
    Loss(u8),
    /// This share of the packets from and to one host is lost, in percent.
    LossAt(usize, u8),
}

/// The rules that stand for all troubles at once, in place of those that stood before.
pub(super) fn rules(troubles: &[Trouble], networks: usize) -> String {
    // A table must be there to be deleted, and creating one that is there changes nothing.
    let mut script = String::from("table bridge trouble\ndelete table bridge trouble\n");
    if troubles.is_empty() {
        return script;
    }
    script.push_str("table bridge trouble {\nchain forward {\n");
    script.push_str("type filter hook forward priority 0; policy accept;\n");
    for trouble in troubles {
        for network in 0..networks {
            trouble.write_rules(network, &mut script);
        }
    }
    script.push_str("}\n}\n");
    script
}

impl Trouble {
    fn write_rules(&self, network: usize, script: &mut String) {
        let ports = |hosts: &[usize]| {
            let quoted = hosts.iter().map(|host| format!("{:?}", port(network, *host)));
            format!("{{ {} }}", quoted.collect::<Vec<_>>().join(", "))
        };
        let mut rule = |rule: String| writeln!(script, "{rule}").expect("text can be appended to");
        match self {
            Self::Split(sides) => {
                for (at, from) in sides.iter().enumerate() {
                    for (other, to) in sides.iter().enumerate() {
                        if at != other && !from.is_empty() && !to.is_empty() {
                            rule(format!("iifname {} oifname {} drop", ports(from), ports(to)));
                        }
                    }
                }
            }
            Self::OneWay { from, to } => {
                // Neighbours still find each other: else the way back would soon end too.
                let way = format!("iifname {} oifname {}", ports(&[*from]), ports(&[*to]));
                rule(format!("{way} ether type ip drop"));
                rule(format!("{way} ether type ip6 meta l4proto != ipv6-icmp drop"));
            }
            Self::Apart(one, other) => {
                for (from, to) in [(one, other), (other, one)] {
                    rule(format!("iifname {} oifname {} drop", ports(&[*from]), ports(&[*to])));
                }
            }
            Self::Loss(percent) => rule(format!("numgen random mod 100 < {percent} drop")),
            Self::LossAt(host, percent) => {
                for way in ["iifname", "oifname"] {
                    let port = ports(&[*host]);
                    rule(format!("{way} {port} numgen random mod 100 < {percent} drop"));
                }
            }
        }
    }
}
