//! What jobs tell: bars on a terminal, plain lines elsewhere, `--json`. Every text is escaped:
//! nothing that comes from data reaches a terminal as it is.

use std::collections::{BTreeMap, HashMap};
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use fcp_proto::escape_text;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::{error, line};
use crate::job::report::{JobEvent, JobSummary};
use crate::job::run::Listener;

/// Redraws a second.
const REDRAWS: u8 = 8;
/// A file that is smaller shows no bar of its own: it would only flicker.
const BAR_FROM: u64 = 1 << 20;

/// How jobs are shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// One object a line on stdout.
    pub json: bool,
    /// Every file, and why.
    pub verbose: u8,
    /// Nothing but errors.
    pub quiet: bool,
    /// Bars, if stderr is a terminal.
    pub progress: bool,
}

/// Everything that jobs print. Clones are one.
#[derive(Clone)]
pub struct JobScreen {
    style: Style,
    bars: Arc<Mutex<Option<Bars>>>,
    same: Arc<Mutex<Same>>,
}

/// Failures of many files of a folder that are one: the first is told, the others are counted.
#[derive(Default)]
struct Same(BTreeMap<[String; 3], u64>);

impl Same {
    /// Whether one of this folder failed like that; it is counted.
    fn has_told(&mut self, event: &JobEvent) -> bool {
        let JobEvent::Failed { job, file, error, .. } = event else { return false };
        let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
        if name.is_empty() {
            return false;
        }
        let key = [job.clone(), folder.to_owned(), without(error, name)];
        let count = self.0.entry(key).and_modify(|count| *count += 1).or_default();
        *count > 0
    }

    /// What was counted of a job, as lines.
    fn take(&mut self, job: &str) -> Vec<String> {
        let (of_job, others) =
            std::mem::take(&mut self.0).into_iter().partition(|(key, _)| key[0] == job);
        self.0 = others;
        let of_job: BTreeMap<[String; 3], u64> = of_job;
        let many = of_job.into_iter().filter(|(_, count)| *count > 0);
        let text = |([job, folder, error], count): ([String; 3], u64)| {
            escape_text(&format!("{job}: {folder}: {count} more of its files: {error}"))
        };
        many.map(text).collect()
    }
}

impl JobScreen {
    /// Bars need a terminal that can move its cursor.
    pub fn new(style: Style) -> JobScreen {
        let able = std::io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let bars = style.progress && able && !style.quiet && !style.json;
        let bars = bars.then(|| Bars::new(std::env::var_os("NO_COLOR").is_none()));
        JobScreen { style, bars: Arc::new(Mutex::new(bars)), same: Arc::default() }
    }

    /// What hears of everything that happens.
    pub fn listener(&self) -> Listener {
        let this = self.clone();
        Arc::new(move |event| this.event(event))
    }

    /// The end of a job.
    pub fn summary(&self, summary: &JobSummary) {
        if self.style.json {
            let mut value = serde_json::to_value(summary).unwrap_or(Value::Null);
            value["event"] = json!("summary");
            return self.print(|| line(&value.to_string()));
        }
        let mut lines = summary_lines(summary);
        let more = self.lock_same().take(&summary.job).into_iter().map(|text| (text, true));
        lines.splice(0..0, more);
        self.print(|| {
            for (text, loud) in &lines {
                match (loud, self.style.quiet) {
                    (true, _) => error(text),
                    (false, false) => line(text),
                    (false, true) => {}
                }
            }
        });
    }

    /// Something that went wrong beside the jobs.
    pub fn trouble(&self, text: &str) {
        let text = escape_text(text);
        self.print(|| error(&text));
    }

    /// Takes the bars away.
    pub fn finish(&self) {
        if let Some(bars) = self.lock().take() {
            bars.clear();
        }
    }

    fn event(&self, event: &JobEvent) {
        if let Some(bars) = &mut *self.lock() {
            bars.event(event);
        }
        if self.style.json {
            // Content on its way is for bars.
            if !matches!(event, JobEvent::Progress { .. } | JobEvent::Phase { .. })
                && let Ok(text) = serde_json::to_string(event)
            {
                line(&text);
            }
            return;
        }
        if self.style.verbose == 0 && self.lock_same().has_told(event) {
            return;
        }
        let Some((text, loud)) = told(event, self.style) else { return };
        self.print(|| if loud { error(&text) } else { line(&text) });
    }

