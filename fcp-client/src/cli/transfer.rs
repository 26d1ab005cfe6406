//! Options of push, pull and plain copies.

use std::ffi::OsString;

use clap::{ArgMatches, Args, ValueEnum};

use super::ReachOptions;

/// Options of push, pull and plain copies.
#[derive(Args, Debug, Default)]
pub struct TransferOptions {
    /// Say more: entries as they are done, skipped ones too when given twice
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    /// Show what would be done and touch nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Compare content always, not only when size or time differ
    #[arg(short, long)]
    pub checksum: bool,
    /// Connections that carry content, 1 to 128 [default: what the path is worth, up to 16]
    #[arg(short = 'j', long = "connections", value_name = "NUM", value_parser = clap::value_parser!(u16).range(1..=128))]
    pub connections: Option<u16>,
    /// Leave out what matches: a glob as in rsync, or a regex behind `re:`; the first match of all
    /// --include and --exclude wins
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    pub(super) exclude: Vec<OsString>,
    /// Keep what matches in, against a later --exclude
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    pub(super) include: Vec<OsString>,
    /// Print what was sent, kept and skipped
    #[arg(long)]
    pub stats: bool,
    /// Print one JSON object a line on stdout instead of text
    #[arg(long)]
    pub json: bool,
    /// Make missing parent directories of the destination
    #[arg(long)]
    pub mkpath: bool,
    /// How much is on the disk before fcp ends
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub fsync: FsyncArg,
    /// Protocol version to speak with the server
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u16).range(1..=2))]
    pub protocol: Option<u16>,

    /// Archive mode; everything it stands for is on already, but owner, group and devices
    #[arg(short, long)]
    pub archive: bool,
    /// Descend into directories (on already)
    #[arg(short, long, overrides_with = "no_recursive")]
    pub(super) recursive: bool,
    /// Leave directories out
    #[arg(long)]
    pub(super) no_recursive: bool,
    /// Keep symbolic links as links (on already)
    #[arg(short, long, overrides_with = "no_links")]
    pub(super) links: bool,
    /// Leave symbolic links out
    #[arg(long)]
    pub(super) no_links: bool,
    /// Keep permissions (on already)
    #[arg(short, long, overrides_with = "no_perms")]
    pub(super) perms: bool,
    /// Do not set permissions of existing files; new ones follow the umask
    #[arg(long)]
    pub(super) no_perms: bool,
    /// Keep modification times (on already)
    #[arg(short, long, overrides_with = "no_times")]
    pub(super) times: bool,
    /// Do not set modification times
    #[arg(long)]
    pub(super) no_times: bool,

    /// The way to another host
    #[command(flatten)]
    pub reach: ReachOptions,

    /// `--include` and `--exclude` in the order in which they were typed
    #[arg(skip)]
    pub filters: Vec<FilterArg>,
}

/// One `--include` or `--exclude`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterArg {
    /// Which of the two.
    pub include: bool,
    /// What it names.
    pub pattern: OsString,
}

/// `--fsync`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FsyncArg {
    /// Nothing, as cp, scp and rsync
    #[default]
    None,
    /// Each file before its name appears, each directory once
    Batch,
    /// Each file and its name before the next step
    Always,
}

impl TransferOptions {
    /// Descend into directories.
    pub fn recursive(&self) -> bool {
        !self.no_recursive
    }

    /// Keep symbolic links.
    pub fn links(&self) -> bool {
        !self.no_links
    }

    /// Keep permissions.
    pub fn perms(&self) -> bool {
        !self.no_perms
    }

    /// Keep modification times.
    pub fn times(&self) -> bool {
        !self.no_times
    }

    /// Brings the two kinds of filters into the order in which they were typed.
    pub(super) fn order_filters(&mut self, matches: &ArgMatches) {
        let with_place = |id: &str, include: bool, patterns: &[OsString]| -> Vec<_> {
            let places = matches.indices_of(id).into_iter().flatten();
            let filter = |pattern: &OsString| FilterArg { include, pattern: pattern.clone() };
            places.zip(patterns.iter().map(filter)).collect()
        };
        let mut all = with_place("include", true, &self.include);
        all.extend(with_place("exclude", false, &self.exclude));
        all.sort_by_key(|(place, _)| *place);
        self.filters = all.into_iter().map(|(_, filter)| filter).collect();
    }
}
