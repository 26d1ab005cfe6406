//! Servers that mean no good, or are broken.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use russh::keys::{HashAlg, PrivateKey};
use russh::server::{self, Auth, Response};
use russh::{MethodKind, MethodSet};

use super::plan::Env;
use super::testing::dial;
use super::{Credential, Dialer, HostKeyRule, Login};
use crate::connect::SshOptions;
use crate::location::{LocationError, Reason};
use crate::secret::Secret;

const SECRET: &str = "planted-secret";

fn login(port: u16, host_key: HostKeyRule) -> (Login, Env) {
    let login = Login {
        host: "127.0.0.1".into(),
        port: Some(port),
        user: Some("bob".into()),
        credentials: vec![Credential::Password(Secret::new(SECRET.into()))],
        host_key,
        dialer: Dialer::Builtin,
        ssh: SshOptions::default(),
    };
    (login, Env { known_hosts: Some("/dev/null".into()), ..Env::default() })
}

/// A server that does this with every connection, in threads that nobody waits for.
fn serve(act: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let act = Arc::new(act);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let act = Arc::clone(&act);
            std::thread::spawn(move || act(stream));
        }
    });
    port
}

async fn refused(port: u16) -> LocationError {
    let began = Instant::now();
    let error = dial(login(port, HostKeyRule::AcceptNew)).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(8), "{error}");
    assert!(!error.to_string().contains('\x1b'), "{error}");
    error
}

fn flood(mut stream: TcpStream, piece: &[u8], total: usize) {
    for _ in 0..total / piece.len() {
        if stream.write_all(piece).is_err() {
            return;
        }
    }
    let _ = stream.read_to_end(&mut Vec::new());
}

#[tokio::test]
async fn s19_whatever_is_sent_instead_of_a_greeting_ends_the_attempt() {
    for piece in [&b"x"[..], b"hello\x1b[31m\r\n", b"\n", b"\0\0\0\0", b"HTTP/1.1 400 Bad\r\n"] {
        let piece = piece.repeat(1000);
        let port = serve(move |stream| flood(stream, &piece, 10 << 20));
        let error = refused(port).await;
        assert_eq!(error.reason, Reason::Protocol, "{error}");
    }
    let port = serve(|stream| flood(stream, b"SSH-2.0-x\r\n", 11));
    assert_eq!(refused(port).await.reason, Reason::Timeout);
    let port = serve(|mut stream| {
        let _ = stream.write_all(b"SSH-2.0-x\r\n");
        flood(stream, &[0xff; 4096], 10 << 20);
    });
    assert!(!matches!(refused(port).await.reason, Reason::Login | Reason::HostKey));
}

#[tokio::test]
async fn s19_silence_ends_the_attempt() {
    let port = serve(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    assert_eq!(refused(port).await.reason, Reason::Timeout);
}

#[tokio::test]
async fn s25_a_server_that_hangs_up_before_it_greets_is_busy() {
    for said in [&b""[..], b"Exceeded MaxStartups\r\n", b"Not allowed at this time\r\n"] {
        let port = serve(move |mut stream| drop(stream.write_all(said)));
        let error = refused(port).await;
        assert_eq!(error.reason, Reason::Busy, "{error}");
    }
}

#[tokio::test]
async fn s26_a_dead_host_is_lost_at_once() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = refused(port).await;
    assert_eq!(error.reason, Reason::Lost);
    assert!(error.to_string().starts_with("sftp bob@127.0.0.1:"), "{error}");
    assert!(error.is_transient());
}