    /// Prints with the bars out of the way.
    fn print(&self, print: impl FnOnce()) {
        match &*self.lock() {
            Some(bars) => bars.multi.suspend(print),
            None => print(),
        }
    }

    fn lock_same(&self) -> std::sync::MutexGuard<'_, Same> {
        self.same.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Bars>> {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text with `*` for each `name` in it that is a word of its own.
fn without(text: &str, name: &str) -> String {
    let (mut left, mut rest) = (String::new(), 0);
    for (at, _) in text.match_indices(name) {
        let end = at + name.len();
        let inside = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        if inside(text[..at].chars().next_back()) || inside(text[end..].chars().next()) {
            continue;
        }
        left.push_str(&text[rest..at]);
        left.push('*');
        rest = end;
    }
    left + &text[rest..]
}

/// An event as a line, and whether it is one for stderr; `None` when nobody wants it.
fn told(event: &JobEvent, style: Style) -> Option<(String, bool)> {
    let verbose = style.verbose > 0 && !style.quiet;
    let (text, loud) = match event {
        JobEvent::Failed { job, file, error, .. } => (format!("{job}: {file}: {error}"), true),
        JobEvent::Note { job, text } if !style.quiet => (format!("{job}: {text}"), true),
        JobEvent::Planned { job, file, to, bytes, steps } if !style.quiet => {
            (format!("{job}: {file} -> {to} ({}): {}", HumanBytes(*bytes), steps.join(", ")), false)
        }
        JobEvent::Started { job, file, bytes, .. } if verbose => {
            (format!("{job}: {file}: begins ({})", HumanBytes(*bytes)), false)
        }
        JobEvent::Done(done) if verbose => {
            let text = format!(
                "{}: {} -> {} ({}, proven by {}), {}",
                done.job,
                done.source,
                done.destination,
                HumanBytes(done.size),
                done.proven_by,
                done.action
            );
            (text, false)
        }
        JobEvent::Skipped { job, file, why, .. } if verbose => {
            (format!("{job}: {file}: skipped: {why}"), false)
        }
        JobEvent::Retried { job, file, attempt, seconds, error } if verbose => {
            let text = format!(
                "{job}: {file}: try {attempt} failed, the next one in {seconds:.0} s: {error}"
            );
            (text, true)
        }
        _ => return None,
    };
    Some((escape_text(&text), loud))
}

/// The end of a job for people, and which of it are errors.
fn summary_lines(summary: &JobSummary) -> Vec<(String, bool)> {
    let JobSummary { job, found, delivered, skipped, failed, bytes, seconds, .. } = summary;
    let what = if summary.dry_run { "would be delivered" } else { "delivered" };
    if let (Some(error), 0) = (&summary.error, found) {
        // It ended before it began.
        return vec![(escape_text(&format!("{job}: {error}")), true)];
    }
    let mut text = format!("{job}: {found} found, {delivered} {what}");
    if !summary.dry_run && *bytes > 0 {
        let rate = HumanBytes((*bytes as f64 / seconds.max(0.001)) as u64);
        text += &format!(" ({} in {seconds:.1} s, {rate}/s)", HumanBytes(*bytes));
    }
    if summary.not_put_away > 0 {
        text += &format!(", {} of them not put away", summary.not_put_away);
    }
    if summary.recovered > 0 {
        text += &format!(", {} of an earlier run finished", summary.recovered);
    }
    text += &format!(", {skipped} skipped");
    if !summary.skipped_by.is_empty() {
        let by: Vec<_> =
            summary.skipped_by.iter().map(|(why, count)| format!("{count} {why}")).collect();
        text += &format!(" ({})", by.join(", "));
    }
    text += &format!(", {failed} failed");
    let mut lines = vec![(text, false)];
    if summary.spared > 0 {
        let text = "moved instead of deleted: their copies are not to be seen any more";
        lines.push((format!("{job}: {} {text}", summary.spared), false));
    }
    if !summary.missing_folders.is_empty() {
        let folders = summary.missing_folders.join(", ");
        lines.push((format!("{job}: not there: {folders}"), false));
    }
    if let Some(error) = &summary.error {
        lines.push((format!("{job}: {error}"), true));
    }
    lines.into_iter().map(|(text, loud)| (escape_text(&text), loud)).collect()
}

/// A bar for each worker that has a large file, and one for all.
struct Bars {
    multi: MultiProgress,
    total: ProgressBar,
    workers: BTreeMap<(String, usize), ProgressBar>,
    /// Bytes that each file on its way is told to have.
    moved: HashMap<(String, String), u64>,
    /// What is done with those that are copied.
    phases: HashMap<(String, String), &'static str>,
    style: ProgressStyle,
    /// Of the total, while something is copied and while nothing is: a rate would only fall.
    totals: [ProgressStyle; 2],
    files: u64,
}

impl Bars {
    fn new(colours: bool) -> Bars {
        let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS));
        let bar = if colours { "{bar:24.cyan}" } else { "{bar:24}" };
        let style = |pattern: &str| {
            let style = ProgressStyle::with_template(&pattern.replace("BAR", bar));
            style.unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        let total = multi.add(ProgressBar::new(0));
        let plain = style("BAR {bytes}/{total_bytes} {msg}");
        let rated = style("BAR {bytes}/{total_bytes} {bytes_per_sec} ETA {eta} {msg}");
        total.set_style(rated.clone());
        Bars {
            multi,
            total,
            workers: BTreeMap::new(),
            moved: HashMap::new(),
            phases: HashMap::new(),
            style: plain.clone(),
            totals: [rated, plain],
            files: 0,
        }
    }

    fn event(&mut self, event: &JobEvent) {
        match event {
            JobEvent::Planning { bytes, files, .. } => {
                self.total.inc_length(*bytes);
                self.files += files;
                self.show_phase();
            }
            JobEvent::Phase { job, file, phase } => {
                let key = (job.clone(), file.clone());
                if let Some((_, bar)) = self.bar_of(job, file) {
                    bar.set_message(format!("{} ({phase})", escape_text(file)));
                }
                self.phases.insert(key, phase);
                self.show_phase();
            }
            JobEvent::Started { job, file, bytes, worker } => {
                self.moved.insert((job.clone(), file.clone()), 0);
                self.started(job, file, *bytes, *worker);
                self.show_phase();
            }
            JobEvent::Progress { job, file, worker, bytes } => {
                self.reach(job, file, *bytes);
                if let Some(bar) = self.workers.get(&(job.clone(), *worker)) {
                    bar.set_position(*bytes);
                }
            }
            JobEvent::Done(record) => {
                self.reach(&record.job, &record.file, record.size);
                self.ended(&record.job, &record.file);
            }
            JobEvent::Failed { job, file, .. } | JobEvent::Skipped { job, file, .. } => {
                self.ended(job, file);
            }
            JobEvent::Note { .. } | JobEvent::Planned { .. } | JobEvent::Retried { .. } => {}
        }
    }

    fn started(&mut self, job: &str, file: &str, bytes: u64, worker: usize) {
        if bytes < BAR_FROM {
            return;
        }
        let (multi, total, style) = (&self.multi, &self.total, &self.style);
        let bar = self.workers.entry((job.to_owned(), worker)).or_insert_with(|| {
            let bar = multi.insert_before(total, ProgressBar::new(0));
            bar.set_style(style.clone());
            bar
        });
        bar.set_length(bytes);
        bar.set_position(0);
        bar.set_message(escape_text(file));
    }

    /// Brings the total to what a file is told to have.
    fn reach(&mut self, job: &str, file: &str, bytes: u64) {
        if let Some(before) = self.moved.get_mut(&(job.to_owned(), file.to_owned())) {
            self.total.inc(bytes.saturating_sub(*before));
            *before = bytes.max(*before);
        }
    }

    fn ended(&mut self, job: &str, file: &str) {
        let key = (job.to_owned(), file.to_owned());
        self.moved.remove(&key);
        self.phases.remove(&key);
        if let Some((key, bar)) = self.bar_of(job, file) {
            bar.finish_and_clear();
            self.multi.remove(bar);
            let key = key.clone();
            self.workers.remove(&key);
        }
        self.show_phase();
    }

    fn bar_of(&self, job: &str, file: &str) -> Option<(&(String, usize), &ProgressBar)> {
        let shown = escape_text(file);
        let is_of = |message: &str| {
            message
                .strip_prefix(&*shown)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(" ("))
        };
        self.workers.iter().find(|((of, _), bar)| of == job && is_of(&bar.message()))
    }

