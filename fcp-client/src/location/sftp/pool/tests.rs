use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::*;
use crate::location::Op;
use crate::location::sftp::dial::{Link, Output};

/// A server that takes so many connections and channels.
#[derive(Clone)]
struct Fake(Arc<FakeState>);

#[derive(Default)]
struct FakeState {
    connections: usize,
    channels: usize,
    /// What the next attempts to connect fail with.
    failures: Mutex<VecDeque<Reason>>,
    always: Mutex<Option<Reason>>,
    dialed: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    alive: AtomicUsize,
    is_dead: AtomicBool,
    /// How long connecting takes.
    millis: AtomicU64,
}

struct FakeLink {
    fake: Fake,
    open: AtomicUsize,
}

#[derive(Debug, Default)]
struct FakeSession {
    is_closed: AtomicBool,
    is_stalled: AtomicBool,
    is_lost: AtomicBool,
    /// It takes whatever it is told and says nothing.
    is_silent: AtomicBool,
    asked: AtomicUsize,
}

fn failed(reason: Reason) -> LocationError {
    let (place, path, text) = ("fake".into(), "to fake".into(), format!("{reason:?}"));
    LocationError { place, op: Op::Connect, path, reason, text }
}

impl Fake {
    fn new(connections: usize, channels: usize) -> Fake {
        let millis = AtomicU64::new(100);
        Fake(Arc::new(FakeState { connections, channels, millis, ..FakeState::default() }))
    }

    fn pool(&self, max_connections: usize, max_channels: usize) -> Pool<FakeSession> {
        let fake = self.clone();
        let opener = move || -> dial::Future<'static, Result<Connection>> {
            let fake = fake.clone();
            Box::pin(async move { fake.dial().await })
        };
        let options = PoolOptions { max_connections, max_channels };
        Pool::over(Box::new(opener), options)
    }

    async fn dial(&self) -> Result<Connection> {
        self.0.dialed.fetch_add(1, Relaxed);
        let now = self.0.at_once.fetch_add(1, Relaxed) + 1;
        self.0.most_at_once.fetch_max(now, Relaxed);
        tokio::time::sleep(Duration::from_millis(self.0.millis.load(Relaxed))).await;
        self.0.at_once.fetch_sub(1, Relaxed);
        let next = self.0.failures.lock().unwrap().pop_front();
        if let Some(reason) = next.or(*self.0.always.lock().unwrap()) {
            return Err(failed(reason));
        }
        if self.0.alive.load(Relaxed) >= self.0.connections {
            return Err(failed(Reason::Busy));
        }
        self.0.alive.fetch_add(1, Relaxed);
        Ok(Connection::new("fake", FakeLink { fake: self.clone(), open: AtomicUsize::new(0) }))
    }

    fn dialed(&self) -> usize {
        self.0.dialed.load(Relaxed)
    }
}

impl Link for FakeLink {
    fn open_sftp(&self) -> dial::Future<'_, Result<Stream>> {
        Box::pin(async move {
            if self.open.fetch_add(1, Relaxed) >= self.fake.0.channels {
                return Err(failed(Reason::Busy));
            }
            let (ours, _) = tokio::io::duplex(1);
            let (reader, writer) = tokio::io::split(ours);
            Ok(Stream { reader: Box::new(reader), writer: Box::new(writer) })
        })
    }
    fn exec<'a>(&'a self, _: &'a [u8], _: usize) -> dial::Future<'a, Result<Output>> {
        Box::pin(async { Err(failed(Reason::Unsupported)) })
    }
    fn explain(&self, error: LocationError) -> dial::Future<'_, LocationError> {
        Box::pin(std::future::ready(error))
    }
    fn has_exec(&self) -> bool {
        false
    }
    fn max_channels(&self) -> usize {
        usize::MAX
    }
    fn is_closed(&self) -> bool {
        self.fake.0.is_dead.load(Relaxed)
    }
}

impl Drop for FakeLink {
    fn drop(&mut self) {
        self.fake.0.alive.fetch_sub(1, Relaxed);
    }
}

