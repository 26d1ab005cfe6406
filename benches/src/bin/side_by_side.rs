//! fcp beside its peers on the published workloads, in one interleaved run.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fcp_benches::measure::Sample;
use fcp_benches::peers::{Peers, Tool};
use fcp_benches::report::{Results, Row};
use fcp_benches::verify::{Depth, rsync_agrees, same_tree};
use fcp_benches::workload::{Source, Workload, empty, warm_pages};

/// Times fcp, rsync, tar through nc and cp on the same trees, checks every copy, writes the figures.
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
    /// The workloads to run, such as W1,W2 [default: all].
    #[arg(long, value_delimiter = ',')]
    only: Vec<Workload>,
    /// Measured rounds after the warm-up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Scaled down to seconds, to test the driver itself.
    #[arg(long)]
    small: bool,
    /// Peers only.
    #[arg(long)]
    without_fcp: bool,
    /// Arguments put before fcp's own, such as `--fcp-args=-j,2`.
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    fcp_args: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("side_by_side: {e}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether every tool that ran made right copies.
fn run(args: &Args) -> io::Result<bool> {
    let mut results = Results::default();
    let tools = available(args, &mut results.notices);
    // The daemons have a working directory and a root of their own.
    let dir = std::path::absolute(&args.dir)?;
    let copies = dir.join("copies");
    let _ = fs::remove_dir_all(&copies);
    fs::create_dir_all(&copies)?;
    let peers = Peers::start(&tools, &dir, &copies, &args.bin_dir, &args.fcp_args)?;
    let left_out = results.notices.len();
    for workload in Workload::ALL {
        if args.only.is_empty() || args.only.contains(&workload) {
            compare_tools(args, &peers, &tools, workload, &mut results)?;
            empty(&copies)?;
        }
    }
    println!("{}", results.table());
    let runs = args.runs.clone().unwrap_or_else(|| default_runs(args));
    let dir = results.write(&runs, args.rounds.into(), args.small)?;
    println!("written to {}", dir.display());
    Ok(results.notices.len() == left_out)
}

fn default_runs(args: &Args) -> PathBuf {
    if args.small { args.dir.join("runs") } else { "benches/runs".into() }
}

/// The tools that are installed; a missing one is left out with a notice.
fn available(args: &Args, notices: &mut Vec<String>) -> Vec<Tool> {
    let mut tools = Vec::new();
    for tool in Tool::ALL {
        if tool.is_fcp() && args.without_fcp {
            continue;
        }
        match tool.missing_program(&args.bin_dir) {
            None => tools.push(tool),
            Some(program) => {
                let notice = format!("{} left out: {program} is not installed", tool.name());
                eprintln!("{notice}");
                notices.push(notice);
            }
        }
    }
    tools
}

/// All rounds of one workload. A tool that fails is out of it from there on, its figures too.
fn compare_tools(
    args: &Args,
    peers: &Peers,
    tools: &[Tool],
    workload: Workload,
    results: &mut Results,
) -> io::Result<()> {
    let source = workload.make(&args.dir, args.small)?;
    let mut tools: Vec<Tool> = tools.iter().copied().filter(|t| t.can(workload)).collect();
    let rounds = usize::from(args.rounds);
    for round in 0..=rounds {
        let mut failed = Vec::new();
        for &tool in &tools {
            let turn = Turn { peers, tool, workload, source: &source };
            match turn.run(round == 0, round == rounds) {
                Ok(sample) if round > 0 => results.rows.push(Row { workload, tool, round, sample }),
                Ok(_) => {}
                Err(e) => {
                    let notice =
                        format!("{} {} FAILED in round {round}: {e}", workload.name(), tool.name());
                    eprintln!("{notice}");
                    results.notices.push(notice);
                    failed.push(tool);
                }
            }
        }
        results.rows.retain(|row| row.workload != workload || !failed.contains(&row.tool));
        tools.retain(|tool| !failed.contains(tool));
        if !tools.is_empty() {
            tools.rotate_left(1);
        }
        eprintln!("{}: round {round} of {rounds} done", workload.name());
    }
    results.sources.push((workload, source));
    Ok(())
}

/// One tool's turn in a round.
struct Turn<'a> {
    peers: &'a Peers,
    tool: Tool,
    workload: Workload,
    source: &'a Source,
}

impl Turn<'_> {
    /// Prepares the destination, runs, checks the copy and clears it away.
    fn run(&self, first: bool, last: bool) -> io::Result<Sample> {
        let (copy, source) = (self.peers.copy_of(self.tool), &self.source.path);
        if first || !self.workload.is_no_op() {
            empty(&copy)?;
            warm_pages(&copy.with_extension("ballast"), self.source.bytes)?;
        }
        if first && self.workload.is_no_op() {
            self.peers.run(self.tool, source, Workload::W2)?;
        }
        let sample = self.peers.run(self.tool, source, self.workload)?;
        let depth = if first { Depth::Contents } else { Depth::Metadata };
        same_tree(source, &copy, depth)?;
        if last {
            rsync_agrees(source, &copy)?;
        }
        if !self.workload.is_no_op() {
            empty(&copy)?;
        }
        Ok(sample)
    }
}