    /// The total's rate while anything is copied; otherwise what is done with what was.
    fn show_phase(&self) {
        let copying = self.moved.len() > self.phases.len();
        let phase = self.phases.values().next().filter(|_| !copying);
        let [rated, plain] = &self.totals;
        self.total.set_style(if phase.is_some() { plain } else { rated }.clone());
        let of = format!("of {} files", self.files);
        self.total.set_message(phase.map_or(of.clone(), |phase| format!("{of}, {phase}")));
    }

    fn clear(self) {
        self.workers.values().for_each(ProgressBar::finish_and_clear);
        self.total.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(text: &str) -> JobEvent {
        JobEvent::Failed {
            job: "A\u{1b}[31m".to_owned(),
            file: "x\u{1b}]0;y\u{7}".to_owned(),
            attempts: 1,
            error: text.to_owned(),
        }
    }

    #[test]
    fn j16_no_data_reaches_the_terminal_as_it_is() {
        let style = Style { verbose: 2, ..Style::default() };
        let (text, loud) = told(&failed("\u{202e}gone\r\n"), style).unwrap();
        assert!(loud && text.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{text:?}");
        let summary = JobSummary {
            job: "\u{9b}31m".to_owned(),
            error: Some("\u{1b}c".to_owned()),
            missing_folders: vec!["\u{8}".to_owned()],
            ..JobSummary::default()
        };
        let lines: String = summary_lines(&summary).into_iter().map(|(text, _)| text).collect();
        assert!(lines.chars().all(|c| !c.is_control()), "{lines:?}");
        let json = serde_json::to_string(&failed("\u{1b}")).unwrap();
        assert!(!json.contains('\u{1b}'));
    }

    #[test]
    fn what_is_told_depends_on_how_much_is_wanted() {
        let quiet = Style { quiet: true, verbose: 3, ..Style::default() };
        let skipped = JobEvent::Skipped {
            job: "A".to_owned(),
            file: "x".to_owned(),
            class: "too young",
            why: "it is".to_owned(),
        };
        assert!(told(&failed("gone"), quiet).is_some());
        assert!(told(&skipped, quiet).is_none() && told(&skipped, Style::default()).is_none());
        let loud = Style { verbose: 1, ..Style::default() };
        assert_eq!(told(&skipped, loud).unwrap().0, "A: x: skipped: it is");
    }

    #[test]
    fn failures_of_one_folder_that_are_the_same_are_counted() {
        let failed = |file: &str| JobEvent::Failed {
            job: "A".to_owned(),
            file: file.to_owned(),
            attempts: 1,
            error: format!("cannot rename {file}: denied"),
        };
        let mut same = Same::default();
        let told: Vec<_> =
            ["m/a", "m/b", "m/c", "n/a"].map(|file| same.has_told(&failed(file))).into();
        assert_eq!(told, [false, true, true, false]);
        assert_eq!(same.take("A"), ["A: m: 2 more of its files: cannot rename m/*: denied"]);
        assert!(same.take("A").is_empty());
    }

    #[test]
    fn a_summary_counts_reasons() {
        let summary = JobSummary {
            job: "A".to_owned(),
            found: 3,
            delivered: 1,
            skipped: 2,
            skipped_by: [("too young".to_owned(), 2)].into(),
            bytes: 2048,
            seconds: 1.0,
            ..JobSummary::default()
        };
        let idle = JobSummary { bytes: 0, ..summary.clone() };
        assert!(!summary_lines(&idle)[0].0.contains("B/s"));
        let [(text, false)] = &summary_lines(&summary)[..] else { panic!("one line for stdout") };
        assert!(text.contains("1 delivered (2.00 KiB in 1.0 s"), "{text}");
        assert!(text.contains("2 skipped (2 too young), 0 failed"), "{text}");
    }
}
