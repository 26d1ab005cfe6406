//! The bytes of a journal to what they tell. Never fails: what is unsound ends the reading.

use std::collections::{BTreeMap, BTreeSet};

use fcp_proto::meta::{Digest, SourceVersion};
use fcp_proto::path::{Name, RelPath};

use super::names::{RunId, parse_temp};
use super::record::{BLOCK_SIZE, Record, strip_header};

/// What a journal tells of its run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// The directories in which temps of the run may exist.
    pub dirs: BTreeSet<RelPath>,
    /// The files begun and not ended, by destination; of two for one destination, the later.
    pub begun: BTreeMap<RelPath, Begun>,
}

/// A file that was begun and not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The temp beside the destination; it spells the run's id.
    pub temp: Name,
    /// The source as it was.
    pub version: SourceVersion,
    /// Blocks that were written, each once, in order; every index lies within the file.
    pub blocks: BTreeMap<u32, Digest>,
}

/// Reads `run`'s journal up to the first record that is torn, unsound or of another version.
pub fn replay(bytes: &[u8], run: RunId) -> Replayed {
    let mut replay = Replay { run, dirs: BTreeSet::new(), files: BTreeMap::new() };
    if let Some(mut left) = strip_header(bytes, run) {
        while let Some(record) = Record::decode(&mut left) {
            if replay.apply(record).is_none() {
                break;
            }
        }
    }
    // By number, so that the later of two for one path remains.
    Replayed { dirs: replay.dirs, begun: replay.files.into_values().flatten().collect() }
}

struct Replay {
    run: RunId,
    dirs: BTreeSet<RelPath>,
    /// By number; `None` once it has ended.
    files: BTreeMap<u32, Option<(RelPath, Begun)>>,
}

impl Replay {
    /// `None` when the record makes no sense where it stands.
    fn apply(&mut self, record: Record) -> Option<()> {
        match record {
            Record::Dir(path) => {
                self.dirs.insert(path);
            }
            Record::Begin { no, path, temp, version } => {
                let ours = parse_temp(&temp).is_some_and(|(run, _)| run == self.run);
                if !ours || self.files.contains_key(&no) {
                    return None;
                }
                let begun = Begun { temp, version, blocks: BTreeMap::new() };
                self.files.insert(no, Some((path, begun)));
            }
            Record::Block { no, index, digest } => {
                let (_, begun) = self.files.get_mut(&no)?.as_mut()?;
                if u64::from(index) >= begun.version.size.div_ceil(BLOCK_SIZE) {
                    return None;
                }
                begun.blocks.insert(index, digest);
            }
            Record::End { no } => *self.files.get_mut(&no)? = None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::header;

    const RUN: RunId = RunId(0xfeed);

    fn begin(no: u32, path: &str, counter: u64) -> Record {
        let version = SourceVersion { size: 3 * BLOCK_SIZE, ..SourceVersion::default() };
        let path = RelPath::new(path.as_bytes()).unwrap();
        Record::Begin { no, path, temp: RUN.temp_name(counter), version }
    }

    fn block(no: u32, index: u32) -> Record {
        Record::Block { no, index, digest: Digest([index as u8; 16]) }
    }

    fn journal(records: &[Record]) -> Vec<u8> {
        let mut bytes = header(RUN).to_vec();
        assert!(records.iter().all(|record| record.encode(&mut bytes)));
        bytes
    }

    #[test]
    fn begun_and_not_ended_files_remain_with_their_blocks() {
        let records = [
            Record::Dir(RelPath::root()),
            begin(0, "a", 0),
            begin(1, "b", 1),
            block(0, 2),
            block(0, 0),
            Record::End { no: 1 },
        ];
        let told = replay(&journal(&records), RUN);
        assert_eq!(told.begun.len(), 1);
        let a = &told.begun[&RelPath::new(b"a").unwrap()];
        assert_eq!(a.blocks.keys().copied().collect::<Vec<_>>(), [0, 2]);
        assert!(told.dirs.contains(&RelPath::root()));
    }

    #[test]
    fn c07_a_torn_tail_costs_only_the_tail() {
        let records = [Record::Dir(RelPath::root()), begin(0, "a", 0), block(0, 0), block(0, 1)];
        let bytes = journal(&records);
        let mut last = 0;
        for cut in 0..=bytes.len() {
            let told = replay(&bytes[..cut], RUN);
            let n =
                told.dirs.len() + told.begun.values().map(|b| 1 + b.blocks.len()).sum::<usize>();
            assert!(n >= last, "a longer prefix tells less at {cut}");
            last = n;
        }
        assert_eq!(last, 4);
    }

    #[test]
    fn c07_garbage_other_versions_and_other_runs_tell_nothing() {
        let bytes = journal(&[begin(0, "a", 0)]);
        assert_eq!(replay(&bytes, RunId(1)), Replayed::default());
        let mut newer = bytes.clone();
        newer[7] = 2;
        assert_eq!(replay(&newer, RUN), Replayed::default());
        assert_eq!(replay(&[0xa5; 4096], RUN), Replayed::default());
        assert_eq!(replay(b"", RUN), Replayed::default());
        let mut then_garbage = bytes;
        then_garbage.extend_from_slice(&[0xff; 100]);
        assert_eq!(replay(&then_garbage, RUN).begun.len(), 1);
    }

    #[test]
    fn p06_a_begin_that_names_no_temp_of_its_run_ends_the_reading() {
        let other = |temp: Name| {
            let path = RelPath::new(b"a").unwrap();
            Record::Begin { no: 0, path, temp, version: SourceVersion::default() }
        };
        for temp in [Name::new(b"precious").unwrap(), RunId(1).temp_name(0)] {
            let told = replay(&journal(&[other(temp), begin(1, "b", 1)]), RUN);
            assert_eq!(told, Replayed::default());
        }
    }

    #[test]
    fn blocks_beyond_the_file_or_of_no_file_end_the_reading() {
        for bad in [block(0, 3), block(9, 0)] {
            let told = replay(&journal(&[begin(0, "a", 0), bad, block(0, 1)]), RUN);
            assert!(told.begun[&RelPath::new(b"a").unwrap()].blocks.is_empty());
        }
    }

    proptest::proptest! {
        #[test]
        fn c07_no_bytes_make_it_panic(tail in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let mut bytes = header(RUN).to_vec();
            bytes.extend_from_slice(&tail);
            replay(&bytes, RUN);
        }
    }
}
