//! `fcp job ...` as it was typed.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

const ABOUT: &str = "Picks files up, proves their copies and puts them away, as jobs.yaml says";
const HELP: &str = "\
Examples:
  fcp job run EPSILON                 the current and the previous month
  fcp job run EPSILON SIGMA 2024      a whole year of two jobs, at the same time
  fcp job run --all -n -c other.yaml  what would be done, and why
  fcp job check --offline             whether jobs.yaml makes sense
  fcp job keys                        what may stand in it

Without -c the file is ./jobs.yaml, else fcp/jobs.yaml in the directory of settings
($XDG_CONFIG_HOME or ~/.config), else /etc/fcp/jobs.yaml. -c may stand anywhere behind the word
job, and before it: fcp -c FILE job run NAME.

Exit codes: 0 all done, also when there was nothing to do; 1 jobs.yaml or what was typed makes no
sense; 10 cannot connect; 11 the ledger or this disk cannot be used; 20 interrupted; 23 some files
failed, or a place is not as it should be; 75 another run has the job's lock.";
const COMMANDS: [&str; 5] = ["run", "list", "check", "status", "keys"];
/// Years that anybody keeps files of.
const FIRST_YEAR: i16 = 1970;

#[derive(Parser)]
#[command(
    name = "fcp job",
    bin_name = "fcp job",
    about = ABOUT,
    after_help = HELP,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
struct JobCli {
    #[command(flatten)]
    options: JobOptions,
    #[command(subcommand)]
    what: JobCommand,
}

/// What was typed behind `fcp job`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobArgs {
    /// What holds for every command.
    pub options: JobOptions,
    /// The command.
    pub what: JobCommand,
}

/// Options of all commands about jobs.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct JobOptions {
    /// The job file
    #[arg(short = 'c', long = "config-file", value_name = "FILE", global = true)]
    pub file: Option<PathBuf>,
    /// Print one JSON object a line on stdout instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more: every file, and why
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// A command about jobs.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum JobCommand {
    /// Run jobs
    #[command(
        override_usage = "fcp job run [OPTIONS] NAME... [YEAR]\n       fcp job run [OPTIONS] --all [YEAR]"
    )]
    Run(RunArgs),
    /// Tell which jobs there are
    List,
    /// Tell what is wrong with jobs: the file, then what their places allow
    Check(CheckArgs),
    /// Tell what became of files
    Status(StatusArgs),
    /// Tell all keys of a job, their defaults and what they may be
    Keys,
}

/// `fcp job run`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct RunArgs {
    /// Jobs, and behind them perhaps a year of four digits
    #[arg(value_name = "NAME... [YEAR]")]
    pub names: Vec<String>,
    /// The year whose months are looked into [default: the current and the previous month]
    #[arg(long, value_name = "YEAR", value_parser = year)]
    pub year: Option<i16>,
    /// Every job of the file
    #[arg(long)]
    pub all: bool,
    /// Show what would be copied, moved, deleted and skipped, and why, and touch nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Stay, and run again after so long, as in 90s, 15m, 6h or 1d
    #[arg(long, value_name = "TIME", value_parser = every)]
    pub every: Option<Duration>,
}

/// `fcp job check`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckArgs {
    /// Jobs [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Connect to nobody and fetch no secrets
    #[arg(long)]
    pub offline: bool,
}

/// `fcp job status`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusArgs {
    /// Jobs [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

/// A year as it is typed: exactly four ASCII digits, from 1970.
pub fn parse_year(text: &str) -> Option<i16> {
    let digits = text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit());
    let year = digits.then(|| text.parse().ok()).flatten();
    year.filter(|year| *year >= FIRST_YEAR)
}

fn year(text: &str) -> Result<i16, String> {
    parse_year(text).ok_or_else(|| "a year has four digits and is 1970 or later".to_owned())
}

/// A number and its unit; from a second to a week.
fn every(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(60 * 60),
        "d" => Some(24 * 60 * 60),
        _ => None,
    };
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let number: Option<u64> = plain.then(|| digits.parse().ok()).flatten();
    let seconds = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    let seconds = seconds.filter(|seconds| (1..=7 * 24 * 60 * 60).contains(seconds));
    let needed = "a time from 1s to 7d is needed, as in 90s, 15m or 6h";
    seconds.map(Duration::from_secs).ok_or_else(|| needed.to_owned())
}

/// Where `job` stands if it is the command: the first word, or behind `-c FILE`. There it could
/// also be the second source of a copy with checksums, so that its own command must follow.
pub(super) fn position(args: &[OsString]) -> Option<usize> {
    let is = |at: usize, words: &[&str]| {
        args.get(at).is_some_and(|arg| words.iter().any(|word| arg == OsStr::new(word)))
    };
    let (mut at, mut file) = (1, false);
    loop {
        if is(at, &["-c", "--config-file"]) {
            (at, file) = (at + 2, true);
        } else if is(at, &["-n", "-v", "-q", "--dry-run", "--verbose", "--quiet", "--json"]) {
            at += 1;
        } else {
            let follows = is(at + 1, &COMMANDS) || is(at + 1, &["-h", "--help"]);
            return (is(at, &["job"]) && (follows || !file)).then_some(at);
        }
    }
}

