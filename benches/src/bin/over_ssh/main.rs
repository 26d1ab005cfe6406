//! fcp beside scp and rsync over a real sshd: on loopback, or over a long link between two network
//! namespaces that somebody else has made.

mod results;
mod tools;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fcp_benches::measure::Sample;
use fcp_benches::sshd::{Place, Server};
use fcp_benches::verify::{Depth, rsync_agrees, same_tree};
use fcp_benches::workload::{Source, Workload, empty, warm_pages};

use results::{Results, Row, Setting};
use tools::{Case, Tool, Turn, subject};

/// Times fcp, scp and rsync over ssh on the same data, checks every copy, writes the figures.
///
/// Over a long link: `--wan CLIENT-NETNS,SERVER-NETNS,SERVER-ADDRESS`, with what the link is in
/// `--link`, `--link-mbit` and `--rtt-ms`; the link must be up.
#[derive(Debug, Parser)]
struct Args {
    /// Where sources and copies stand; the sources stay there for the next run.
    #[arg(long, default_value = "/dev/shm/fcp-bench")]
    dir: PathBuf,
    /// Where `fcp` and `fcpd` are.
    #[arg(long, default_value = "target/release")]
    bin_dir: PathBuf,
    /// Where the results' folder is made [default: benches/runs, with --small DIR/runs].
    #[arg(long)]
    runs: Option<PathBuf>,
    /// The workloads to run, such as W1,W2 [default: W1,W2, with --wan L0,L1,L2,L3].
    #[arg(long, value_delimiter = ',')]
    only: Vec<Workload>,
    /// The tools to run, such as fcp,rsync [default: all that are installed].
    #[arg(long, value_delimiter = ',')]
    tools: Vec<String>,
    /// Measured rounds after the warm-up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Scaled down to seconds, to test the driver itself.
    #[arg(long)]
    small: bool,
    /// Arguments put before fcp's own, such as `--fcp-args=-j,2`.
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    fcp_args: Vec<String>,
    /// Network namespaces of client and server, and the server's address.
    #[arg(long, value_name = "CLIENT,SERVER,ADDRESS", value_parser = parse_wan)]
    wan: Option<Place>,
    /// The link in words.
    #[arg(long, default_value = "loopback")]
    link: String,
    /// The link's rate in Mbit/s.
    #[arg(long, default_value_t = 0.0)]
    link_mbit: f64,
    /// The link's round trip in ms.
    #[arg(long, default_value_t = 0.0)]
    rtt_ms: f64,
    /// What the goals are multiplied with, such as 0.85 on a link that loses packets.
    #[arg(long, default_value_t = 1.0)]
    goal_scale: f64,
    /// Put behind `over-ssh` in the name of the results' folder.
    #[arg(long, default_value = "")]
    label: String,
}

fn parse_wan(text: &str) -> Result<Place, String> {
    let [client, server, address] = text.split(',').collect::<Vec<_>>()[..] else {
        return Err("two namespaces and an address are needed, such as a,b,10.0.0.2".into());
    };
    let address: IpAddr = address.parse().map_err(|e| format!("{address}: {e}"))?;
    Ok(Place { address, netns: Some((client.into(), server.into())) })
}

impl Args {
    fn setting(&self) -> Setting {
        Setting {
            small: self.small,
            rounds: self.rounds.into(),
            link: self.link.clone(),
            link_mbit: self.link_mbit,
            rtt_ms: self.rtt_ms,
            goal_scale: self.goal_scale,
        }
    }

    fn cases(&self) -> Vec<Case> {
        let usual: &[Workload] =
            if self.wan.is_some() { &Workload::LONG } else { &[Workload::W1, Workload::W2] };
        let workloads = if self.only.is_empty() { usual } else { &self.only };
        let cold = |&workload| Case { workload, live: false };
        let live = workloads.contains(&Workload::L3);
        let live = live.then_some(Case { workload: Workload::L3, live: true });
        workloads.iter().map(cold).chain(live).collect()
    }

