//! Medians, goals and the files of a run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fcp_benches::machine::Machine;
use fcp_benches::measure::Sample;
use fcp_benches::report::{Summary, csv_line, rate, versions};
use fcp_benches::workload::{Source, Workload};

use crate::tools::{Case, Tool, Way};

const TABLE: &str = "\
| case | tool | median s | min-max s | rate | CPU s | peak MiB |
|---|---|---|---|---|---|---|
";
const GOALS: &str = "\
| case | tool | against | goal | reached | |
|---|---|---|---|---|---|
";
/// Peak memory of a job in MiB.
const MEMORY: f64 = 256.0;

/// One measured run.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) tool: Tool,
    pub(crate) round: u16,
    pub(crate) sample: Sample,
}

/// All that was found out.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) sources: Vec<(Case, Source)>,
    pub(crate) rows: Vec<Row>,
    pub(crate) notices: Vec<String>,
}

/// At least so many times as fast as the best of some peers.
struct Goal {
    case: Case,
    peers: &'static [Tool],
    times: f64,
}

const fn goal(workload: Workload, way: Way, peers: &'static [Tool], times: f64) -> Goal {
    Goal { case: Case { workload, way }, peers, times }
}

const SMALL_PEERS: &[Tool] = &[Tool::Sftp, Tool::SftpGcm, Tool::Rclone, Tool::Lftp];
const NEAR: [Goal; 6] = [
    goal(Workload::J1, Way::Down, &[Tool::SftpGcm], 1.1),
    goal(Workload::J1, Way::Up, &[Tool::SftpGcm], 1.1),
    goal(Workload::J1, Way::Down, &[Tool::Rclone], 1.3),
    goal(Workload::J1, Way::Up, &[Tool::Rclone], 1.3),
    goal(Workload::J2, Way::Down, SMALL_PEERS, 4.0),
    goal(Workload::J2, Way::Up, SMALL_PEERS, 4.0),
];
const FAR: [Goal; 2] = [
    goal(Workload::J3, Way::Down, &[Tool::Sftp, Tool::SftpGcm], 3.0),
    goal(Workload::J3, Way::Up, &[Tool::Sftp, Tool::SftpGcm], 2.5),
];

impl Results {
    /// The medians and the goals as Markdown.
    pub(crate) fn tables(&self, is_long: bool) -> String {
        let mut text = TABLE.to_owned();
        for (case, source) in &self.sources {
            for tool in Tool::ALL {
                if let Some(mine) = self.summary(*case, tool) {
                    text += &line(*case, source, tool, &mine);
                }
            }
        }
        text + "\n" + GOALS + &self.goals(is_long)
    }

    /// Writes `raw.csv`, `setup.md` and `summary.md` to the folder of `what`, and returns it.
    pub(crate) fn write(
        &self,
        root: &Path,
        what: &str,
        link: &str,
        rounds: u16,
        is_long: bool,
    ) -> io::Result<PathBuf> {
        let machine = Machine::read();
        let dir = machine.run_dir(root, what)?;
        fs::write(dir.join("raw.csv"), self.csv())?;
        fs::write(dir.join("setup.md"), self.setup(&machine, link, rounds))?;
        let notices: String = self.notices.iter().map(|n| format!("- {n}\n")).collect();
        let title = format!("# Over SFTP: medians of {rounds} rounds, {link}");
        let tables = self.tables(is_long);
        fs::write(dir.join("summary.md"), format!("{title}\n\n{tables}\n{notices}"))?;
        Ok(dir)
    }

    fn summary(&self, case: Case, tool: Tool) -> Option<Summary> {
        let mine = self.rows.iter().filter(|row| row.case == case && row.tool == tool);
        Summary::of(mine.map(|row| row.sample))
    }

    fn goals(&self, is_long: bool) -> String {
        let goals: &[Goal] = if is_long { &FAR } else { &NEAR };
        let mut text = String::new();
        for Goal { case, peers, times } in goals {
            let Some(mine) = self.summary(*case, Tool::Job) else { continue };
            let peers = peers.iter().filter_map(|&p| Some((p, self.summary(*case, p)?.wall)));
            let Some((peer, wall)) = peers.min_by(|a, b| a.1.total_cmp(&b.1)) else { continue };
            let reached = wall / mine.wall;
            let facts = [case.name(), Tool::Job.name().into(), peer.name().into()];
            text +=
                &verdict(facts, &format!("{times}x"), &format!("{reached:.2}x"), reached >= *times);
        }
        text + &self.memory()
    }

    fn memory(&self) -> String {
        let of_jobs = self.rows.iter().filter(|r| matches!(r.tool, Tool::Job | Tool::JobMove));
        let peak = of_jobs.map(|row| row.sample.peak_kib).max();
        let Some(peak) = peak else { return String::new() };
        let peak = peak as f64 / 1024.0;
        let facts = ["all".into(), "fcp-job, fcp-job-move".into(), "peak memory".into()];
        let (goal, reached) = (format!("{MEMORY:.0} MiB"), format!("{peak:.0} MiB"));
        verdict(facts, &goal, &reached, peak <= MEMORY)
    }

    fn csv(&self) -> String {
        let mut csv = "case,tool,round,files,bytes,wall_s,cpu_s,peak_mib\n".to_owned();
        for Row { case, tool, round, sample } in &self.rows {
            let source = self.sources.iter().find(|(c, _)| c == case);
            let (files, bytes) = source.map_or((0, 0), |(_, s)| (s.files, s.bytes));
            let round = usize::from(*round);
            csv += &csv_line(&case.name(), tool.name(), round, (files, bytes), sample);
        }
        csv
    }

    fn setup(&self, machine: &Machine, link: &str, rounds: u16) -> String {
        let mut text = format!(
            "# Over SFTP: setup\n\n{}- link: {link}\n- rounds: {rounds} after one warm-up, tools \
             interleaved, order rotated each round\n- source and destination: tmpfs unless --dir \
             said otherwise; so is the ledger\n- sshd: our own, its configuration is OpenSSH's \
             default but for keys and port\n- uploads of fcp: temporary name, then rename; those of \
             the peers write the final name\n- CPU s: both ends, user and system; peak MiB: the \
             largest process of both ends\n\n## Cases\n",
            machine.markdown()
        );
        for (case, Source { files, bytes, .. }) in &self.sources {
            text += &format!("- {}: {files} files, {bytes} bytes\n", case.name());
        }
        text += "\n## Commands\n";
        for tool in Tool::ALL {
            if self.rows.iter().any(|row| row.tool == tool) {
                text += &format!("- {}: `{}`\n", tool.name(), tool.command_line());
            }
        }
        let programs = [("ssh", "-V"), ("rclone", "--version"), ("lftp", "--version")];
        text + "\n## Versions\n" + &versions(&programs)
    }
}

fn line(case: Case, source: &Source, tool: Tool, mine: &Summary) -> String {
    let rate = rate(case.workload, source, mine.wall);
    let Summary { wall, fastest, slowest, cpu, peak_mib } = mine;
    format!(
        "| {} | {} | {wall:.3} | {fastest:.3}-{slowest:.3} | {rate} | {cpu:.2} | {peak_mib:.0} |\n",
        case.name(),
        tool.name()
    )
}

fn verdict(facts: [String; 3], goal: &str, reached: &str, met: bool) -> String {
    let met = if met { "met" } else { "MISSED" };
    format!("| {} | {goal} | {reached} | {met} |\n", facts.join(" | "))
}
