//! The ordered rules of one transfer, compiled.

use std::collections::HashMap;

use fcp_proto::RelPath;

use super::batch::{Batch, Compiler, MAX_REGEX_RULES, Subject, marked, too_many_regexes};
use super::pattern::Form;
use super::rule::{Action, MAX_RULES, Rule, RulesRefused};

/// Whether a path takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Include,
    /// It does not, and when it is a directory nothing below it does.
    Exclude,
}

/// An ordered list of rules: the first one that matches a path decides, as in rsync.
///
/// A path that none matches is included, and so is the transfer root whatever the rules say.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
    anchored: HashMap<Box<[u8]>, Places>,
    floating: HashMap<Box<[u8]>, Places>,
    /// Components of the longest key of `floating`: longer tails of a path need no look-up.
    floating_depth: usize,
    batches: Vec<Batch>,
}

impl RuleSet {
    /// Compiles `rules`; refused when they are too many or too large.
    pub fn new(rules: Vec<Rule>) -> Result<RuleSet, RulesRefused> {
        if rules.len() > MAX_RULES {
            return Err(RulesRefused::TooMany);
        }
        let mut set = RuleSet::default();
        let mut compiler = Compiler::default();
        for (place, rule) in rules.iter().enumerate() {
            match rule.pattern.form() {
                Form::Nothing => {}
                Form::Literal { text, anchored, dir_only } => {
                    set.add_literal(place, text, anchored, dir_only);
                }
                Form::Glob(regex) => compiler.add(place, rule, Subject::Marked, &regex)?,
                Form::Regex(regex) => compiler.add(place, rule, Subject::Bare, regex)?,
            }
        }
        set.batches = compiler.finish(&rules)?;
        set.rules = rules;
        Ok(set)
    }

    /// The rules that a peer sent as pairs of [`Rule::to_wire`].
    ///
    /// Stops reading at the first pair that is too many, so the iterator may be longer.
    pub fn from_wire<'a>(
        pairs: impl IntoIterator<Item = (u8, &'a [u8])>,
    ) -> Result<RuleSet, RulesRefused> {
        let mut rules = Vec::new();
        let mut regexes = 0;
        for (action, pattern) in pairs {
            if rules.len() == MAX_RULES {
                return Err(RulesRefused::TooMany);
            }
            // Checked before the pattern, as checking a regex means compiling it.
            regexes += usize::from(pattern.starts_with(b"re:"));
            if regexes > MAX_REGEX_RULES {
                return Err(too_many_regexes(rules.len(), pattern));
            }
            rules.push(Rule::from_wire(action, pattern)?);
        }
        RuleSet::new(rules)
    }

    /// Whether there are no rules, so that everything is included.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What the rules say about `path` itself.
    ///
    /// The caller walks from the top and does not enter an excluded directory; for a path from
    /// elsewhere ask [`RuleSet::admits`].
    pub fn decide(&self, path: &RelPath, is_dir: bool) -> Verdict {
        self.decide_bytes(path.as_bytes(), is_dir)
    }

    /// Whether a walk from the top would reach `path` and include it.
    ///
    /// For a receiver that checks what a peer sends against the rules of its own request.
    pub fn admits(&self, path: &RelPath, is_dir: bool) -> bool {
        let bytes = path.as_bytes();
        let included = |part, is_dir| self.decide_bytes(part, is_dir) == Verdict::Include;
        self.is_empty()
            || (slash_positions(bytes).all(|at| included(&bytes[..at], true))
                && included(bytes, is_dir))
    }

    fn decide_bytes(&self, path: &[u8], is_dir: bool) -> Verdict {
        if self.is_empty() || path.is_empty() {
            return Verdict::Include;
        }
        let literal = self.first_literal(path, is_dir);
        let action = self.first_match(path, is_dir, literal).and_then(|at| self.rules.get(at));
        match action.map(|rule| rule.action) {
            Some(Action::Exclude) => Verdict::Exclude,
            Some(Action::Include) | None => Verdict::Include,
        }
    }

    fn add_literal(&mut self, place: usize, text: &[u8], anchored: bool, dir_only: bool) {
        let map = if anchored {
            &mut self.anchored
        } else {
            self.floating_depth = self.floating_depth.max(1 + slash_positions(text).count());
            &mut self.floating
        };
        map.entry(text.into()).or_default().add(place, dir_only);
    }

    /// The first rule without wildcards that matches.
    fn first_literal(&self, path: &[u8], is_dir: bool) -> Option<usize> {
        let anchored = self.anchored.get(path).and_then(|places| places.first(is_dir));
        let tails = slash_positions(path).rev().map(|at| &path[at + 1..]).chain([path]);
        let floating = tails
            .take(self.floating_depth)
            .filter_map(|tail| self.floating.get(tail)?.first(is_dir))
            .min();
        earlier(anchored, floating)
    }

    /// The first rule of all that matches, when `best` is the first one without wildcards.
    fn first_match(&self, path: &[u8], is_dir: bool, mut best: Option<usize>) -> Option<usize> {
        if self.batches.is_empty() {
            return best;
        }
        let marked = marked(path, is_dir);
        for batch in &self.batches {
            if best.is_none_or(|best| batch.starts_before(best)) {
                best = earlier(best, batch.first_match(path, &marked));
            }
        }
        best
    }
}

/// The first places in the list of a literal, written without and with a trailing slash.
#[derive(Clone, Copy, Debug, Default)]
struct Places {
    any: Option<usize>,
    dir: Option<usize>,
}

impl Places {
    fn add(&mut self, place: usize, dir_only: bool) {
        let slot = if dir_only { &mut self.dir } else { &mut self.any };
        slot.get_or_insert(place);
    }

    fn first(&self, is_dir: bool) -> Option<usize> {
        if is_dir { earlier(self.any, self.dir) } else { self.any }
    }
}

fn slash_positions(bytes: &[u8]) -> impl DoubleEndedIterator<Item = usize> + '_ {
    bytes.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at)
}

fn earlier(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
