//! A second host: a network namespace, joined to this one by a veth pair. Root only.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

/// A namespace with one address; removed on drop. File systems are shared with it.
#[derive(Debug)]
pub struct Netns {
    name: String,
    near: Ipv4Addr,
    far: Ipv4Addr,
}

impl Netns {
    /// Makes one; `None`, with a notice on stderr, where that cannot be.
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED what needs a second host: not root");
            return None;
        }
        let random = RandomState::new().build_hasher().finish() as u32;
        let (near, far) = free_pair(random);
        let netns = Self { name: format!("fcpt{random:08x}"), near, far };
        match netns.set_up() {
            Ok(()) => Some(netns),
            Err(why) => {
                eprintln!("SKIPPED what needs a second host: {why}");
                None
            }
        }
    }

    /// This side's address on the link.
    pub fn near(&self) -> Ipv4Addr {
        self.near
    }

    /// The namespace's own address.
    pub fn far(&self) -> Ipv4Addr {
        self.far
    }

    /// A command that runs inside.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// A firewall in front of it: what comes for ports from this one up is dropped silently. (Its
    /// answers find no route; that needs no packet filter, which not every kernel has.)
    pub fn drop_ports_from(&self, port: u16) {
        let far = self.far.to_string();
        let ports = format!("{port}-65534");
        let steps: [&[&str]; 3] = [
            &["rule", "add", "pref", "20", "table", "local"],
            &[
                "rule",
                "add",
                "pref",
                "10",
                "from",
                &far,
                "ipproto",
                "tcp",
                "sport",
                &ports,
                "blackhole",
            ],
            &["rule", "del", "pref", "0"],
        ];
        steps.iter().for_each(|step| self.inside(step).unwrap());
    }

    fn set_up(&self) -> Result<(), String> {
        let (inner, outer) = (self.inner_link(), self.outer_link());
        let [near, far] = [self.near, self.far].map(|address| format!("{address}/30"));
        ip(&["netns", "add", &self.name])?;
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &self.name])?;
        ip(&["addr", "add", &near, "dev", &outer])?;
        ip(&["link", "set", &outer, "up"])?;
        self.inside(&["addr", "add", &far, "dev", &inner])?;
        self.inside(&["link", "set", &inner, "up"])?;
        self.inside(&["link", "set", "lo", "up"])
    }

    fn inside(&self, args: &[&str]) -> Result<(), String> {
        ip(&[&["-n", &self.name], args].concat())
    }

    /// Names of links have at most 15 bytes.
    fn outer_link(&self) -> String {
        format!("{}o", self.name)
    }

    fn inner_link(&self) -> String {
        format!("{}i", self.name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A process inside keeps the namespace, but its link goes at once.
        let _ = ip(&["link", "del", &self.outer_link()]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// The two addresses of a /30 in 10.192.0.0/10 that no link of this host has.
fn free_pair(random: u32) -> (Ipv4Addr, Ipv4Addr) {
    let taken = Command::new("ip").args(["-4", "-o", "addr"]).output();
    let taken = taken.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let pair = |step: u32| {
        let base = 0x0ac0_0000 | (random.wrapping_add(step) << 2 & 0x003f_fffc);
        (Ipv4Addr::from(base | 1), Ipv4Addr::from(base | 2))
    };
    let free = |pair: &(Ipv4Addr, Ipv4Addr)| !taken.contains(&format!(" {}/", pair.0));
    (0..).map(pair).find(free).expect("some /30 is free")
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|e| format!("ip: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