/// Reads the arguments, of which the one at `at` is `job`.
///
/// # Errors
/// What clap says, with what to type; help included.
pub(super) fn parse(mut args: Vec<OsString>, at: usize) -> Result<JobArgs, clap::Error> {
    args.remove(at);
    let cli = JobCli::try_parse_from(args).map_err(explained)?;
    let mut args = JobArgs { options: cli.options, what: cli.what };
    if let JobCommand::Run(run) = &mut args.what {
        run.take_year().map_err(|text| explained(usage(&text)))?;
    }
    Ok(args)
}

impl RunArgs {
    /// The last of several operands may be the year.
    fn take_year(&mut self) -> Result<(), String> {
        let last = self.names.last().and_then(|last| parse_year(last));
        if let Some(year) = last
            && (self.all || self.names.len() > 1)
        {
            if self.year.is_some_and(|other| other != year) {
                return Err("two years are given: keep one".to_owned());
            }
            self.year = Some(year);
            self.names.pop();
        }
        match (self.names.is_empty(), self.all) {
            (true, false) => Err("a job's name is needed, or --all".to_owned()),
            (false, true) => Err("--all and names of jobs: keep one".to_owned()),
            _ => Ok(()),
        }
    }
}

fn usage(text: &str) -> clap::Error {
    JobCli::command().error(ErrorKind::ValueValidation, text)
}

/// One line that says what to type. `fcp job` alone asks for help.
fn explained(error: clap::Error) -> clap::Error {
    match error.kind() {
        ErrorKind::DisplayHelp => return error,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let help = JobCli::try_parse_from(["fcp job", "--help"]);
            return help.err().unwrap_or(error);
        }
        _ => {}
    }
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let first = first.trim_start_matches("error: ").trim_end_matches(':');
    let missing = error.kind() == ErrorKind::MissingSubcommand;
    let first =
        if missing { "a command is needed: run, list, check, status or keys" } else { first };
    usage(&format!("{first}; type: fcp job run NAME... {SEE}"))
}

/// What the errors of this module end in.
pub(crate) const SEE: &str = "(see fcp job --help)";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<JobArgs, String> {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let at = position(&args).ok_or("no job")?;
        parse(args, at).map_err(|error| error.to_string())
    }

    fn run(line: &str) -> (Vec<String>, Option<i16>) {
        match parsed(line).unwrap_or_else(|e| panic!("{line}: {e}")).what {
            JobCommand::Run(run) => (run.names, run.year),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_file_may_stand_anywhere() {
        for line in [
            "fcp -c f job run A",
            "fcp job -c f run A",
            "fcp job run -c f A",
            "fcp job run A -c f",
            "fcp -v --config-file f job run A",
            "fcp job run A --config-file=f",
        ] {
            assert_eq!(parsed(line).unwrap().options.file, Some("f".into()), "{line}");
        }
        // Copies with checksums.
        for line in ["fcp -c job x", "fcp -c f job", "fcp -c f job x", "fcp x job run"] {
            assert_eq!(parsed(line), Err("no job".to_owned()), "{line}");
        }
    }

    #[test]
    fn j10_the_last_of_several_operands_may_be_the_year() {
        assert_eq!(run("fcp job run A"), (vec!["A".to_owned()], None));
        assert_eq!(run("fcp job run A 2024"), (vec!["A".to_owned()], Some(2024)));
        assert_eq!(run("fcp job run A --year 2024"), (vec!["A".to_owned()], Some(2024)));
        assert_eq!(run("fcp job run --all 2024"), (vec![], Some(2024)));
        assert_eq!(run("fcp job run 2024"), (vec!["2024".to_owned()], None));
        assert_eq!(run("fcp job run A 20230").0.len(), 2);
        assert_eq!(run("fcp job run A ２０２４").0.len(), 2);
        for bad in [
            "fcp job run",
            "fcp job run --all A",
            "fcp job run -rf",
            "fcp job run A 2024 --year 2023",
            "fcp job run A --year 20230",
            "fcp job run A --year 0000",
            "fcp job rum A",
            "fcp job -v",
            "fcp -n job run A",
        ] {
            assert!(parsed(bad).unwrap_err().contains(SEE), "{bad}");
        }
    }

    #[test]
    fn j10_a_year_has_four_ascii_digits() {
        assert_eq!(parse_year("2024"), Some(2024));
        for bad in
            ["20230", "203", "1969", "0000", "+202", "-202", "２０２４", "٢٠٢٤", "202a", "", "../."]
        {
            assert_eq!(parse_year(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(every("15m"), Ok(Duration::from_secs(900)));
        for bad in ["", "15", "m", "0s", "8d", "-1s", "1.5h", "99999999999999999999s", "1ms", "１m"]
        {
            assert!(every(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn help_is_no_error() {
        assert!(parsed("fcp job").unwrap_err().contains("75 another run"));
        assert!(parsed("fcp job --help").unwrap_err().contains("75 another run"));
        JobCli::command().debug_assert();
    }
}
