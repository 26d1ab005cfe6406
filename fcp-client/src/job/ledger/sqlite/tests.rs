//! The ledger on a disk: many calls at once, kills, damage.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::job::ledger::tests::{entity, finished, path};

const LEASE: Duration = Duration::from_secs(60);

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fcp/jobs.sqlite");
    (dir, file)
}

async fn life(run: &SqliteRun, name: &str) {
    let temp = path(".tmp.x");
    let claim = run.claim(entity("A", name), temp.clone(), Hold::Alone).await.unwrap();
    let Claim::New(id) = claim else { panic!("{claim:?}") };
    let (to, hash) = (path("x"), Some("sha256:00".to_owned()));
    run.record(id, State::Verified { temp, to: to.clone(), hash: hash.clone() }).await.unwrap();
    run.record(id, State::Delivered { to, hash }).await.unwrap();
    run.record(id, finished()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_share_one_wait_for_the_disk() {
    let (_dir, file) = place();
    let book = SqliteBook::open(&file).unwrap();
    let run = Arc::new(book.begin("A", None, LEASE).await.unwrap());
    let began = Instant::now();
    let task = |worker: usize| {
        let run = run.clone();
        tokio::spawn(async move {
            for file in 0..5000 / 80 + 1 {
                life(&run, &format!("{worker}/{file}")).await;
            }
        })
    };
    let tasks: Vec<_> = (0..80).map(task).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (took, commits) = (began.elapsed(), book.commits());
    println!("{commits} commits, {took:?}");
    // 20,000 calls, four of each file one after the other: 252 at the least.
    assert!(commits < 600, "{commits} commits");
    assert!(took < Duration::from_secs(30), "{took:?}");
}

/// Not a test: what the next one starts and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of another test"]
async fn child() {
    let Some(file) = std::env::var_os("FCP_TEST_LEDGER") else { return };
    let book = SqliteBook::open(Path::new(&file)).unwrap();
    let run = Arc::new(book.begin("A", None, LEASE).await.unwrap());
    let task = |worker: usize| {
        let run = run.clone();
        tokio::spawn(async move {
            for at in 0.. {
                let name = format!("{worker}/{at}");
                life(&run, &name).await;
                writeln!(std::io::stdout().lock(), "\ndone {name}").unwrap();
            }
        })
    };
    for task in (0..8).map(task).collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn s20_what_was_answered_survives_kill_9() {
    let (_dir, file) = place();
    let mut told = Vec::new();
    for _ in 0..3 {
        let name = "job::ledger::sqlite::tests::child";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
            .env("FCP_TEST_LEDGER", &file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut done = lines.filter_map(|line| line.strip_prefix("done ").map(str::to_owned));
        told.extend(done.by_ref().take(30));
        child.kill().unwrap();
        child.wait().unwrap();
        told.extend(done);
        // The next child begins its numbers anew: let it see others.
        let book = SqliteBook::open(&file).unwrap();
        let run = book.begin("B", None, LEASE).await.unwrap();
        for name in &told {
            let claim = run.claim(entity("A", name), path(".tmp.x"), Hold::Alone).await.unwrap();
            assert!(matches!(claim, Claim::Done(_)), "{name}: {claim:?}");
        }
        // What it held when it was killed is free at once.
        for record in run.open("A").await.unwrap() {
            let claim = run.claim(record.entity, path(".tmp.x"), Hold::Alone).await.unwrap();
            assert!(matches!(claim, Claim::Resumed(..)), "{claim:?}");
        }
        drop(run);
        drop(book);
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.execute("UPDATE files SET job = job || 'x'", ()).unwrap();
        told.clear();
    }
}

#[tokio::test]
async fn several_processes_write_at_the_same_time() {
    let (_dir, file) = place();
    let books: Vec<_> = (0..4).map(|_| SqliteBook::open(&file).unwrap()).collect();
    let mut tasks = Vec::new();
    for (at, book) in books.iter().enumerate() {
        let run = book.begin("A", None, LEASE).await.unwrap();
        tasks.push(tokio::spawn(async move {
            for file in 0..50 {
                life(&run, &format!("{at}/{file}")).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn the_file_is_ours_alone() {
    let (dir, file) = place();
    let _book = SqliteBook::open(&file).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.path().join("fcp")), 0o700);
    for end in ["", "-wal", "-shm"] {
        assert_eq!(mode(&beside(&file, end)), 0o600, "{end}");
    }
}

fn refused(file: &Path) -> String {
    SqliteBook::open(file).unwrap_err().to_string()
}

#[tokio::test]
async fn a_damaged_ledger_is_refused_and_stays() {
    let (_dir, file) = place();
    let book = SqliteBook::open(&file).unwrap();
    let run = book.begin("A", None, LEASE).await.unwrap();
    for at in 0..200 {
        life(&run, &format!("{at}")).await;
    }
    drop((run, book));
    let whole = fs::read(&file).unwrap();
    for damage in ["", "half", "zeros", "text"] {
        let bytes = match damage {
            "" => Vec::new(),
            "half" => whole[..whole.len() / 2].to_vec(),
            "zeros" => [&whole[..4096], &vec![0; whole.len() - 4096]].concat(),
            _ => b"not a database, and longer than a header".repeat(100),
        };
        fs::write(&file, &bytes).unwrap();
        let text = refused(&file);
        assert!(text.contains("damaged") && text.contains("sent twice"), "{damage}: {text}");
        assert!(fs::read(&file).unwrap() == bytes, "{damage}: it was changed");
    }
    fs::write(&file, whole).unwrap();
    SqliteBook::open(&file).unwrap();
}

#[test]
fn a_ledger_that_is_missing_beside_its_wal_is_not_made_anew() {
    let (_dir, file) = place();
    drop(SqliteBook::open(&file).unwrap());
    fs::remove_file(&file).unwrap();
    fs::write(beside(&file, "-wal"), b"x").unwrap();
    assert!(refused(&file).contains("missing"));
    assert!(!file.exists());
}

#[test]
fn a_newer_ledger_is_left_to_the_newer_program() {
    let (_dir, file) = place();
    drop(SqliteBook::open(&file).unwrap());
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    assert!(refused(&file).contains("a newer fcp wrote it (version 99"));
}

#[test]
fn a_link_or_a_file_that_others_write_is_refused() {
    let (dir, file) = place();
    drop(SqliteBook::open(&file).unwrap());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o622)).unwrap();
    assert!(refused(&file).contains("others can write it"));
    let away = dir.path().join("away");
    fs::rename(&file, &away).unwrap();
    std::os::unix::fs::symlink(&away, &file).unwrap();
    assert!(refused(&file).contains("symbolic link"));
}

#[tokio::test]
async fn a_full_disk_fails_the_call_and_loses_nothing() {
    let (_dir, file) = place();
    drop(SqliteBook::open(&file).unwrap());
    let connection = schema::open(&file).unwrap();
    connection.query_row("PRAGMA max_page_count = 40", (), |_| Ok(())).unwrap();
    let book =
        SqliteBook { actor: Arc::new(Actor::start(connection, &file, Process::own()).unwrap()) };
    let run = book.begin("A", None, LEASE).await.unwrap();
    let mut done = 0;
    let error = loop {
        let name = format!("{done}-{}", "x".repeat(200));
        match run.claim(entity("A", &name), path(".tmp.x"), Hold::Alone).await {
            Ok(_) => done += 1,
            Err(error) => break error,
        }
        assert!(done < 5000);
    };
    assert!(error.text.contains("disk is full"), "{error}");
    assert_eq!(run.open("A").await.unwrap().len(), done);
}

#[tokio::test]
async fn a_lock_of_another_process_is_waited_for() {
    let (_dir, file) = place();
    let book = SqliteBook::open(&file).unwrap();
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let run = tokio::spawn(async move { book.begin("A", None, LEASE).await.map(|_| ()) });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!run.is_finished());
    other.execute_batch("COMMIT").unwrap();
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn ranges_become_durable_without_being_waited_for() {
    let (_dir, file) = place();
    let book = SqliteBook::open(&file).unwrap();
    let run = book.begin("A", None, LEASE).await.unwrap();
    let claim = run.claim(entity("A", "x"), path(".tmp.x"), Hold::Alone).await.unwrap();
    let Claim::New(id) = claim else { panic!() };
    let before = book.commits();
    (0..100).for_each(|at| run.written(id, at * 8..at * 8 + 8, 1));
    let other = rusqlite::Connection::open(&file).unwrap();
    let count = || other.query_row("SELECT count(*) FROM ranges", (), |row| row.get::<_, i64>(0));
    let until = Instant::now() + Duration::from_secs(10);
    while count().unwrap() < 100 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(book.commits(), before + 1);
}

#[test]
fn queries_use_their_indices() {
    let (_dir, file) = place();
    let connection = schema::open(&file).unwrap();
    let plan = |sql: &str| -> String {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let rows = statement.query_map((), |row| row.get::<_, String>(3)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    for (sql, index) in [
        (
            "SELECT * FROM files WHERE job = 'a' AND state BETWEEN 1 AND 4 AND state < 5 ORDER BY id",
            "files_open",
        ),
        (
            "SELECT * FROM files JOIN runs ON runs.id = files.run WHERE files.spot = 'x'",
            "files_held",
        ),
        (
            "SELECT * FROM files WHERE job = (SELECT job FROM runs WHERE runs.id = 1)
             AND target = x'00' AND target IS NOT NULL AND state >= 3",
            "files_target",
        ),
        ("UPDATE files SET run = NULL, spot = NULL WHERE run = 1", "files_of_run"),
        ("SELECT count(*) FROM files WHERE job = 'a' AND delivered >= 1", "files_delivered"),
    ] {
        let plan = plan(sql);
        assert!(plan.contains(index), "{sql}: {plan}");
    }
}
