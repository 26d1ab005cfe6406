//! What only servers can do or fail to do.

use super::*;
use crate::location::sftp::Sftp;

async fn sftp_at(base: &[u8]) -> Result<Sftp> {
    support::sftp(base, "", true).await
}

#[tokio::test]
async fn a_base_is_found_however_it_was_typed() {
    let place = Place::sftp().await;
    std::fs::create_dir_all(place.local_path("F:/x")).unwrap();
    place.put("F:/x/file", "12");
    let root = place.dir.path().as_os_str().as_encoded_bytes();
    for typed in [&b"/F:/x"[..], b"/F:/x/", b"/F:/x//"] {
        let sftp = sftp_at(&[root, typed].concat()).await.unwrap();
        assert_eq!(sftp.stat(&path("file")).await.unwrap().unwrap().size, 2);
        assert!(sftp.name().ends_with("/F:/x"), "{}", sftp.name());
    }
    let cwd = std::env::current_dir().unwrap();
    let sftp = sftp_at(b"").await.unwrap();
    assert!(sftp.name().ends_with(cwd.to_str().unwrap()), "{}", sftp.name());
    assert!(sftp_at(b"src").await.unwrap().name().ends_with("/src"));
    assert_eq!(sftp_at(b"/").await.unwrap().list(&path("etc")).await.unwrap().refused, vec![]);
    assert_eq!(sftp_at(b"/none/at/all").await.unwrap_err().reason, Reason::NotFound);
    assert_eq!(sftp_at(b"/etc/passwd").await.unwrap_err().reason, Reason::NotDirectory);
}

#[tokio::test]
async fn a_server_that_was_busy_is_asked_again_for_its_digests() {
    let place = Place::sftp_busy(2).await;
    place.put("a", content(1000));
    let kinds = [DigestKind::Sha256];
    let asked = async || place.at.digest(&path("a"), &kinds).await.unwrap();
    assert_eq!((asked().await, asked().await), (None, None));
    assert_eq!(asked().await.unwrap().by, "sha256sum");
}

#[tokio::test]
async fn digests_are_found_by_the_server() {
    let place = Place::sftp().await;
    place.put("it's a $(file)", content(1000));
    let name = path("it's a $(file)");
    let kinds = [DigestKind::Sha256, DigestKind::Md5];
    let digest = place.at.digest(&name, &kinds).await.unwrap().unwrap();
    assert_eq!((digest.kind, digest.by), (DigestKind::Sha256, "sha256sum"));
    use sha2::Digest as _;
    assert_eq!(digest.bytes, sha2::Sha256::digest(content(1000)).to_vec());
    let blind = Place::sftp_without("", false).await;
    blind.put("a", "a");
    assert_eq!(blind.at.digest(&path("a"), &kinds).await.unwrap(), None);
}

#[tokio::test]
async fn durability_is_promised_by_those_that_can() {
    let place = Place::sftp_without(POOR, false).await;
    assert!(!place.at.capabilities().durable);
    let to = path("a");
    let write = place.at.write_small(&to, Bytes::new(), SetMeta::default(), true);
    assert_eq!(reason(write).await, Reason::NotDurable);
    assert!(!place.has("a"));
    let sink = place.at.create(&path("b")).await.unwrap();
    assert_eq!(reason(sink.close(0, SetMeta::default(), true)).await, Reason::NotDurable);
}

#[tokio::test]
async fn s10_a_replace_that_was_cut_short_is_taken_back_or_finished() {
    let place = Place::sftp_without(POOR, false).await;
    assert!(!place.at.capabilities().replaces);
    let cases = [
        // Aside, and not yet replaced: it goes back.
        ((Some("old"), None, Some("new")), (Some("old"), Some("new"))),
        // Replaced, and what was aside still there: it goes.
        ((Some("old"), Some("new"), None), (Some("new"), None)),
        ((None, Some("old"), Some("new")), (Some("old"), Some("new"))),
    ];
    for ((aside, there, temp), (now, left)) in cases {
        for (name, text) in [(".tmp.a.old", aside), ("a", there), (".tmp.a", temp)] {
            let _ = std::fs::remove_file(place.local_path(name));
            if let Some(text) = text {
                place.put(name, text);
            }
        }
        place.at.recover_replace(&path("a")).await.unwrap();
        let is = |name| place.has(name).then(|| String::from_utf8(place.get(name)).unwrap());
        assert_eq!((is("a").as_deref(), is(".tmp.a").as_deref()), (now, left));
        assert!(!place.has(".tmp.a.old"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_at_every_instant_one_of_both_is_there() {
    let place = Place::sftp_without(POOR, false).await;
    place.put("a", "0");
    let names = ["a", ".tmp.a.old", "a"].map(|name| place.local_path(name));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&stop);
    let watcher = std::thread::spawn(move || {
        let (mut looks, mut none) = (0_u64, 0_u64);
        while !seen.load(std::sync::atomic::Ordering::Relaxed) {
            // The last look, as a replace may end between the first two.
            let there = names.iter().any(|name| name.exists());
            (looks, none) = (looks + 1, none + u64::from(!there));
        }
        (looks, none)
    });
    for n in 0..50 {
        place.put(".tmp.a", n.to_string());
        place.at.replace(&path(".tmp.a"), &path("a")).await.unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (looks, none) = watcher.join().unwrap();
    assert!(looks > 100 && none == 0, "{none} of {looks}");
    assert_eq!(place.get("a"), b"49");
}

#[tokio::test]
async fn s13_what_may_not_be_written_is_denied_and_has_no_clock() {
    let place = Place::sftp_without("", false).await;
    let denied = "open,remove,rename,mkdir,setstat,fsetstat,write,posix-rename";
    let base = place.dir.path().as_os_str().as_encoded_bytes();
    let sftp = support::sftp(base, denied, true).await.unwrap();
    place.put("a", "a");
    let to = path("b");
    let write = sftp.write_small(&to, Bytes::new(), SetMeta::default(), false);
    assert_eq!(reason(write).await, Reason::Denied);
    assert_eq!(reason(sftp.remove(&path("a"))).await, Reason::Denied);
    assert_eq!(reason(sftp.rename_new(&path("a"), &path("b"))).await, Reason::Denied);
    // The shell still knows the time.
    assert!(matches!(sftp.clock(&RelPath::root()).await.unwrap(), Clock::Skew { .. }));
    let blind = support::sftp(base, denied, false).await.unwrap();
    assert_eq!(blind.clock(&RelPath::root()).await.unwrap(), Clock::Unknown);
}