    /// The tools that are wanted and installed; a missing one is left out with a notice.
    fn available(&self, notices: &mut Vec<String>) -> Vec<Tool> {
        let mut tools = Vec::new();
        for tool in Tool::ALL {
            if !self.tools.is_empty() && !self.tools.iter().any(|name| name == tool.name()) {
                continue;
            }
            if tool.find(&self.bin_dir).is_some() {
                tools.push(tool);
            } else {
                let notice = format!("{} left out: it is not installed", tool.name());
                eprintln!("{notice}");
                notices.push(notice);
            }
        }
        tools
    }

    fn folder(&self) -> String {
        let blank = if self.label.is_empty() { "" } else { "-" };
        format!("over-ssh{blank}{}", self.label)
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("over_ssh: {e}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether every tool that ran made right copies.
fn run(args: &Args) -> io::Result<bool> {
    let mut results = Results::default();
    let tools = args.available(&mut results.notices);
    let left_out = results.notices.len();
    let dir = std::path::absolute(&args.dir)?;
    empty(&dir.join("copies"))?;
    let place = args.wan.clone().unwrap_or_else(Place::loopback);
    let mut server = Server::start(place, &dir, &args.bin_dir)?;
    for case in args.cases() {
        if case.live {
            server.open_master()?;
        }
        compare_tools(args, &server, &tools, case, &mut results)?;
        empty(&dir.join("copies"))?;
    }
    let setting = args.setting();
    println!("{}", results.tables(&setting));
    let usual = || if args.small { dir.join("runs") } else { "benches/runs".into() };
    let runs = args.runs.clone().unwrap_or_else(usual);
    println!("written to {}", results.write(&runs, &args.folder(), &setting)?.display());
    Ok(results.notices.len() == left_out)
}

/// All rounds of one case. A tool that fails is out of it from there on, its figures too.
fn compare_tools(
    args: &Args,
    server: &Server,
    tools: &[Tool],
    case: Case,
    results: &mut Results,
) -> io::Result<()> {
    let dir = std::path::absolute(&args.dir)?;
    let source = case.workload.make(&dir, args.small)?;
    let mut tools: Vec<Tool> = tools.iter().copied().filter(|t| t.runs(case)).collect();
    let rounds = usize::from(args.rounds);
    for round in 0..=rounds {
        let mut failed = Vec::new();
        for &tool in &tools {
            let (bin_dir, fcp_args) = (&*args.bin_dir, &*args.fcp_args);
            let turn = Turn { server, bin_dir, tool, case, fcp_args };
            let copy = dir.join("copies").join(tool.name());
            match checked(&turn, &source, &copy, round == 0, round == rounds) {
                Ok(sample) if round > 0 => results.rows.push(Row { case, tool, round, sample }),
                Ok(_) => {}
                Err(e) => {
                    let (case, tool) = (case.name(), tool.name());
                    let notice = format!("{case} {tool} FAILED in round {round}: {e}");
                    eprintln!("{notice}");
                    results.notices.push(notice);
                    failed.push(turn.tool);
                }
            }
        }
        results.rows.retain(|row| row.case != case || !failed.contains(&row.tool));
        tools.retain(|tool| !failed.contains(tool));
        if !tools.is_empty() {
            tools.rotate_left(1);
        }
        eprintln!("{}: round {round} of {rounds} done", case.name());
    }
    results.sources.push((case, source));
    Ok(())
}

/// Prepares the destination, runs, checks the copy and clears it away.
fn checked(
    turn: &Turn<'_>,
    source: &Source,
    copy: &std::path::Path,
    first: bool,
    last: bool,
) -> io::Result<Sample> {
    empty(copy)?;
    warm_pages(&copy.with_extension("ballast"), source.bytes)?;
    let sample = turn.run(source, copy)?;
    if turn.tool == Tool::Ssh {
        return Ok(sample);
    }
    let subject = subject(source);
    let name = subject.file_name().ok_or_else(|| io::Error::other("a source has a name"))?;
    let depth = if first { Depth::Contents } else { Depth::Metadata };
    same_tree(&subject, &copy.join(name), depth)?;
    if last && source.files > 1 {
        rsync_agrees(&subject, &copy.join(name))?;
    }
    fs::remove_dir_all(copy)?;
    Ok(sample)
}
