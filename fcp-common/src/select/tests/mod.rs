//! The rule language, by table, against the installed rsync, and with arbitrary bytes.

mod limits;
mod rsync;
mod table;

use super::{Rule, RuleSet};
use fcp_proto::RelPath;

/// Rules as `+pattern` and `-pattern`.
fn rules(list: &[&[u8]]) -> RuleSet {
    let rule = |text: &&[u8]| match text.split_first().unwrap() {
        (b'+', pattern) => Rule::include(pattern).unwrap(),
        (b'-', pattern) => Rule::exclude(pattern).unwrap(),
        _ => panic!("neither + nor -: {text:?}"),
    };
    RuleSet::new(list.iter().map(rule).collect()).unwrap()
}

fn path(text: &[u8]) -> RelPath {
    RelPath::new(text).unwrap()
}
