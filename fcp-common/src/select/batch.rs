//! Rules with wildcards, compiled in batches under limits.

use fcp_proto::escape;
use regex::bytes::{RegexSet, RegexSetBuilder};

use super::pattern::{MAX_REGEX_NESTING, MAX_REGEX_SIZE};
use super::rule::{Rule, RulesRefused};

/// Most `re:` rules: checking one that a peer sent means compiling up to [`MAX_REGEX_SIZE`].
pub(super) const MAX_REGEX_RULES: usize = 1_000;
/// Most bytes of wildcard and `re:` patterns together, as the automata take many times that.
/// Ten thousand patterns of ordinary length fit; the worst globs of this size compile in about a
/// second.
const MAX_WILD_BYTES: usize = 512 << 10;
/// Largest compiled size of all `re:` rules together, in bytes.
const MAX_REGEX_TOTAL: usize = 8 << 20;
/// Patterns are compiled in batches of at most this many, and of [`BATCH_BYTES`]: the lazy
/// automaton of thousands of globs would outgrow its cache and fall back to a slow engine.
const BATCH_RULES: usize = 256;
const BATCH_BYTES: usize = 16 << 10;
/// A batch of globs of [`BATCH_BYTES`] stays well below this; the limit is a second lock.
const BATCH_SIZE: usize = 8 << 20;

/// What a batch of regexes looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The path as it is, for `re:` rules.
    Bare,
    /// The path after [`marked`], for globs.
    Marked,
}

/// Some rules of one kind, in their order, as one automaton.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    subject: Subject,
    set: RegexSet,
    places: Vec<usize>,
}

impl Batch {
    /// Whether a rule of it may come before `place` in the list.
    pub(super) fn starts_before(&self, place: usize) -> bool {
        self.places.first().is_some_and(|first| *first < place)
    }

    /// The place of the first rule that matches.
    pub(super) fn first_match(&self, bare: &[u8], marked: &[u8]) -> Option<usize> {
        let subject = match self.subject {
            Subject::Bare => bare,
            Subject::Marked => marked,
        };
        // The indices come in ascending order.
        let first = self.set.matches(subject).iter().next()?;
        self.places.get(first).copied()
    }
}

/// Collects rules into batches under the limits.
#[derive(Default)]
pub(super) struct Compiler {
    pending: Vec<Pending>,
    wild_bytes: usize,
    regexes: usize,
}

struct Pending {
    subject: Subject,
    bytes: usize,
    sources: Vec<String>,
    places: Vec<usize>,
}

impl Compiler {
    /// Takes `rule`, which stands at `place` in the list.
    pub(super) fn add(
        &mut self,
        place: usize,
        rule: &Rule,
        subject: Subject,
        regex: &str,
    ) -> Result<(), RulesRefused> {
        let pattern = rule.pattern.as_bytes();
        self.wild_bytes += pattern.len();
        self.regexes += usize::from(rule.pattern.is_regex());
        if self.wild_bytes > MAX_WILD_BYTES {
            return Err(too_big(place, pattern));
        }
        if self.regexes > MAX_REGEX_RULES {
            return Err(too_many_regexes(place, pattern));
        }
        let batch = self.open_batch(subject);
        batch.bytes += pattern.len();
        batch.sources.push(regex.to_owned());
        batch.places.push(place);
        Ok(())
    }

    fn open_batch(&mut self, subject: Subject) -> &mut Pending {
        let is_open = |batch: &Pending| {
            batch.subject == subject
                && batch.sources.len() < BATCH_RULES
                && batch.bytes < BATCH_BYTES
        };
        // At most one batch of each kind is open, so rules stay in order within their kind.
        let found = self.pending.iter().rposition(is_open).unwrap_or_else(|| {
            let (sources, places) = (Vec::new(), Vec::new());
            self.pending.push(Pending { subject, bytes: 0, sources, places });
            self.pending.len() - 1
        });
        &mut self.pending[found]
    }

    /// Compiles what was taken.
    pub(super) fn finish(self, rules: &[Rule]) -> Result<Vec<Batch>, RulesRefused> {
        let regex_batches = self.pending.iter().filter(|b| b.subject == Subject::Bare).count();
        let regex_limit = MAX_REGEX_TOTAL / regex_batches.max(1);
        self.pending.into_iter().map(|batch| batch.compile(regex_limit, rules)).collect()
    }
}

impl Pending {
    fn compile(self, regex_limit: usize, rules: &[Rule]) -> Result<Batch, RulesRefused> {
        let limit = match self.subject {
            Subject::Bare => regex_limit.max(MAX_REGEX_SIZE),
            Subject::Marked => BATCH_SIZE,
        };
        let set = RegexSetBuilder::new(&self.sources)
            .unicode(false)
            .dot_matches_new_line(true)
            .nest_limit(MAX_REGEX_NESTING)
            .size_limit(limit)
            .build();
        // Each pattern was compiled or generated before, so only the sum can be wrong.
        let last = self.places.last().copied().unwrap_or_default();
        let set = set.map_err(|_| {
            too_big(last, rules.get(last).map_or(b"", |rule| rule.pattern.as_bytes()))
        })?;
        Ok(Batch { subject: self.subject, set, places: self.places })
    }
}

fn too_big(place: usize, pattern: &[u8]) -> RulesRefused {
    RulesRefused::TooBig { number: place + 1, pattern: escape(pattern) }
}

/// The refusal of one `re:` rule too many.
pub(super) fn too_many_regexes(place: usize, pattern: &[u8]) -> RulesRefused {
    let pattern = escape(&pattern[..pattern.len().min(64)]);
    RulesRefused::TooManyRegexes { number: place + 1, pattern, max: MAX_REGEX_RULES }
}

/// A slash in front, so that every component has one; NUL behind a directory.
pub(super) fn marked(path: &[u8], is_dir: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() + 2);
    out.push(b'/');
    out.extend_from_slice(path);
    if is_dir {
        out.push(0);
    }
    out
}
