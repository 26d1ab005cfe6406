//! Jobs beside sftp, rclone and lftp over one real sshd: on loopback, or over a long link between
//! two network namespaces that somebody else has made.

mod results;
mod tools;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use fcp_benches::measure::Sample;
use fcp_benches::sshd::{Place, Server};
use fcp_benches::verify::{Depth, same_tree};
use fcp_benches::workload::{Source, Workload, empty, warm_pages};

use results::{Results, Row};
use tools::{Case, Tool, Turn, Way};

/// Times jobs, sftp, rclone and lftp on the same data, checks every copy, writes the figures.
#[derive(Debug, Parser)]
struct Args {
    /// Where sources and copies stand; the sources stay there for the next run.
    #[arg(long, default_value = "/dev/shm/fcp-bench")]
    dir: PathBuf,
    /// Where `fcp` is.
    #[arg(long, default_value = "target/release")]
    bin_dir: PathBuf,
    /// Where the results' folder is made [default: benches/runs, with --small DIR/runs].
    #[arg(long)]
    runs: Option<PathBuf>,
    /// The workloads to run, such as J1,J2 [default: J1,J2, with --wan J3].
    #[arg(long, value_delimiter = ',')]
    only: Vec<Workload>,
    /// The tools to run, such as fcp-job,rclone [default: all that are installed].
    #[arg(long, value_delimiter = ',')]
    tools: Vec<String>,
    /// Measured rounds after the warm-up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Scaled down to seconds, to test the driver itself.
    #[arg(long)]
    small: bool,
    /// Network namespaces of client and server, and the server's address.
    #[arg(long, value_name = "CLIENT,SERVER,ADDRESS", value_parser = parse_wan)]
    wan: Option<Place>,
    /// The link in words.
    #[arg(long, default_value = "loopback")]
    link: String,
    /// Put behind `over-sftp` in the name of the results' folder.
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
    fn cases(&self) -> Vec<Case> {
        let usual: &[Workload] =
            if self.wan.is_some() { &[Workload::J3] } else { &[Workload::J1, Workload::J2] };
        let workloads = if self.only.is_empty() { usual } else { &self.only };
        let both = |&workload| [Way::Down, Way::Up].map(|way| Case { workload, way });
        workloads.iter().flat_map(both).collect()
    }

    fn available(&self, notices: &mut Vec<String>) -> Vec<Tool> {
        let is_wanted = |tool: &Tool| {
            self.tools.is_empty() || self.tools.iter().any(|name| name == tool.name())
        };
        let (found, missing): (Vec<Tool>, Vec<Tool>) = Tool::ALL
            .into_iter()
            .filter(is_wanted)
            .partition(|tool| tool.find(&self.bin_dir).is_some());
        for tool in missing {
            notices.push(format!("{} left out: it is not installed", tool.name()));
        }
        found
    }

    fn folder(&self) -> String {
        let blank = if self.label.is_empty() { "" } else { "-" };
        format!("over-sftp{blank}{}", self.label)
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("over_sftp: {e}");
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
    let server = Server::start(place, &dir, &args.bin_dir)?;
    for case in args.cases() {
        compare_tools(args, &server, &tools, case, &mut results)?;
        empty(&dir.join("copies"))?;
    }
    let is_long = args.wan.is_some();
    println!("{}", results.tables(is_long));
    let usual = || if args.small { dir.join("runs") } else { "benches/runs".into() };
    let runs = args.runs.clone().unwrap_or_else(usual);
    let (link, rounds) = (&args.link, args.rounds);
    let told = results.write(&runs, &args.folder(), link, rounds, is_long)?;
    println!("written to {}", told.display());
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
    let mut tools = tools.to_vec();
    for round in 0..=args.rounds {
        let mut failed = Vec::new();
        for &tool in &tools {
            let state = dir.join("copies/state");
            empty(&state)?;
            let turn = Turn { server, bin_dir: &args.bin_dir, tool, case, state: &state };
            match checked(&turn, &source, &dir.join("copies"), round == 0) {
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
        eprintln!("{}: round {round} of {} done", case.name(), args.rounds);
    }
    results.sources.push((case, source));
    Ok(())
}

/// Prepares the destination, runs, checks the copy and clears it away.
fn checked(turn: &Turn<'_>, source: &Source, copies: &Path, first: bool) -> io::Result<Sample> {
    let copy = copies.join(turn.tool.name());
    empty(&copy)?;
    warm_pages(&copies.join("ballast"), source.bytes)?;
    // A job that moves takes its source away.
    let from = match turn.tool {
        Tool::JobMove => duplicate(&source.path, &copies.join("moved"))?,
        _ => source.path.clone(),
    };
    let sample = turn.run(&from, &copy)?;
    let depth = if first { Depth::Contents } else { Depth::Metadata };
    let month = |root: &Path| root.join(Workload::MONTH);
    same_files(&month(&source.path), &month(&copy), depth)?;
    fs::remove_dir_all(&copy)?;
    Ok(sample)
}

/// Peers differ in whether they keep the times of directories, so that files are compared alone.
fn same_files(source: &Path, copy: &Path, depth: Depth) -> io::Result<()> {
    let time = fs::metadata(source)?.modified()?;
    fs::File::open(copy)?.set_modified(time)?;
    fs::set_permissions(copy, fs::metadata(source)?.permissions())?;
    same_tree(source, copy, depth)
}

fn duplicate(source: &Path, to: &Path) -> io::Result<PathBuf> {
    let _ = fs::remove_dir_all(to);
    let status = Command::new("cp").arg("-a").arg(source).arg(to).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("cp ended with {status}")));
    }
    Ok(to.to_owned())
}