/// What a server asks, and what it got.
#[derive(Clone, Default)]
struct Asker {
    /// Each round, and each of its prompts with whether the answer is shown.
    rounds: Vec<Vec<(&'static str, bool)>>,
    banner: usize,
    got: Arc<Mutex<Vec<String>>>,
    answered: usize,
}

impl Asker {
    fn asking(rounds: &[&[(&'static str, bool)]]) -> Asker {
        let rounds = rounds.iter().map(|round| round.to_vec()).collect();
        Asker { rounds, ..Asker::default() }
    }

    fn next(&mut self) -> Auth {
        let Some(prompts) = self.rounds.get(self.answered) else { return Auth::Accept };
        self.answered += 1;
        let prompts: Vec<_> = prompts.iter().map(|(p, e)| (Cow::Borrowed(*p), *e)).collect();
        Auth::Partial { name: "".into(), instructions: "".into(), prompts: prompts.into() }
    }
}

impl server::Handler for Asker {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, russh::Error> {
        Ok((self.banner > 0).then(|| "x".repeat(self.banner)))
    }

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, russh::Error> {
        self.got.lock().unwrap().push(password.to_owned());
        Ok(Auth::reject())
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        if let Some(response) = response {
            let answers = response.map(|a| String::from_utf8_lossy(&a).into_owned());
            self.got.lock().unwrap().extend(answers);
        }
        Ok(self.next())
    }
}

/// Starts it; its port and the pin of its key.
async fn start(asker: Asker, methods: &[MethodKind]) -> (u16, String) {
    let seed = [7; 32];
    let pair = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&seed);
    let key = PrivateKey::from(pair);
    let pin = key.public_key().fingerprint(HashAlg::Sha256).to_string();
    let config = Arc::new(server::Config {
        keys: vec![key],
        methods: MethodSet::from(methods),
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        ..server::Config::default()
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (config, asker) = (Arc::clone(&config), asker.clone());
            tokio::spawn(async move {
                if let Ok(session) = server::run_stream(config, stream, asker).await {
                    let _ = session.await;
                }
            });
        }
    });
    (port, pin)
}

const INTERACTIVE: &[MethodKind] = &[MethodKind::KeyboardInteractive];

#[tokio::test]
async fn a_prompt_for_the_password_is_answered() {
    for rounds in [
        &[&[("Password: ", false)][..]][..],
        &[&[], &[("Password: ", false)], &[]],
        &[&[("(bob@h) Password for bob: ", false)]],
    ] {
        let asker = Asker::asking(rounds);
        let got = Arc::clone(&asker.got);
        let (port, pin) = start(asker, INTERACTIVE).await;
        dial(login(port, HostKeyRule::Pinned(pin))).await.unwrap();
        assert_eq!(*got.lock().unwrap(), [SECRET]);
    }
}

#[tokio::test]
async fn s19_other_prompts_get_no_password_and_no_second_one_either() {
    let many: Vec<(&'static str, bool)> = vec![("Password: ", false); 1000];
    let endless: Vec<&[(&'static str, bool)]> = vec![&[]; 1000];
    for (rounds, sent) in [
        (&[&[("Verification code: ", false)][..]][..], 0),
        (&[&[("Password: ", true)]], 0),
        (&[&[("Password: ", false), ("Password: ", false)]], 0),
        (&[&many], 0),
        (&[&[("Password: ", false)], &[("Password: ", false)]], 1),
        (&[&[("Password: ", false)], &[("New password: ", false)]], 1),
        (&endless, 0),
    ] {
        let asker = Asker::asking(rounds);
        let got = Arc::clone(&asker.got);
        let (port, pin) = start(asker, INTERACTIVE).await;
        let error = dial(login(port, HostKeyRule::Pinned(pin))).await.unwrap_err();
        assert_eq!(error.reason, Reason::Login, "{error}");
        assert!(!error.to_string().contains(SECRET));
        let got: Vec<String> =
            got.lock().unwrap().iter().filter(|g| !g.is_empty()).cloned().collect();
        assert_eq!(got.len(), sent, "{rounds:?}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_not_tried_by_the_other_way_too() {
    let asker = Asker::asking(&[&[("Password: ", false)]]);
    let got = Arc::clone(&asker.got);
    let methods = [MethodKind::Password, MethodKind::KeyboardInteractive];
    let (port, pin) = start(asker, &methods).await;
    let error = dial(login(port, HostKeyRule::Pinned(pin))).await.unwrap_err();
    assert_eq!((error.reason, got.lock().unwrap().len()), (Reason::Login, 1), "{error}");
}

#[tokio::test]
async fn s19_a_server_that_is_not_known_gets_no_password() {
    let asker = Asker::default();
    let got = Arc::clone(&asker.got);
    let (port, pin) = start(asker, &[MethodKind::Password]).await;
    for rule in [
        HostKeyRule::Known,
        HostKeyRule::Pinned("SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into()),
    ] {
        let error = dial(login(port, rule)).await.unwrap_err();
        assert_eq!(error.reason, Reason::HostKey, "{error}");
        assert!(error.text.contains(&pin), "{error}");
    }
    assert!(got.lock().unwrap().is_empty());
}

#[tokio::test]
async fn s19_a_banner_of_ten_megabytes_ends_the_attempt() {
    for (banner, works) in [(1000, true), (200 << 10, false), (10 << 20, false)] {
        let asker = Asker { banner, ..Asker::asking(&[&[("Password: ", false)]]) };
        let got = Arc::clone(&asker.got);
        let (port, pin) = start(asker, INTERACTIVE).await;
        let dialed = dial(login(port, HostKeyRule::Pinned(pin))).await;
        assert_eq!(dialed.is_ok(), works, "{dialed:?}");
        assert_eq!(got.lock().unwrap().len(), usize::from(works));
    }
}
