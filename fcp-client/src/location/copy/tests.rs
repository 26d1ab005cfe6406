use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use fcp_proto::path::RelPath;

use super::*;
use crate::location::local::Local;
use crate::location::{Reason, Result};

#[derive(Default)]
pub(super) struct Seen {
    moved: AtomicU64,
    ranges: Mutex<Vec<(Range<u64>, u128)>>,
    stop: AtomicBool,
}

impl Watch for Seen {
    fn moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }
    fn written(&self, range: Range<u64>, digest: u128) {
        self.ranges.lock().unwrap().push((range, digest));
    }
    fn is_cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

pub(super) fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

pub(super) fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
}

pub(super) fn options(proof: Proof) -> StageOptions {
    let meta = SetMeta { mode: Some(0o640), mtime: None };
    StageOptions { large: 4 << 20, chunk: 1 << 20, streams: 3, proof, durable: true, meta }
}

struct Pair {
    _dirs: (tempfile::TempDir, tempfile::TempDir),
    from: Location,
    to: Location,
    seen: Arc<Seen>,
}

fn pair() -> Pair {
    let dirs = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = Location::Local(Local::new(dirs.0.path()).unwrap());
    let to = Location::Local(Local::new(dirs.1.path()).unwrap());
    Pair { _dirs: dirs, from, to, seen: Arc::default() }
}

impl Pair {
    fn put(&self, name: &str, content: &[u8]) {
        std::fs::write(self._dirs.0.path().join(name), content).unwrap();
    }

    fn got(&self, name: &str) -> Vec<u8> {
        std::fs::read(self._dirs.1.path().join(name)).unwrap()
    }

    async fn stage(&self, proof: Proof, done: Vec<(Range<u64>, u128)>) -> Result<Staged> {
        let listed = self.from.stat(&path("a")).await?.unwrap();
        self.stage_listed(listed, proof, done).await
    }

    async fn stage_listed(
        &self,
        listed: Meta,
        proof: Proof,
        done: Vec<(Range<u64>, u128)>,
    ) -> Result<Staged> {
        let options = options(proof);
        stage(Stage {
            from: &self.from,
            source: &path("a"),
            listed,
            to: &self.to,
            temp: &path(".tmp.a"),
            options: &options,
            done,
            watch: Arc::clone(&self.seen) as Arc<dyn Watch>,
        })
        .await
    }
}

const SIZES: [usize; 6] = [0, 1, 255 * 1024, 255 * 1024 + 1, 4 << 20, (6 << 20) + 5];

#[tokio::test]
async fn every_length_arrives_whole_and_is_proven() {
    for size in SIZES {
        for proof in [Proof::Size, Proof::Content] {
            let pair = pair();
            pair.put("a", &content(size));
            let staged = pair.stage(proof, Vec::new()).await.unwrap();
            assert_eq!(pair.got(".tmp.a"), content(size), "{size}");
            assert_eq!((staged.size, staged.resumed), (size as u64, 0));
            assert_eq!(pair.seen.moved.load(Ordering::Relaxed), size as u64);
            let proven = proof == Proof::Content;
            assert_eq!(staged.digest, proven.then(|| hash::sha256(&content(size))), "{size}");
            publish(&pair.to, &path(".tmp.a"), &path("a"), None).await.unwrap();
            assert_eq!(pair.got("a"), content(size));
            assert_eq!(pair.to.stat(&path("a")).await.unwrap().unwrap().mode, Some(0o640));
        }
    }
}

#[tokio::test]
async fn s16_a_source_that_grew_is_not_delivered() {
    for size in [10, 300 * 1024, 5 << 20] {
        let pair = pair();
        pair.put("a", &content(size));
        let listed = pair.from.stat(&path("a")).await.unwrap().unwrap();
        pair.put("a", &content(size + 1));
        let error = pair.stage_listed(listed, Proof::Size, Vec::new()).await.unwrap_err();
        assert_eq!(error.reason, Reason::Changed);
        assert_eq!(pair.to.stat(&path(".tmp.a")).await.unwrap(), None, "the temp stayed");
    }
}

#[tokio::test]
async fn a_temp_of_somebody_else_stays() {
    for size in [10, 300 * 1024, 5 << 20] {
        let pair = pair();
        pair.put("a", &content(size));
        std::fs::write(pair._dirs.1.path().join(".tmp.a"), "theirs").unwrap();
        let error = pair.stage(Proof::Size, Vec::new()).await.unwrap_err();
        assert_eq!((error.reason, pair.got(".tmp.a")), (Reason::Exists, b"theirs".to_vec()));
    }
}

#[tokio::test]
async fn s01_a_large_copy_goes_on_from_ranges_that_still_hold() {
    let pair = pair();
    let whole = content(6 << 20);
    pair.put("a", &whole);
    pair.stage(Proof::Size, Vec::new()).await.unwrap();
    let mut done = std::mem::take(&mut *pair.seen.ranges.lock().unwrap());
    done.sort_by_key(|(range, _)| range.start);
    assert_eq!(done.len(), 6);
    // One range rots, one was never told, and what is beyond the fourth was cut off.
    let temp = pair._dirs.1.path().join(".tmp.a");
    let mut bytes = whole[..4 << 20].to_vec();
    bytes[100] ^= 1;
    std::fs::write(&temp, bytes).unwrap();
    done.remove(1);
    let staged = pair.stage(Proof::Size, done).await.unwrap();
    assert_eq!((staged.resumed, staged.proven_by), (2 << 20, "read back"));
    assert_eq!(staged.digest, Some(hash::sha256(&whole)));
    assert_eq!(pair.got(".tmp.a"), whole);
}

#[tokio::test]
async fn s20_nothing_is_replaced_but_what_was_seen() {
    let pair = pair();
    let write =
        |name: &str, text: &str| std::fs::write(pair._dirs.1.path().join(name), text).unwrap();
    write("old", "old");
    let seen = pair.to.stat(&path("old")).await.unwrap();
    write("new", "new");
    let publish = |seen| {
        let to = pair.to.clone();
        async move { publish(&to, &path("new"), &path("old"), seen).await }
    };
    assert_eq!(publish(None).await.unwrap_err().reason, Reason::Exists);
    write("old", "changed");
    assert_eq!(publish(seen).await.unwrap_err().reason, Reason::Changed);
    assert_eq!((pair.got("old"), pair.got("new")), (b"changed".to_vec(), b"new".to_vec()));
    let seen = pair.to.stat(&path("old")).await.unwrap();
    publish(seen).await.unwrap();
    assert_eq!(pair.got("old"), b"new");
    assert_eq!(publish(seen).await.unwrap_err().reason, Reason::NotFound);
}

#[tokio::test]
async fn a_name_clash_gets_a_number() {
    let pair = pair();
    for n in 0..3 {
        std::fs::write(pair._dirs.1.path().join("in"), [n]).unwrap();
        pair.to.make_dirs(&path("DONE/x")).await.unwrap();
        let moved = rename_aside(&pair.to, &path("in"), &path("DONE/x/a.csv")).await.unwrap();
        let wanted = ["DONE/x/a.csv", "DONE/x/a.1.csv", "DONE/x/a.2.csv"][usize::from(n)];
        assert_eq!(moved, path(wanted));
        assert_eq!(pair.got(wanted), [n]);
    }
    let free = free_name(&pair.to, &path("DONE/x/a.csv")).await.unwrap();
    assert_eq!(free, path("DONE/x/a.3.csv"));
}
