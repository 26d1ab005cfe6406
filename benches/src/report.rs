//! Medians, ratios and the files of a side-by-side run: `raw.csv`, `setup.md`, `summary.md`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::Machine;
use crate::measure::Sample;
use crate::peers::Tool;
use crate::workload::{Source, Workload};

const CSV_HEADER: &str = "workload,tool,round,files,bytes,wall_s,cpu_s,peak_mib";
const TABLE_HEADER: &str = "\
| workload | tool | median s | min-max s | rate | CPU s | peak MiB | fcp is faster by | fcp's CPU is less by |
|---|---|---|---|---|---|---|---|---|
";

/// One measured run.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was copied.
    pub workload: Workload,
    /// By which tool.
    pub tool: Tool,
    /// In which round, from 1.
    pub round: usize,
    /// The figures.
    pub sample: Sample,
}

/// All that a side-by-side run found out.
#[derive(Debug, Default)]
pub struct Results {
    /// The sources, in the order they were run.
    pub sources: Vec<(Workload, Source)>,
    /// The measured runs.
    pub rows: Vec<Row>,
    /// Tools that failed or made a wrong copy, and tools that were left out, with the reason.
    pub notices: Vec<String>,
}

impl Results {
    /// The table of medians as Markdown.
    pub fn table(&self) -> String {
        let mut table = TABLE_HEADER.to_owned();
        for (workload, source) in &self.sources {
            for tool in Tool::ALL {
                if let Some(mine) = self.summary(*workload, tool) {
                    let fcp = if tool.is_local() { Tool::FcpLocal } else { Tool::FcpPush };
                    let fcp = if tool.is_fcp() { None } else { self.summary(*workload, fcp) };
                    table += &table_line(*workload, source, tool, &mine, fcp.as_ref());
                }
            }
        }
        table
    }

    /// Writes the three files to `<root>/<date>-<cpu>` and returns that folder.
    pub fn write(&self, root: &Path, rounds: usize, small: bool) -> io::Result<PathBuf> {
        let machine = Machine::read();
        let dir = machine.run_dir(root, "")?;
        fs::write(dir.join("raw.csv"), self.csv())?;
        fs::write(dir.join("setup.md"), self.setup(&machine, rounds, small))?;
        let notices: String = self.notices.iter().map(|n| format!("- {n}\n")).collect();
        let summary =
            format!("# Side by side: medians of {rounds} rounds\n\n{}\n{notices}", self.table());
        fs::write(dir.join("summary.md"), summary)?;
        Ok(dir)
    }

    fn csv(&self) -> String {
        let mut csv = format!("{CSV_HEADER}\n");
        for Row { workload, tool, round, sample } in &self.rows {
            let source = self.sources.iter().find(|(w, _)| w == workload);
            let (files, bytes) = source.map_or((0, 0), |(_, s)| (s.files, s.bytes));
            csv += &csv_line(workload.name(), tool.name(), *round, (files, bytes), sample);
        }
        csv
    }

    fn setup(&self, machine: &Machine, rounds: usize, small: bool) -> String {
        let mut text = format!("# Side by side: setup\n\n{}", machine.markdown());
        let size = if small { "small (smoke test: no figures to quote)" } else { "full" };
        text += &format!(
            "- rounds: {rounds} after one warm-up, tools interleaved, order rotated each round\n\
             - before each run as much memory as the copy needs is written and freed\n\
             - size: {size}\n- source and destination: tmpfs unless --dir said otherwise\n\
             - CPU s: both ends, user and system; peak MiB: the largest process, sampled\n\n## Workloads\n"
        );
        for (workload, Source { files, bytes, .. }) in &self.sources {
            text += &format!("- {}: {files} files, {bytes} bytes\n", workload.name());
        }
        text += "\n## Commands\n";
        for tool in Tool::ALL {
            if self.rows.iter().any(|row| row.tool == tool) {
                text += &format!("- {}: `{}`\n", tool.name(), tool.command_line());
            }
        }
        let programs = [("rsync", "--version"), ("tar", "--version"), ("cp", "--version")];
        text + "\n## Versions\n" + &versions(&programs)
    }

    fn summary(&self, workload: Workload, tool: Tool) -> Option<Summary> {
        let mine = self.rows.iter().filter(|r| r.workload == workload && r.tool == tool);
        Summary::of(mine.map(|row| row.sample))
    }
}

