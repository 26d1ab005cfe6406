use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::location::tests::support::{POOR, Place, content, path};
use crate::location::{LocationError, Reason, Result};

#[derive(Default)]
struct Seen {
    moved: AtomicU64,
    ranges: Mutex<Vec<(Range<u64>, u128)>>,
    /// Stop once so much was moved.
    stop_at: AtomicU64,
    stopped: AtomicBool,
}

impl Watch for Seen {
    fn moved(&self, bytes: u64) {
        let moved = self.moved.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let stop_at = self.stop_at.load(Ordering::Relaxed);
        self.stopped.store(stop_at > 0 && moved >= stop_at, Ordering::Relaxed);
    }
    fn written(&self, range: Range<u64>, digest: u128) {
        self.ranges.lock().unwrap().push((range, digest));
    }
    fn is_cancelled(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

struct Pair {
    from: Place,
    to: Place,
    seen: Arc<Seen>,
    /// From here on several streams.
    large: u64,
}

/// Both ends: a folder here, OpenSSH with a shell, plain version 3 without one.
async fn pairs() -> Vec<Pair> {
    let pair = |from, to| Pair { from, to, seen: Arc::default(), large: 4 << 20 };
    vec![
        pair(Place::local(), Place::local()),
        pair(Place::local(), Place::sftp().await),
        pair(Place::local(), Place::sftp_without(POOR, false).await),
        pair(Place::sftp().await, Place::local()),
        pair(Place::sftp().await, Place::sftp().await),
        pair(Place::sftp().await, Place::sftp_without(POOR, false).await),
        pair(Place::sftp_without(POOR, false).await, Place::sftp().await),
    ]
}

impl Pair {
    async fn stage(&self, proof: Proof, done: Vec<(Range<u64>, u128)>) -> Result<Staged> {
        let listed = self.from.at.stat(&path("a")).await?.unwrap();
        self.stage_listed(listed, proof, done).await
    }

    async fn stage_listed(
        &self,
        listed: Meta,
        proof: Proof,
        done: Vec<(Range<u64>, u128)>,
    ) -> Result<Staged> {
        let meta = SetMeta { mode: Some(0o640), mtime: listed.mtime };
        let durable = self.to.at.capabilities().durable;
        let (chunk, streams) = (1 << 20, 3);
        let (large, resume_from) = (self.large, 4 << 20);
        let options = StageOptions { large, resume_from, chunk, streams, proof, durable, meta };
        stage(Stage {
            from: &self.from.at,
            source: &path("a"),
            listed,
            to: &self.to.at,
            temp: &path(".tmp.a"),
            options: &options,
            done,
            watch: Arc::clone(&self.seen) as Arc<dyn Watch>,
        })
        .await
    }

    fn told_ranges(&self) -> Vec<(Range<u64>, u128)> {
        let mut done = std::mem::take(&mut *self.seen.ranges.lock().unwrap());
        done.sort_by_key(|(range, _)| range.start);
        done
    }
}

const SIZES: [usize; 6] = [0, 1, 255 * 1024, 255 * 1024 + 1, 4 << 20, (6 << 20) + 5];

#[tokio::test]
async fn every_length_arrives_whole_and_is_proven() {
    for pair in pairs().await {
        for (size, proof) in SIZES.iter().flat_map(|s| [(*s, Proof::Size), (*s, Proof::Content)]) {
            pair.from.put("a", content(size));
            pair.seen.moved.store(0, Ordering::Relaxed);
            let staged = pair.stage(proof, Vec::new()).await.unwrap();
            assert_eq!(pair.to.get(".tmp.a"), content(size), "{size}");
            assert_eq!((staged.size, staged.resumed), (size as u64, 0));
            assert_eq!(pair.seen.moved.load(Ordering::Relaxed), size as u64);
            let proven = proof == Proof::Content;
            let digest = staged.digest.map(|digest| digest.to_string());
            assert_eq!(digest, proven.then(|| hash::sha256(&content(size)).to_string()), "{size}");
            publish(&pair.to.at, &path(".tmp.a"), &path("a"), None).await.unwrap();
            let (is, was) =
                (pair.to.at.stat(&path("a")).await, pair.from.at.stat(&path("a")).await);
            let (is, was) = (is.unwrap().unwrap(), was.unwrap().unwrap());
            assert_eq!(is.mode, Some(0o640));
            assert_eq!(is.mtime.map(|t| t.secs), was.mtime.map(|t| t.secs));
            std::fs::remove_file(pair.to.local_path("a")).unwrap();
        }
    }
}

#[tokio::test]
async fn content_is_proven_by_the_server_where_it_can() {
    let mut by = Vec::new();
    for pair in pairs().await {
        pair.from.put("a", content(5 << 20));
        by.push(pair.stage(Proof::Content, Vec::new()).await.unwrap().proven_by);
    }
    let (tool, back) = ("sha256sum", "read back");
    // From server to server no two tools are held against each other.
    assert_eq!(by, [back, tool, back, back, back, back, back]);
}

#[tokio::test]
async fn s16_a_source_that_grew_is_not_delivered() {
    for pair in pairs().await {
        for size in [10, 300 * 1024, 5 << 20] {
            pair.from.put("a", content(size));
            let listed = pair.from.at.stat(&path("a")).await.unwrap().unwrap();
            pair.from.put("a", content(size + 1));
            let error = pair.stage_listed(listed, Proof::Size, Vec::new()).await.unwrap_err();
            assert_eq!(error.reason, Reason::Changed);
            assert!(!pair.to.has(".tmp.a"), "the temp stayed");
        }
    }
}

#[tokio::test]
async fn s05_a_source_that_is_replaced_while_it_is_copied_is_not_delivered() {
    for pair in pairs().await {
        pair.from.put("a", content(5 << 20));
        pair.from.put("b", content(5 << 20));
        let swap = Arc::new(SwapOnce {
            from: (pair.from.local_path("b"), pair.from.local_path("a")),
            done: AtomicBool::default(),
        });
        let listed = pair.from.at.stat(&path("a")).await.unwrap().unwrap();
        // Another time, or in whole seconds nobody could tell them apart.
        let old = std::time::SystemTime::UNIX_EPOCH;
        let b = std::fs::File::options().write(true).open(pair.from.local_path("b")).unwrap();
        b.set_modified(old).unwrap();
        let meta = SetMeta::default();
        let (large, chunk, streams, durable) = (4 << 20, 1 << 20, 2, false);
        let (proof, resume_from) = (Proof::Size, large);
        let options = StageOptions { large, resume_from, chunk, streams, proof, durable, meta };
        let staged = stage(Stage {
            from: &pair.from.at,
            source: &path("a"),
            listed,
            to: &pair.to.at,
            temp: &path(".tmp.a"),
            options: &options,
            done: Vec::new(),
            watch: swap,
        })
        .await;
        assert_eq!(staged.unwrap_err().reason, Reason::Changed);
        assert!(!pair.to.has(".tmp.a"), "the temp stayed");
    }
}

struct SwapOnce {
    from: (std::path::PathBuf, std::path::PathBuf),
    done: AtomicBool,
}

impl Watch for SwapOnce {
    fn moved(&self, bytes: u64) {
        if bytes > 0 && !self.done.swap(true, Ordering::Relaxed) {
            std::fs::rename(&self.from.0, &self.from.1).unwrap();
        }
    }
    fn written(&self, _: Range<u64>, _: u128) {}
    fn is_cancelled(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_temp_of_somebody_else_stays() {
    for pair in pairs().await {
        for size in [10, 300 * 1024, 5 << 20] {
            pair.from.put("a", content(size));
            pair.to.put(".tmp.a", "theirs");
            let error = pair.stage(Proof::Size, Vec::new()).await.unwrap_err();
            assert_eq!((error.reason, pair.to.get(".tmp.a")), (Reason::Exists, b"theirs".to_vec()));
        }
    }
}

#[tokio::test]
async fn s01_a_large_copy_goes_on_from_ranges_that_still_hold() {
    for pair in pairs().await {
        let whole = content(6 << 20);
        pair.from.put("a", &whole);
        pair.stage(Proof::Size, Vec::new()).await.unwrap();
        let mut done = pair.told_ranges();
        assert_eq!(done.len(), 6);
        // One was never told, and what is beyond the fourth was cut off.
        let mut bytes = whole[..4 << 20].to_vec();
        done.remove(1);
        // Where ranges are read again, rot is found.
        let near = pair.to.at.capabilities().near;
        bytes[100] ^= u8::from(near);
        pair.to.put(".tmp.a", bytes);
        let staged = pair.stage(Proof::Size, done).await.unwrap();
        assert_eq!(staged.resumed, if near { 2 << 20 } else { 3 << 20 });
        assert_ne!(staged.proven_by, "size", "a resumed copy is proven by content");
        assert_eq!(staged.digest.unwrap().to_string(), hash::sha256(&whole).to_string());
        assert_eq!(pair.to.get(".tmp.a"), whole);
    }
}

#[tokio::test]
async fn s01_what_rots_at_a_far_temp_is_found_in_the_end() {
    for pair in pairs().await.into_iter().filter(|pair| !pair.to.at.capabilities().near) {
        pair.from.put("a", content(6 << 20));
        pair.stage(Proof::Size, Vec::new()).await.unwrap();
        let mut bytes = pair.to.get(".tmp.a");
        bytes[100] ^= 1;
        pair.to.put(".tmp.a", bytes);
        let error = pair.stage(Proof::Size, pair.told_ranges()).await.unwrap_err();
        assert_eq!(error.reason, Reason::Changed);
        assert!(!pair.to.has(".tmp.a"), "the bad temp stayed");
    }
}

#[tokio::test]
async fn a_stopped_large_copy_leaves_what_the_next_one_needs() {
    for pair in pairs().await {
        pair.from.put("a", content(8 << 20));
        pair.seen.stop_at.store(5 << 20, Ordering::Relaxed);
        let error = pair.stage(Proof::Size, Vec::new()).await.unwrap_err();
        assert_eq!(error.reason, Reason::Cancelled);
        assert!(pair.to.has(".tmp.a"));
        pair.seen.stop_at.store(0, Ordering::Relaxed);
        pair.seen.stopped.store(false, Ordering::Relaxed);
        let done = pair.told_ranges();
        let told = done.iter().map(|(range, _)| range.end - range.start).sum::<u64>();
        let staged = match told {
            // Nothing was told in time: the caller begins afresh.
            0 => {
                discard(&pair.to.at, &path(".tmp.a")).await.unwrap();
                pair.stage(Proof::Size, done).await.unwrap()
            }
            _ => pair.stage(Proof::Size, done).await.unwrap(),
        };
        assert_eq!(staged.resumed, told);
        assert_eq!(pair.to.get(".tmp.a"), content(8 << 20));
    }
}

#[tokio::test]
async fn s01_one_stream_can_be_gone_on_from_too() {
    for mut pair in pairs().await {
        pair.large = u64::MAX;
        for proof in [Proof::Size, Proof::Content] {
            let whole = content((8 << 20) + 77);
            pair.from.put("a", &whole);
            pair.seen.moved.store(0, Ordering::Relaxed);
            pair.seen.stop_at.store(6 << 20, Ordering::Relaxed);
            let error = pair.stage(proof, Vec::new()).await.unwrap_err();
            assert_eq!(error.reason, Reason::Cancelled);
            pair.seen.stop_at.store(0, Ordering::Relaxed);
            pair.seen.stopped.store(false, Ordering::Relaxed);
            let done = pair.told_ranges();
            let told = done.iter().map(|(range, _)| range.end - range.start).sum::<u64>();
            assert!(told >= 4 << 20, "{told}");
            let staged = pair.stage(proof, done).await.unwrap();
            assert_eq!(staged.resumed, told);
            assert_ne!(staged.proven_by, "size");
            let rest = pair.told_ranges();
            assert_eq!(rest.first().map(|(range, _)| range.start), Some(told));
            assert_eq!(rest.last().map(|(range, _)| range.end), Some(whole.len() as u64));
            assert_eq!(pair.to.get(".tmp.a"), whole);
            discard(&pair.to.at, &path(".tmp.a")).await.unwrap();
        }
    }
}

#[tokio::test]
async fn s01_a_drop_at_every_sixteenth_is_gone_on_from() {
    let size = 8 << 20;
    for far_source in [true, false] {
        for part in 0..16 {
            let far = Place::sftp().await;
            let (from, to) = if far_source { (far, Place::local()) } else { (Place::local(), far) };
            let pair = Pair { from, to, seen: Arc::default(), large: 4 << 20 };
            pair.from.put("a", content(size));
            let far = if far_source { &pair.from } else { &pair.to };
            let until = (size as u64 / 16 * part).max(1);
            let moved = async {
                while pair.seen.moved.load(Ordering::Relaxed) < until {
                    tokio::task::yield_now().await;
                }
                far.kill_servers();
                std::future::pending::<()>().await;
            };
            let first = tokio::select! {
                biased;
                () = moved => unreachable!(),
                staged = pair.stage(Proof::Size, Vec::new()) => staged,
            };
            if let Err(error) = first {
                assert_eq!((error.reason, &*error.place), (Reason::Lost, far.at.name()), "{part}");
                let done = pair.told_ranges();
                // Other sessions of the pool died, too, and nobody has asked them since.
                let is_lost = |error: LocationError| error.reason == Reason::Lost;
                while done.is_empty()
                    && discard(&pair.to.at, &path(".tmp.a")).await.is_err_and(is_lost)
                {
                }
                let told = done.iter().map(|(range, _)| range.end - range.start).sum::<u64>();
                let mut staged = pair.stage(Proof::Size, done.clone()).await;
                while staged.as_ref().is_err_and(|error| error.reason == Reason::Lost) {
                    staged = pair.stage(Proof::Size, done.clone()).await;
                }
                assert_eq!(staged.unwrap().resumed, told, "{part}");
            }
            assert_eq!(pair.to.get(".tmp.a"), content(size), "{part}");
            assert_eq!(std::fs::read_dir(pair.to.dir.path()).unwrap().count(), 1);
        }
    }
}

#[tokio::test]
async fn s20_nothing_is_replaced_but_what_was_seen() {
    for to in [Place::local(), Place::sftp().await, Place::sftp_without(POOR, false).await] {
        to.put("old", "old");
        let seen = to.at.stat(&path("old")).await.unwrap();
        to.put("new", "new");
        let publish = |seen| {
            let at = to.at.clone();
            async move { publish(&at, &path("new"), &path("old"), seen).await }
        };
        assert_eq!(publish(None).await.unwrap_err().reason, Reason::Exists);
        to.put("old", "changed");
        assert_eq!(publish(seen).await.unwrap_err().reason, Reason::Changed);
        assert_eq!((to.get("old"), to.get("new")), (b"changed".to_vec(), b"new".to_vec()));
        let seen = to.at.stat(&path("old")).await.unwrap();
        publish(seen).await.unwrap();
        assert_eq!(to.get("old"), b"new");
        // Once more, as after an answer that got lost: it is not there, which tells that it is done.
        assert_eq!(publish(seen).await.unwrap_err().reason, Reason::NotFound);
        assert_eq!(publish(None).await.unwrap_err().reason, Reason::NotFound);
    }
}

#[tokio::test]
async fn s10_a_replace_that_was_cut_short_is_mended_by_the_next_publish() {
    let to = Place::sftp_without(POOR, false).await;
    to.put("a", "old");
    to.put(".tmp.a", "new");
    let seen = to.at.stat(&path("a")).await.unwrap();
    std::fs::rename(to.local_path("a"), to.local_path(".tmp.a.old")).unwrap();
    publish(&to.at, &path(".tmp.a"), &path("a"), seen).await.unwrap();
    assert_eq!(to.get("a"), b"new");
    assert!(!to.has(".tmp.a") && !to.has(".tmp.a.old"));
}

#[tokio::test]
async fn a_name_clash_gets_a_number() {
    for at in [Place::local(), Place::sftp().await, Place::sftp_without(POOR, false).await] {
        for n in 0..3 {
            at.put("in", [n]);
            at.at.make_dirs(&path("DONE/x")).await.unwrap();
            let moved = rename_aside(&at.at, &path("in"), &path("DONE/x/a.csv")).await.unwrap();
            let wanted = ["DONE/x/a.csv", "DONE/x/a.1.csv", "DONE/x/a.2.csv"][usize::from(n)];
            assert_eq!(moved, path(wanted));
            assert_eq!(at.get(wanted), [n]);
        }
        let free = free_name(&at.at, &path("DONE/x/a.csv")).await.unwrap();
        assert_eq!(free, path("DONE/x/a.3.csv"));
        assert_eq!(free_temp(&at.at, &path("DONE/b")).await.unwrap(), path("DONE/.tmp.b"));
    }
}