impl Pooled for FakeSession {
    async fn begin(_: &str, _: Stream) -> Result<FakeSession> {
        Ok(FakeSession::default())
    }
    fn is_stalled(&self) -> bool {
        self.is_stalled.load(Relaxed)
    }
    fn is_lost(&self) -> bool {
        self.is_lost.load(Relaxed)
    }
    async fn answers(&self) -> bool {
        self.asked.fetch_add(1, Relaxed);
        if self.is_silent.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        true
    }
    fn is_closed(&self) -> bool {
        self.is_closed.load(Relaxed)
    }
}

async fn many(pool: &Pool<FakeSession>, count: usize) -> Vec<Result<Lease<FakeSession>>> {
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.acquire().await })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.unwrap());
    }
    all
}

#[tokio::test(start_paused = true)]
async fn idle_sessions_are_used_again_and_new_ones_spread_over_connections() {
    let fake = Fake::new(9, 9);
    let pool = fake.pool(2, 2);
    for _ in 0..3 {
        pool.acquire().await.unwrap();
    }
    assert_eq!((pool.size(), fake.dialed()), ((1, 1), 1));
    let mut leases = Vec::new();
    for expected in [(1, 1), (2, 2), (3, 2), (4, 2), (4, 2), (4, 2)] {
        leases.push(pool.acquire().await.unwrap());
        assert_eq!(pool.size(), expected);
    }
    assert!(pool.share().await.is_ok());
    drop(leases);
    assert_eq!(pool.size(), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn s25_what_the_server_takes_is_enough_for_everybody() {
    for (connections, channels, size) in [(2, 1, (2, 2)), (1, 2, (2, 1)), (1, 1, (1, 1))] {
        let fake = Fake::new(connections, channels);
        let pool = fake.pool(5, 2);
        let leases = many(&pool, 20).await;
        assert!(leases.iter().all(Result::is_ok));
        assert_eq!(pool.size(), size);
        let dialed = fake.dialed();
        assert!(dialed <= 6, "{dialed}");
        drop(leases);
        assert!(many(&pool, 20).await.iter().all(Result::is_ok));
        assert_eq!(fake.dialed(), dialed, "it does not insist");
    }
}

#[tokio::test(start_paused = true)]
async fn s25_a_server_that_is_busy_at_first_is_asked_again() {
    let fake = Fake::new(1, 9);
    fake.0.failures.lock().unwrap().extend([Reason::Busy; 4]);
    let pool = fake.pool(1, 1);
    let began = tokio::time::Instant::now();
    pool.acquire().await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(1));
    assert_eq!(fake.dialed(), 5);
    *fake.0.always.lock().unwrap() = Some(Reason::Busy);
    let error = fake.pool(1, 1).acquire().await.unwrap_err();
    assert_eq!((error.reason, fake.dialed()), (Reason::Busy, 5 + ATTEMPTS as usize));
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_or_host_is_never_tried_again() {
    for reason in [Reason::Login, Reason::HostKey, Reason::Unsupported] {
        let fake = Fake::new(9, 9);
        *fake.0.always.lock().unwrap() = Some(reason);
        let pool = fake.pool(5, 5);
        for _ in 0..3 {
            for result in many(&pool, 50).await {
                assert_eq!(result.unwrap_err().reason, reason);
            }
        }
        assert_eq!(fake.dialed(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_refused_later_leaves_what_there_is() {
    let fake = Fake::new(9, 9);
    let pool = fake.pool(5, 1);
    let first = pool.acquire().await.unwrap();
    *fake.0.always.lock().unwrap() = Some(Reason::Login);
    assert!(many(&pool, 5).await.iter().all(Result::is_ok));
    let dialed = fake.dialed();
    assert!(many(&pool, 5).await.iter().all(Result::is_ok));
    assert_eq!(fake.dialed(), dialed);
    first.is_closed.store(true, Relaxed);
    assert_eq!(pool.acquire().await.unwrap_err().reason, Reason::Login);
    assert_eq!(fake.dialed(), dialed);
}

#[tokio::test(start_paused = true)]
async fn s26_a_dead_host_is_dialed_a_few_times_by_however_many() {
    let fake = Fake::new(9, 9);
    *fake.0.always.lock().unwrap() = Some(Reason::Timeout);
    let pool = fake.pool(5, 5);
    for _ in 0..3 {
        for result in many(&pool, 200).await {
            assert_eq!(result.unwrap_err().reason, Reason::Timeout);
        }
    }
    assert_eq!((fake.dialed(), fake.0.most_at_once.load(Relaxed)), (3, 1));
    let began = tokio::time::Instant::now();
    for result in many(&pool, 200).await {
        let error = result.unwrap_err();
        assert!(error.text.contains("left alone for") && error.is_transient(), "{error}");
    }
    assert!(began.elapsed() < Duration::from_millis(10));
    assert_eq!(fake.dialed(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_dead_session_is_replaced() {
    let fake = Fake::new(9, 9);
    let pool = fake.pool(1, 2);
    let lease = pool.acquire().await.unwrap();
    lease.is_closed.store(true, Relaxed);
    let next = pool.acquire().await.unwrap();
    assert!(!next.is_closed() && fake.dialed() == 1, "over the same connection");
    fake.0.is_dead.store(true, Relaxed);
    next.is_closed.store(true, Relaxed);
    drop((lease, next));
    fake.0.is_dead.store(false, Relaxed);
    assert!(!pool.acquire().await.unwrap().is_closed());
}

#[tokio::test(start_paused = true)]
async fn s03_when_one_session_stalls_its_connection_goes_and_others_must_answer() {
    let fake = Fake::new(9, 9);
    let pool = fake.pool(3, 2);
    let mut leases = Vec::new();
    for _ in 0..6 {
        leases.push(pool.acquire().await.unwrap());
    }
    assert_eq!(pool.size(), (6, 3));
    let of = |lease: &Lease<FakeSession>| lease.connection().clone();
    let same = |one: &Connection, other: &Connection| one.is_same(other);
    let bad = of(&leases[0]);
    for lease in &leases {
        lease.is_silent.store(same(&of(lease), &bad), Relaxed);
    }
    // Of the other two one is silent, too, and nobody has found out.
    let second = of(leases.iter().find(|lease| !same(&of(lease), &bad)).unwrap());
    leases.iter().filter(|lease| same(&of(lease), &second)).for_each(|lease| {
        lease.is_silent.store(true, Relaxed);
    });
    leases[0].is_closed.store(true, Relaxed);
    leases[0].is_stalled.store(true, Relaxed);
    drop(leases);
    let began = tokio::time::Instant::now();
    for _ in 0..4 {
        let lease = pool.acquire().await.unwrap();
        assert!(!lease.is_silent.load(Relaxed));
        assert!(!same(lease.connection(), &bad) && !same(lease.connection(), &second));
    }
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let lease = pool.acquire().await.unwrap();
    assert!(lease.asked.load(Relaxed) <= 1, "asked once");
}

#[tokio::test(start_paused = true)]
async fn s03_when_one_stream_breaks_the_others_are_asked() {
    let fake = Fake::new(9, 9);
    let pool = fake.pool(1, 2);
    let (one, other) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    one.is_closed.store(true, Relaxed);
    one.is_lost.store(true, Relaxed);
    drop(other);
    for _ in 0..3 {
        let lease = pool.acquire().await.unwrap();
        assert_eq!((lease.asked.load(Relaxed), fake.dialed()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_holds_nobody_up() {
    let fake = Fake::new(9, 9);
    let pool = fake.pool(1, 1);
    let waiting = tokio::time::timeout(Duration::from_millis(50), pool.acquire()).await;
    assert!(waiting.is_err());
    assert!(pool.acquire().await.is_ok());
    assert_eq!(fake.dialed(), 1, "its attempt went on");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_long_holds_nobody_up() {
    let fake = Fake::new(9, 9);
    let pool = fake.pool(2, 1);
    let _first = pool.acquire().await.unwrap();
    fake.0.millis.store(60_000, Relaxed);
    let began = tokio::time::Instant::now();
    let _second = pool.acquire().await.unwrap();
    assert_eq!((pool.size(), began.elapsed().as_secs()), ((1, 1), 5));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(pool.size(), (2, 2), "it is there later");
}

/// A session of which only the greeting matters.
#[cfg(feature = "sftp")]
struct Greeted {
    _stream: Mutex<Stream>,
}

#[cfg(feature = "sftp")]
impl Pooled for Greeted {
    async fn begin(_: &str, mut stream: Stream) -> Result<Greeted> {
        let greeting = crate::location::sftp::dial::tests::support::greet(&mut stream).await;
        greeting.map_err(|_| failed(Reason::Lost))?;
        Ok(Greeted { _stream: Mutex::new(stream) })
    }
    fn is_closed(&self) -> bool {
        false
    }
}

#[cfg(feature = "sftp")]
async fn all_of(server: &str, options: PoolOptions, system: bool) -> Option<(usize, usize)> {
    use crate::location::sftp::dial::tests::support::{Sshd, opener};
    use crate::location::sftp::dial::{Credential, plan::Env};
    let sshd = Sshd::start(server)?;
    let path = sshd.key("root", "ed25519", "");
    let credentials = vec![Credential::KeyFile { path, passphrase: None }];
    let login = match system {
        true => (sshd.system("root", credentials), Env::default()),
        false => sshd.login("root", credentials),
    };
    let pool: Pool<Greeted> = Pool::over(opener(login), options);
    let mut tasks = Vec::new();
    for _ in 0..10 {
        let pool = pool.clone();
        tasks.push(tokio::spawn(async move { pool.acquire().await }));
    }
    let mut leases = Vec::new();
    for task in tasks {
        leases.push(task.await.unwrap().unwrap());
    }
    Some(pool.size())
}

#[tokio::test]
#[cfg(feature = "sftp")]
async fn s25_a_real_server_with_two_sessions_or_few_logins_serves_ten() {
    let options = PoolOptions { max_connections: 1, max_channels: 5 };
    let Some(size) = all_of("MaxSessions 2", options, false).await else { return };
    assert_eq!(size, (2, 1));
    let options = PoolOptions { max_connections: 8, max_channels: 1 };
    for system in [false, true] {
        let (sessions, _) = all_of("MaxStartups 2:100:2", options, system).await.unwrap();
        assert!((1..=8).contains(&sessions), "{sessions}");
        let (sessions, _) = all_of("", options, system).await.unwrap();
        assert_eq!(sessions, 8);
    }
}

#[tokio::test(start_paused = true)]
async fn small_things_share_sessions_and_connections() {
    let fake = Fake::new(4, 3);
    let pool = fake.pool(4, 3);
    let mut leases = Vec::new();
    for _ in 0..8 {
        leases.push(pool.crowd().await.unwrap());
    }
    assert_eq!(pool.size(), (1, 1), "a session for a few");
    for _ in 0..80 {
        leases.push(pool.crowd().await.unwrap());
    }
    assert_eq!(pool.size(), (3, 1), "more of them over one connection for many");
    for _ in 0..300 {
        leases.push(pool.crowd().await.unwrap());
    }
    assert!(pool.size().1 > 1, "another connection for a throng");
    assert_eq!(fake.0.most_at_once.load(Relaxed), 1);
    // Large ones still have a session each.
    let pool = Fake::new(4, 3).pool(4, 3);
    let few = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
    assert_eq!(pool.size(), (2, 2));
    drop(few);
}

#[tokio::test(start_paused = true)]
async fn a_server_with_one_session_a_login_gets_another_login_for_a_throng() {
    let fake = Fake::new(2, 1);
    let pool = fake.pool(2, 4);
    let mut leases = Vec::new();
    for _ in 0..200 {
        leases.push(pool.crowd().await.unwrap());
    }
    assert_eq!(pool.size(), (2, 2));
}
