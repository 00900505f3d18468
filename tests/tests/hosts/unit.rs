//! What the unit keeps the agent from, seen on the running agent and tried from where it is.

use std::fs;

use peerage_tests::hosts::{Host, Kit, Site};

/// Tries what a process that was taken over would try. Each line: what, and whether it went well.
const INTRUDER: &str = r#"
use strict;
use POSIX ();
$| = 1;
sub told { my ($what, $done) = @_; print "$what: ", ($done ? "done" : "denied"), "\n"; }
for my $folder (qw(/etc /usr /boot /root /home /opt /var/lib /var/lib/peerage /tmp)) {
    my $done = open(my $file, '>', "$folder/intruder");
    unlink("$folder/intruder") if $done;
    told("write $folder", $done);
}
told("read /root", opendir(my $root, '/root'));
my %number = (
    x86_64 => { mmap => 9, socket => 41, unshare => 272, setuid => 105, sethostname => 170 },
    aarch64 => { mmap => 222, socket => 198, unshare => 97, setuid => 146, sethostname => 161 },
);
my $call = $number{(POSIX::uname())[4]};
# A page that is both written and executed; packets as they are on the wire; a user namespace.
told("writable code", syscall($call->{mmap}, 0, 4096, 7, 0x22, -1, 0) != -1);
told("raw packets", syscall($call->{socket}, 17, 3, 0) != -1);
told("namespaces", syscall($call->{unshare}, 0x10000000) != -1);
told("setuid root", syscall($call->{setuid}, 0) != -1);
my $name = 'pve-1';
told("host name", syscall($call->{sethostname}, $name, 5) != -1);
"#;

#[test]
fn the_running_agent_has_no_rights_to_lose() {
    let Some(kit) = Kit::here() else { return };
    let site = Site::booted(&kit, 1);
    let host = &site[0];
    host.install();
    host.answers();

    let agent = format!("/proc/{}", host.agent());
    let status = fs::read_to_string(format!("{agent}/status")).unwrap();
    let is = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {key} in {status}")).trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(is(set), "0000000000000000", "{set}");
    }
    assert_eq!([is("NoNewPrivs"), is("Seccomp")], ["1", "2"]);
    let user = host.shell("id -u peerage");
    assert_eq!(is("Uid"), [user.as_str(); 4].join("\t"));
    assert_eq!(is("Umask"), "0077");
    // The root of the file system is read-only for the agent.
    let mounts = fs::read_to_string(format!("{agent}/mountinfo")).unwrap();
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(root.split(' ').nth(5).unwrap().starts_with("ro"), "{root}");
}

#[test]
fn whoever_takes_the_agent_over_finds_nothing_to_do() {
    let Some(kit) = Kit::here() else { return };
    let site = Site::booted(&kit, 1);
    let host = &site[0];
    host.install();
    fs::write(host.path("/usr/local/lib/intruder.pl"), INTRUDER).unwrap();

    // The intruder runs in the agent's place, in its unit with all restrictions.
    let sandboxed = in_the_agents_place(host, "/usr/bin/perl /usr/local/lib/intruder.pl");
    let mut allowed: Vec<_> = sandboxed.lines().filter_map(|l| l.strip_suffix(": done")).collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["write /tmp", "write /var/lib/peerage"], "{sandboxed}");
    let tried = sandboxed.lines().filter(|line| line.ends_with(": denied")).count();

    // Without the unit root can do most of it: so it is the unit that denies.
    let free = host.shell("perl /usr/local/lib/intruder.pl");
    let denied = free.lines().filter(|line| line.ends_with(": denied")).count();
    assert!(denied + 8 < tried, "{free}");
    host.shell("rm /run/systemd/system/peerage.service && systemctl daemon-reload");
    host.shell("systemctl restart peerage");
    host.answers();
}

/// Runs a command as the agent's unit would, once, and returns what it printed.
fn in_the_agents_place(host: &Host, command: &str) -> String {
    let shipped = host.shell("cat /usr/lib/systemd/system/peerage.service");
    let once = shipped.lines().map(|line| match line.split_once('=') {
        Some(("ExecStart", _)) => format!("ExecStart={command}\n"),
        Some(("Type", _)) => "Type=oneshot\n".to_owned(),
        Some(("Restart" | "WatchdogSec", _)) => String::new(),
        _ => format!("{line}\n"),
    });
    host.shell("systemctl stop peerage && mkdir -p /run/systemd/system");
    let stand_in = once.collect::<String>();
    host.run_with(&["sh", "-c", "cat >/run/systemd/system/peerage.service"], &stand_in).exits(0);
    host.shell("systemctl daemon-reload && systemctl start peerage");
    host.journal(&["--identifier=perl"])
}
