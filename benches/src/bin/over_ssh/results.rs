//! Medians, goals and the files of a run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fcp_benches::machine::Machine;
use fcp_benches::measure::Sample;
use fcp_benches::report::{Summary, csv_line, rate, versions};
use fcp_benches::workload::{Source, Workload};

use crate::tools::{Case, Tool};

const TABLE: &str = "\
| case | tool | median s | min-max s | rate | CPU s | peak MiB |
|---|---|---|---|---|---|---|
";
const GOALS: &str = "\
| case | tool | against | goal | reached | |
|---|---|---|---|---|---|
";

/// What the run was made on, as far as the caller says.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) small: bool,
    pub(crate) rounds: usize,
    /// The link in words.
    pub(crate) link: String,
    /// Its rate, for the goal that is a share of it; 0 where there is no such goal.
    pub(crate) link_mbit: f64,
    /// Its round trip, for what a session costs; 0 where there is no such goal.
    pub(crate) rtt_ms: f64,
    /// What the goals are multiplied with: a lossy link has lower ones.
    pub(crate) goal_scale: f64,
}

/// One measured run.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) tool: Tool,
    pub(crate) round: usize,
    pub(crate) sample: Sample,
}

/// All that was found out.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) sources: Vec<(Case, Source)>,
    pub(crate) rows: Vec<Row>,
    pub(crate) notices: Vec<String>,
}

/// At least so many times as fast as another tool.
struct Goal {
    case: Case,
    tool: Tool,
    peers: &'static [Tool],
    times: f64,
}

const fn goal(
    workload: Workload,
    live: bool,
    tool: Tool,
    peers: &'static [Tool],
    times: f64,
) -> Goal {
    Goal { case: Case { workload, live }, tool, peers, times }
}

const RATIOS: [Goal; 8] = [
    goal(Workload::W1, false, Tool::Fcp, &[Tool::Scp], 3.0),
    goal(Workload::W1, false, Tool::Fcp, &[Tool::ScpGcm], 2.0),
    goal(Workload::W1, false, Tool::FcpStdio, &[Tool::ScpGcm], 1.0),
    goal(Workload::W2, false, Tool::Fcp, &[Tool::Rsync], 1.7),
    goal(Workload::L2, false, Tool::Fcp, &[Tool::Scp], 4.0),
    goal(Workload::L2, false, Tool::Fcp, &[Tool::ScpGcm, Tool::Rsync, Tool::Mscp], 1.5),
    goal(Workload::L3, false, Tool::Fcp, &[Tool::Rsync], 1.7),
    goal(Workload::L3, true, Tool::Fcp, &[Tool::Rsync], 2.5),
];
/// Of the link's rate, for one file of 1 GiB.
const LINK_SHARE: f64 = 0.8;
/// Beyond one handshake of ssh.
const SESSION_ROUND_TRIPS: f64 = 3.0;

impl Results {
    /// The medians and the goals as Markdown.
    pub(crate) fn tables(&self, setting: &Setting) -> String {
        let mut text = TABLE.to_owned();
        for (case, source) in &self.sources {
            for tool in Tool::ALL {
                if let Some(mine) = self.summary(*case, tool) {
                    text += &line(*case, source, tool, &mine);
                }
            }
        }
        text + "\n" + GOALS + &self.goals(setting)
    }

    /// Writes `raw.csv`, `setup.md` and `summary.md` to the folder of `what`, and returns it.
    pub(crate) fn write(&self, root: &Path, what: &str, setting: &Setting) -> io::Result<PathBuf> {
        let machine = Machine::read();
        let dir = machine.run_dir(root, what)?;
        fs::write(dir.join("raw.csv"), self.csv())?;
        fs::write(dir.join("setup.md"), self.setup(&machine, setting))?;
        let notices: String = self.notices.iter().map(|n| format!("- {n}\n")).collect();
        let title = format!("# Over ssh: medians of {} rounds, {}", setting.rounds, setting.link);
        fs::write(
            dir.join("summary.md"),
            format!("{title}\n\n{}\n{notices}", self.tables(setting)),
        )?;
        Ok(dir)
    }

    fn summary(&self, case: Case, tool: Tool) -> Option<Summary> {
        let mine = self.rows.iter().filter(|row| row.case == case && row.tool == tool);
        Summary::of(mine.map(|row| row.sample))
    }

    fn goals(&self, setting: &Setting) -> String {
        let scale = setting.goal_scale;
        let mut text = String::new();
        for Goal { case, tool, peers, times } in RATIOS {
            let Some(mine) = self.summary(case, tool) else { continue };
            let peers = peers.iter().filter_map(|&p| Some((p, self.summary(case, p)?.wall)));
            let Some((peer, wall)) = peers.min_by(|a, b| a.1.total_cmp(&b.1)) else { continue };
            let (goal, reached) = (times * scale, wall / mine.wall);
            let facts = [case.name(), tool.name().into(), peer.name().into()];
            text +=
                &verdict(facts, &format!("{goal:.2}x"), &format!("{reached:.2}x"), reached >= goal);
        }
        text + &self.share_of_link(setting) + &self.cost_of_session(setting)
    }

