//! Which arguments ssh is given. Pure.
//!
//! The user's own options come first: ssh keeps the first value that it is told. No path of a
//! transfer is ever among the arguments, so nothing needs quoting for the remote shell.

use std::ffi::{OsStr, OsString};

use fcp_proto::packet::HELLO_VARIABLE;
use fcp_proto::version::Hello;

use super::{Place, SshOptions};
use crate::connect::ssh::probe::HostFacts;

/// What scp switches off, too: whatever ssh_config has for interactive use.
const PLAIN: [&str; 7] = [
    "-x",
    "-T",
    "-oForwardAgent=no",
    "-oPermitLocalCommand=no",
    "-oClearAllForwardings=yes",
    "-oRemoteCommand=none",
    "-oRequestTTY=no",
];
/// For logins that nobody shall be asked about. `none` keeps a dialog of the desktop away, too.
const QUIET: [&str; 3] = ["-oBatchMode=yes", "-oNumberOfPasswordPrompts=0", "-oControlMaster=no"];

/// How a login is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Login<'a> {
    /// The one that may ask the user. It serves as master at this path, if there is one.
    First(Option<&'a str>),
    /// Asks nobody: a connection of its own, or a channel of a master that ssh_config names.
    Quiet,
    /// Asks nobody: a channel of our own master at this path.
    Channel(&'a str),
    /// One that an askpass program answers, a single time.
    Answered,
    /// One that asks nobody but shares connections as ssh_config has it.
    Alone,
}

/// What runs over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run<'a> {
    /// A command line for the remote shell.
    Command(&'a str),
    /// Standard input and output go to this port of the host's own loopback.
    Forward(u16),
    /// A subsystem of this name.
    Subsystem(&'a str),
    /// A command line for the remote shell, in whatever bytes.
    Line(&'a OsStr),
}

impl SshOptions {
    /// Whether the program is OpenSSH's, judged by its name.
    pub fn is_openssh(&self) -> bool {
        let name = self.program.first().map(std::path::Path::new).and_then(|p| p.file_name());
        name.is_some_and(|name| name == "ssh")
    }
}

/// What starts fcpd for a session's first connection.
///
/// OpenSSH passes on nothing of standard input before the host has said that the command runs. So
/// the command line tells what HELLO will say, where that cannot be misunderstood: `env` is no
/// shell's, and an older fcpd takes no notice.
pub(super) fn first_command(options: &SshOptions, hello: &Hello) -> String {
    let command = format!("{} --stdio", options.remote_fcpd);
    if options.is_openssh() && is_plainly_fcpd(&options.remote_fcpd) {
        return format!("env {HELLO_VARIABLE}={} {command}", hello.to_hex());
    }
    command
}

/// Whether it is a program's name, perhaps with options: nothing that a shell does itself, or that
/// keeps its variables to itself, as sudo.
fn is_plainly_fcpd(command: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-+/~ ".contains(c);
    let program = command.split(' ').next().and_then(|program| program.rsplit('/').next());
    program.is_some_and(|name| name.starts_with("fcpd")) && command.chars().all(is_plain)
}

/// The arguments, the program first.
pub(super) fn arguments(
    place: &Place,
    options: &SshOptions,
    facts: Option<&HostFacts>,
    login: Login<'_>,
    run: Run<'_>,
) -> Vec<OsString> {
    let mut args = options.program.clone();
    if options.is_openssh() {
        if matches!(login, Login::First(_)) {
            // Each one is a line for every packet on the user's screen.
            args.extend((3..=options.verbose.min(5)).map(|_| "-v".into()));
        }
        args.extend(chosen(place, options));
        args.extend(PLAIN.map(OsString::from));
        args.extend(login_options(facts, login));
        args.extend(user(place));
        if let Run::Forward(port) = run {
            args.extend(["-W".into(), format!("127.0.0.1:{port}").into()]);
        }
        if let Run::Subsystem(_) = run {
            args.push("-s".into());
        }
        args.extend(["--".into(), place.host.clone().into()]);
        match run {
            Run::Command(line) | Run::Subsystem(line) => args.push(line.into()),
            Run::Line(line) => args.push(line.to_owned()),
            Run::Forward(_) => {}
        }
        return args;
    }
    // What rsync gives: any other program understands that, if anything.
    args.extend(user(place));
    args.push(place.host.clone().into());
    if let Run::Command(line) = run {
        args.extend(line.split_whitespace().map(OsString::from));
    }
    args
}

/// The arguments that make OpenSSH tell what it would do for `place`.
pub(super) fn probe_arguments(place: &Place, options: &SshOptions) -> Vec<OsString> {
    let mut args = options.program.clone();
    args.push("-G".into());
    args.extend(chosen(place, options));
    args.extend(user(place));
    args.extend(["--".into(), place.host.clone().into()]);
    args
}

/// The arguments that make it tell what it would do without any configuration.
pub(super) fn default_arguments(options: &SshOptions) -> Vec<OsString> {
    let mut args: Vec<OsString> = options.program.iter().take(1).cloned().collect();
    args.extend(["-G", "-F", "none", "--", "localhost"].map(OsString::from));
    args
}

/// What the user chose, as ssh spells it.
fn chosen(place: &Place, options: &SshOptions) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut put = |flag: &str, value: OsString| args.extend([flag.into(), value]);
    options.config_file.iter().for_each(|file| put("-F", file.into()));
    options.options.iter().for_each(|option| put("-o", option.into()));
    options.identities.iter().for_each(|file| put("-i", file.into()));
    options.jump.iter().for_each(|jump| put("-J", jump.into()));
    if let Some(port) = place.port.or(options.port) {
        put("-p", port.to_string().into());
    }
    let switches = [(options.ipv4, "-4"), (options.ipv6, "-6"), (options.compress, "-C")];
    args.extend(switches.iter().filter(|(on, _)| *on).map(|(_, flag)| OsString::from(flag)));
    args
}

fn user(place: &Place) -> impl Iterator<Item = OsString> {
    place.user.iter().flat_map(|user| ["-l".into(), user.into()])
}

fn login_options(facts: Option<&HostFacts>, login: Login<'_>) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let ciphers = facts.and_then(|facts| facts.better_ciphers.as_ref());
    args.extend(ciphers.map(|list| format!("-oCiphers={list}").into()));
    match login {
        Login::First(Some(path)) => {
            args.extend(["-oControlMaster=yes".into(), "-oControlPersist=no".into()]);
            args.push(format!("-oControlPath={path}").into());
        }
        Login::First(None) => {}
        Login::Quiet => {
            args.extend(QUIET.map(OsString::from));
            let keys = facts.and_then(|facts| facts.silent_keys.as_ref());
            args.extend(keys.map(|option| format!("-o{option}").into()));
        }
        Login::Channel(path) => {
            args.extend(QUIET.map(OsString::from));
            args.push(format!("-oControlPath={path}").into());
        }
        Login::Answered => args.push("-oNumberOfPasswordPrompts=1".into()),
        Login::Alone => args.extend(QUIET[..2].iter().map(OsString::from)),
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { user: Some("bob".into()), host: "example.org".into(), port: None }
    }

    fn shown(options: &SshOptions, login: Login<'_>, run: Run<'_>) -> String {
        let args = arguments(&place(), options, None, login, run);
        args.iter().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join("|")
    }

    const FCPD: Run<'_> = Run::Command("fcpd --stdio");

    #[test]
    fn the_command_line_tells_hello_where_nothing_misunderstands_it() {
        let hello = Hello::ours(3);
        let with = |program: &str, fcpd: &str| {
            let (program, remote_fcpd) = (vec![program.into()], fcpd.into());
            let options = SshOptions { program, remote_fcpd, ..SshOptions::default() };
            first_command(&options, &hello)
        };
        for fcpd in ["fcpd", "~/.local/bin/fcpd", "/opt/fcp-2/fcpd-2.0 --no-direct"] {
            let expected = format!("env FCPD_HELLO={} {fcpd} --stdio", hello.to_hex());
            assert_eq!(with("ssh", fcpd), expected);
            assert_eq!(with("docker", fcpd), format!("{fcpd} --stdio"));
        }
        for fcpd in ["sudo fcpd", "exec fcpd", ". x; fcpd", "fcpd; id", "X=1 fcpd", "fcpd|fcpd", ""]
        {
            assert_eq!(with("/usr/bin/ssh", fcpd), format!("{fcpd} --stdio"));
        }
    }

    #[test]
    fn the_first_login_may_ask_and_runs_nothing_but_fcpd() {
        assert_eq!(
            shown(&SshOptions::default(), Login::First(Some("/r/m")), FCPD),
            "ssh|-x|-T|-oForwardAgent=no|-oPermitLocalCommand=no|-oClearAllForwardings=yes|\
             -oRemoteCommand=none|-oRequestTTY=no|-oControlMaster=yes|-oControlPersist=no|\
             -oControlPath=/r/m|-l|bob|--|example.org|fcpd --stdio"
        );
    }

    #[test]
    fn what_the_user_chose_comes_before_what_we_choose() {
        let options = SshOptions {
            config_file: Some("cfg".into()),
            identities: vec!["k1".into(), "k2".into()],
            jump: Some("j".into()),
            options: vec!["ForwardAgent=yes".into()],
            port: Some(22),
            ipv6: true,
            compress: true,
            ..SshOptions::default()
        };
        let all = shown(&options, Login::First(None), FCPD);
        let ours = all.find("-oForwardAgent=no").unwrap();
        let theirs = "|-F|cfg|-o|ForwardAgent=yes|-i|k1|-i|k2|-J|j|-p|22|-6|-C|";
        assert!(all.find(theirs).unwrap() < ours, "{all}");
    }

    #[test]
    fn a_subsystem_is_asked_for_by_name_and_a_command_line_stays_as_it_is() {
        let all = shown(&SshOptions::default(), Login::Alone, Run::Subsystem("sftp"));
        assert!(all.contains("-oBatchMode=yes") && !all.contains("ControlMaster"), "{all}");
        assert!(all.ends_with("|-s|--|example.org|sftp"), "{all}");
        let line = OsStr::new("sha256sum -- 'a b'");
        let all = shown(&SshOptions::default(), Login::Answered, Run::Line(line));
        assert!(all.contains("|-oNumberOfPasswordPrompts=1|") && !all.contains("Batch"), "{all}");
        assert!(all.ends_with("|--|example.org|sha256sum -- 'a b'"), "{all}");
    }

    #[test]
    fn the_port_of_the_operand_comes_before_the_options() {
        let place = Place { port: Some(7), ..place() };
        let options = SshOptions { port: Some(8), ..SshOptions::default() };
        let args = arguments(&place, &options, None, Login::First(None), FCPD);
        assert!(args.contains(&"7".into()) && !args.contains(&"8".into()));
    }

    #[test]
    fn further_logins_ask_nobody() {
        for login in [Login::Quiet, Login::Channel("/r/m")] {
            let all = shown(&SshOptions::default(), login, Run::Forward(7523));
            assert!(all.contains("BatchMode=yes") && all.contains("ControlMaster=no"), "{all}");
            assert!(all.ends_with("|-W|127.0.0.1:7523|--|example.org"), "{all}");
        }
    }

    #[test]
    fn another_program_gets_what_rsync_gives() {
        let program = vec!["docker".into(), "exec".into(), "-i".into()];
        let options = SshOptions { program, ..SshOptions::default() };
        assert_eq!(
            shown(&options, Login::Quiet, FCPD),
            "docker|exec|-i|-l|bob|example.org|fcpd|--stdio"
        );
        let path = SshOptions { program: vec!["/opt/bin/ssh".into()], ..SshOptions::default() };
        assert!(path.is_openssh());
    }

    #[test]
    fn a03_a_host_that_looks_like_an_option_is_none() {
        let place = Place { user: Some("-oX".into()), host: "-oProxyCommand=x".into(), port: None };
        let options = SshOptions::default();
        let args = arguments(&place, &options, None, Login::First(None), FCPD);
        let host = args.iter().position(|a| a == "-oProxyCommand=x").unwrap();
        assert_eq!(args[host - 1], "--");
        let user = args.iter().position(|a| a == "-oX").unwrap();
        assert_eq!(args[user - 1], "-l");
    }
}
