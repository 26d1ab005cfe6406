//! A set of `u64` positions kept as disjoint ranges: which bytes of a file are missing.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint, non-adjacent, non-empty ranges in order. Costs nothing per byte, only per gap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Start to end.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The set of one range.
    pub fn of(range: Range<u64>) -> RangeSet {
        let mut set = RangeSet::default();
        set.insert(range);
        set
    }

    /// Adds every position of `range`; answers how many are new.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let (mut start, mut end) = (range.start, range.end);
        let mut there = 0;
        // Everything that begins at or before `end` and reaches `start` melts into one.
        while let Some((&s, &e)) = self.ranges.range(..=end).next_back() {
            if e < start {
                break;
            }
            self.ranges.remove(&s);
            there += e - s;
            start = start.min(s);
            end = end.max(e);
        }
        self.ranges.insert(start, end);
        end - start - there
    }

    /// Removes every position of `range`; answers how many there were.
    pub fn remove(&mut self, range: Range<u64>) -> u64 {
        let mut there = 0;
        if range.is_empty() {
            return there;
        }
        while let Some((&s, &e)) = self.ranges.range(..range.end).next_back() {
            if e <= range.start {
                break;
            }
            self.ranges.remove(&s);
            there += e.min(range.end) - s.max(range.start);
            if e > range.end {
                self.ranges.insert(range.end, e);
            }
            if s < range.start {
                self.ranges.insert(s, range.start);
            }
        }
        there
    }

    /// Takes the lowest positions: at most up to the next multiple of `step`.
    pub fn pop_block(&mut self, step: u64) -> Option<Range<u64>> {
        let (start, end) = self.ranges.pop_first()?;
        let cut = (start - start % step).saturating_add(step).min(end);
        if cut < end {
            self.ranges.insert(cut, end);
        }
        Some(start..cut)
    }

    /// Whether all of `range` is in the set.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        self.ranges.range(..=range.start).next_back().is_some_and(|(_, e)| *e >= range.end)
    }

    /// The ranges from low to high.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(s, e)| *s..*e)
    }

    /// How many positions are in the set.
    pub fn len(&self) -> u64 {
        self.iter().map(|r| r.end - r.start).sum()
    }

    /// Whether no position is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(ops in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 0..60)) {
            let mut set = RangeSet::default();
            let mut model = std::collections::BTreeSet::new();
            for (insert, start, len) in ops {
                let range = start..start + len;
                if insert {
                    set.insert(range.clone());
                    model.extend(range);
                } else {
                    set.remove(range.clone());
                    model.retain(|x| !range.contains(x));
                }
                let flat: Vec<u64> = set.iter().flatten().collect();
                prop_assert_eq!(&flat, &model.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(set.len(), model.len() as u64);
                let ranges: Vec<_> = set.iter().collect();
                prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start));
            }
        }
    }

    #[test]
    fn blocks_end_at_multiples() {
        let mut set = RangeSet::of(3..25);
        let blocks: Vec<_> = std::iter::from_fn(|| set.pop_block(10)).collect();
        assert_eq!(blocks, [3..10, 10..20, 20..25]);
    }
}