    fn share_of_link(&self, setting: &Setting) -> String {
        let case = Case { workload: Workload::L1, live: false };
        let source = self.sources.iter().find(|(c, _)| *c == case);
        let (Some((_, source)), Some(mine)) = (source, self.summary(case, Tool::Fcp)) else {
            return String::new();
        };
        if setting.link_mbit == 0.0 {
            return String::new();
        }
        let goal = LINK_SHARE * setting.goal_scale * 100.0;
        let reached = source.bytes as f64 * 8.0 / mine.wall / 1e4 / setting.link_mbit;
        let facts = [case.name(), Tool::Fcp.name().into(), "the link".into()];
        verdict(facts, &format!("{goal:.0} %"), &format!("{reached:.1} %"), reached >= goal)
    }

    fn cost_of_session(&self, setting: &Setting) -> String {
        let case = Case { workload: Workload::L0, live: false };
        let wall = |tool| self.summary(case, tool).map(|s| s.wall);
        let (Some(fcp), Some(ssh)) = (wall(Tool::Fcp), wall(Tool::Ssh)) else {
            return String::new();
        };
        if setting.rtt_ms == 0.0 {
            return String::new();
        }
        let trips = (fcp - ssh) * 1e3 / setting.rtt_ms;
        let facts = [case.name(), Tool::Fcp.name().into(), "ssh-true, in round trips".into()];
        let goal = format!("at most {SESSION_ROUND_TRIPS} more");
        verdict(facts, &goal, &format!("{trips:.1}"), trips <= SESSION_ROUND_TRIPS)
    }

    fn csv(&self) -> String {
        let mut csv = "case,tool,round,files,bytes,wall_s,cpu_s,peak_mib\n".to_owned();
        for Row { case, tool, round, sample } in &self.rows {
            let source = self.sources.iter().find(|(c, _)| c == case);
            let (files, bytes) = source.map_or((0, 0), |(_, s)| (s.files, s.bytes));
            csv += &csv_line(&case.name(), tool.name(), *round, (files, bytes), sample);
        }
        csv
    }

    fn setup(&self, machine: &Machine, setting: &Setting) -> String {
        let Setting { small, rounds, link, goal_scale, .. } = setting;
        let size = if *small { "small (smoke test: no figures to quote)" } else { "full" };
        let mut text = format!(
            "# Over ssh: setup\n\n{}- link: {link}\n- rounds: {rounds} after one warm-up, tools \
             interleaved, order rotated each round\n- size: {size}\n- source and destination: \
             tmpfs unless --dir said otherwise\n- sshd: our own, its configuration is OpenSSH's \
             default but for keys and port\n- live: on a ControlMaster opened before\n- CPU s: \
             both ends, user and system; a live case leaves the master's out\n- goals are \
             multiplied with {goal_scale}\n\n## Cases\n",
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
        text + "\n## Versions\n" + &versions(&[("ssh", "-V"), ("rsync", "--version")])
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

#[cfg(test)]
mod tests {
    use super::*;

    fn results(walls: &[(Workload, Tool, f64)]) -> Results {
        let case = |workload| Case { workload, live: false };
        let row = |&(workload, tool, wall): &(Workload, Tool, f64)| Row {
            case: case(workload),
            tool,
            round: 1,
            sample: Sample { wall, cpu: wall, peak_kib: 1024 },
        };
        let source = Source { path: "src".into(), files: 1, bytes: 1 << 30 };
        let sources = walls.iter().map(|(w, ..)| (case(*w), source.clone())).collect();
        Results { sources, rows: walls.iter().map(row).collect(), notices: vec![] }
    }

    fn setting() -> Setting {
        let link = "a link".into();
        Setting { small: false, rounds: 1, link, link_mbit: 1000.0, rtt_ms: 100.0, goal_scale: 1.0 }
    }

    #[test]
    fn goals_take_the_best_peer_and_say_whether_they_are_met() {
        let results = results(&[
            (Workload::L2, Tool::Fcp, 2.0),
            (Workload::L2, Tool::Scp, 9.0),
            (Workload::L2, Tool::Rsync, 4.0),
            (Workload::L2, Tool::Mscp, 2.5),
        ]);
        let goals = results.goals(&setting());
        assert!(goals.contains("| L2 | fcp | scp | 4.00x | 4.50x | met |"), "{goals}");
        assert!(goals.contains("| L2 | fcp | mscp | 1.50x | 1.25x | MISSED |"), "{goals}");
    }

    #[test]
    fn a_lossy_link_has_lower_goals() {
        let results = results(&[(Workload::L1, Tool::Fcp, 12.27)]);
        let share = |goal_scale| results.goals(&Setting { goal_scale, ..setting() });
        assert!(share(1.0).contains("| 80 % | 70.0 % | MISSED |"), "{}", share(1.0));
        assert!(share(0.85).contains("| 68 % | 70.0 % | met |"), "{}", share(0.85));
    }

    #[test]
    fn a_session_is_counted_in_round_trips_beyond_a_handshake() {
        let results = results(&[(Workload::L0, Tool::Fcp, 1.1), (Workload::L0, Tool::Ssh, 0.75)]);
        let goals = results.goals(&setting());
        assert!(goals.contains("| at most 3 more | 3.5 | MISSED |"), "{goals}");
    }
}
