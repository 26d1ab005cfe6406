//! One include or exclude rule, and its form on the wire.

use super::pattern::{Pattern, PatternError};

/// Most rules of one transfer: generated exclude lists are long, but not longer.
pub const MAX_RULES: usize = 10_000;

/// What a rule does with a path that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Takes it.
    Include,
    /// Leaves it out, and with a directory everything below it.
    Exclude,
}

impl Action {
    const INCLUDE: u8 = 1;
    const EXCLUDE: u8 = 2;

    fn to_wire(self) -> u8 {
        match self {
            Action::Include => Action::INCLUDE,
            Action::Exclude => Action::EXCLUDE,
        }
    }

    fn from_wire(number: u8) -> Option<Action> {
        match number {
            Action::INCLUDE => Some(Action::Include),
            Action::EXCLUDE => Some(Action::Exclude),
            _ => None,
        }
    }
}

/// One include or exclude rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// The paths it does it with.
    pub pattern: Pattern,
}

impl Rule {
    /// A rule that takes what `pattern` matches.
    pub fn include(pattern: &[u8]) -> Result<Rule, PatternError> {
        Ok(Rule { action: Action::Include, pattern: Pattern::new(pattern)? })
    }

    /// A rule that leaves out what `pattern` matches.
    pub fn exclude(pattern: &[u8]) -> Result<Rule, PatternError> {
        Ok(Rule { action: Action::Exclude, pattern: Pattern::new(pattern)? })
    }

    /// The number of the action (1 include, 2 exclude) and the pattern's bytes.
    pub fn to_wire(&self) -> (u8, Vec<u8>) {
        (self.action.to_wire(), self.pattern.as_bytes().to_vec())
    }

    /// The rule that a peer sent; refused when the action is unknown or the pattern is none.
    pub fn from_wire(action: u8, pattern: &[u8]) -> Result<Rule, RulesRefused> {
        let action = Action::from_wire(action).ok_or(RulesRefused::UnknownAction(action))?;
        Ok(Rule { action, pattern: Pattern::new(pattern)? })
    }
}

/// Why a list of rules is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesRefused {
    /// A peer sent an action that is neither include nor exclude.
    #[error("a rule with unknown action {0}")]
    UnknownAction(u8),
    /// One of the patterns is none.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// More than [`MAX_RULES`] rules.
    #[error("more than {MAX_RULES} include and exclude rules")]
    TooMany,
    /// More regular expressions than are worth compiling; globs cost far less.
    #[error("rule {number} '{pattern}' is one regular expression too many (at most {max})")]
    TooManyRegexes {
        /// Its place in the list, from 1.
        number: usize,
        /// The pattern, escaped.
        pattern: String,
        /// The limit.
        max: usize,
    },
    /// The rules up to this one take more memory than all of them may.
    #[error("rule {number} '{pattern}' makes the include and exclude rules too large together")]
    TooBig {
        /// Its place in the list, from 1.
        number: usize,
        /// The pattern, escaped.
        pattern: String,
    },
}
