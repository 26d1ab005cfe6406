//! Which paths take part in a transfer: decisions over bytes, no I/O.
//!
//! [`RuleSet`] is the ordered include/exclude list in rsync's language, [`operand`] the globs of
//! remote operands, [`wanted`] what a pulling client accepts from a server. A rule list is
//! compiled once and then asked for every path; both ends ask it, as neither trusts the other.

pub mod operand;
pub mod wanted;

mod batch;
mod glob;
mod pattern;
mod rule;
mod rule_set;
#[cfg(test)]
mod tests;

pub use pattern::{MAX_PATTERN, Pattern, PatternError};
pub use rule::{Action, MAX_RULES, Rule, RulesRefused};
pub use rule_set::{RuleSet, Verdict};
pub use wanted::Wanted;