/// The medians of one tool on one workload.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Wall seconds.
    pub wall: f64,
    /// Wall seconds of the fastest round.
    pub fastest: f64,
    /// Wall seconds of the slowest round.
    pub slowest: f64,
    /// CPU seconds of both ends.
    pub cpu: f64,
    /// MiB of the largest process.
    pub peak_mib: f64,
}

impl Summary {
    /// The medians of all rounds; `None` without any.
    pub fn of(samples: impl Iterator<Item = Sample>) -> Option<Self> {
        let (mut walls, mut cpus, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
        for sample in samples {
            walls.push(sample.wall);
            cpus.push(sample.cpu);
            peaks.push(sample.peak_kib as f64 / 1024.0);
        }
        let wall = median(&mut walls)?;
        Some(Self {
            wall,
            fastest: *walls.first()?,
            slowest: *walls.last()?,
            cpu: median(&mut cpus)?,
            peak_mib: median(&mut peaks)?,
        })
    }
}

/// Sorts the values and returns the middle one, or the mean of the middle two.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let high = *values.get(values.len() / 2)?;
    if values.len().is_multiple_of(2) {
        return Some((values.get(values.len() / 2 - 1)? + high) / 2.0);
    }
    Some(high)
}

fn table_line(
    workload: Workload,
    source: &Source,
    tool: Tool,
    mine: &Summary,
    fcp: Option<&Summary>,
) -> String {
    let rate = rate(workload, source, mine.wall);
    let times = |peer: f64, own: f64| {
        if own > 0.0 { format!("{:.2}x", peer / own) } else { "-".into() }
    };
    let faster = fcp.map_or("-".into(), |f| times(mine.wall, f.wall));
    let cheaper = fcp.map_or("-".into(), |f| times(mine.cpu, f.cpu));
    let Summary { wall, fastest, slowest, cpu, peak_mib } = mine;
    format!(
        "| {} | {} | {wall:.3} | {fastest:.3}-{slowest:.3} | {rate} | {cpu:.2} | {peak_mib:.0} | {faster} | {cheaper} |\n",
        workload.name(),
        tool.name()
    )
}

/// The speed in the workload's own unit.
pub fn rate(workload: Workload, source: &Source, wall: f64) -> String {
    if workload.counts_files() {
        format!("{:.1}k files/s", source.files as f64 / wall / 1e3)
    } else {
        format!("{:.0} MB/s", source.bytes as f64 / wall / 1e6)
    }
}

/// The first line that each program says about itself, as a list.
pub fn versions(programs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (program, flag) in programs {
        let Ok(output) = Command::new(program).arg(flag).output() else { continue };
        // ssh speaks on stderr.
        let output = [output.stdout, output.stderr].concat();
        let output = String::from_utf8_lossy(&output);
        if let Some(line) = output.lines().next() {
            text += &format!("- {}\n", line.trim_end());
        }
    }
    text
}

/// One measured run as a line of the raw rows, under their header.
pub fn csv_line(
    case: &str,
    tool: &str,
    round: usize,
    (files, bytes): (u64, u64),
    sample: &Sample,
) -> String {
    let Sample { wall, cpu, peak_kib } = sample;
    let peak = *peak_kib as f64 / 1024.0;
    format!("{case},{tool},{round},{files},{bytes},{wall:.4},{cpu:.2},{peak:.1}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tool: Tool, round: usize, wall: f64) -> Row {
        let sample = Sample { wall, cpu: wall, peak_kib: 2048 };
        Row { workload: Workload::W1, tool, round, sample }
    }

    #[test]
    fn the_table_gives_medians_and_the_ratio_to_fcp() {
        let source = Source { path: "src".into(), files: 1, bytes: 6_000_000 };
        let walls = [(Tool::FcpPush, [1.0, 9.0, 2.0]), (Tool::TarNc, [3.0, 1.0, 7.0])];
        let rows = walls
            .into_iter()
            .flat_map(|(tool, walls)| (1..).zip(walls).map(move |(n, wall)| row(tool, n, wall)))
            .collect();
        let results = Results { sources: vec![(Workload::W1, source)], rows, notices: vec![] };
        let table = results.table();
        assert!(
            table.contains("| W1 | fcp-push | 2.000 | 1.000-9.000 | 3 MB/s | 2.00 | 2 | - | - |")
        );
        assert!(
            table.contains(
                "| W1 | tar-nc | 3.000 | 1.000-7.000 | 2 MB/s | 3.00 | 2 | 1.50x | 1.50x |"
            )
        );
    }

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle_two() {
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&mut []), None);
    }
}
