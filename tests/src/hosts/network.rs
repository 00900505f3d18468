//! The network that hosts share: a bridge in a namespace of its own, one cable to each host. There
//! is no way out of it.

use std::process::Command;

use super::kit::{system, unique};

/// The first three numbers of the hosts' addresses.
const NET: &str = "10.66.0";

/// A bridge with a socket for each host. Dropping it takes it away.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    hosts: usize,
}

impl Network {
    /// A network for `hosts` hosts, numbered from 1.
    ///
    /// # Panics
    /// When this machine does not let us.
    pub fn new(hosts: usize) -> Self {
        // Made first, so that what follows is taken away also where it fails half-way.
        let network = Self { prefix: unique(), hosts };
        let bridge = network.bridge();
        system("ip", &["netns", "add", &bridge]);
        let within = |line: &str| system("ip", &[&["-n", &bridge], &words(line)[..]].concat());
        within("link add br0 type bridge");
        within("link set br0 up");
        for number in 1..=hosts {
            let host = network.namespace(number);
            system("ip", &["netns", "add", &host]);
            within(&format!("link add p{number} type veth peer name eth0 netns {host}"));
            within(&format!("link set p{number} master br0 up"));
            let inside = |line: &str| system("ip", &[&["-n", &host], &words(line)[..]].concat());
            inside("link set lo up");
            inside(&format!("addr add {}/24 dev eth0", network.address(number)));
            inside("link set eth0 up");
        }
        network
    }

    /// The namespace of a host.
    pub fn namespace(&self, number: usize) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// The address of a host.
    pub fn address(&self, number: usize) -> String {
        format!("{NET}.{number}")
    }

    fn bridge(&self) -> String {
        format!("{}-net", self.prefix)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let names = (1..=self.hosts).map(|number| self.namespace(number)).chain([self.bridge()]);
        for name in names {
            // One that was never made cannot be taken away.
            let _ = Command::new("ip").args(["netns", "delete", &name]).output();
        }
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}
