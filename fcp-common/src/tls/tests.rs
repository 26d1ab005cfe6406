//! Two ends over loopback, and peers that are none.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, ServerConnection};

use super::*;
use crate::engine::Duplex;

const IDLE: Duration = Duration::from_secs(20);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

type Client = io::Result<(TcpStream, ClientConnection)>;
type Server = io::Result<(TcpStream, ServerConnection)>;

fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> (Client, Server) {
    let (near, far) = sockets();
    let server = thread::spawn(move || accept(far, server, soon()));
    (connect(near, client, soon()), server.join().unwrap())
}

/// Both ends, pinned to each other.
fn pinned() -> ((TcpStream, ClientConnection), (TcpStream, ServerConnection)) {
    let (a, b) = (Identity::fresh().unwrap(), Identity::fresh().unwrap());
    let client = client_config(&a, ServerPin::Exactly(b.fingerprint())).unwrap();
    let server = server_config(&b, ClientPin::Exactly(a.fingerprint())).unwrap();
    let (client, server) = shake(client, server);
    let (client, server) = (client.unwrap(), server.unwrap());
    assert_eq!(peer_fingerprint(&client.1), Some(b.fingerprint()));
    assert_eq!(peer_fingerprint(&server.1), Some(a.fingerprint()));
    (client, server)
}

fn duplexes(idle: Duration) -> (Duplex, Duplex) {
    let ((near, client), (far, server)) = pinned();
    (Duplex::tls(near, client, idle).unwrap(), Duplex::tls(far, server, idle).unwrap())
}

fn kind<T>(done: io::Result<T>) -> io::ErrorKind {
    done.map(drop).unwrap_err().kind()
}

#[test]
fn ends_pinned_to_each_other_talk_tls13_with_aes_and_one_binding() {
    let ((_near, client), (_far, server)) = pinned();
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let suite = client.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!((client.alpn_protocol(), server.alpn_protocol()), (Some(ALPN), Some(ALPN)));
    let binding = exporter(&client).unwrap();
    assert_eq!(binding, exporter(&server).unwrap());
    let ((_, other), _) = pinned();
    assert_ne!(binding, exporter(&other).unwrap());
}

#[test]
fn a06_another_servers_key_is_refused() {
    let (a, b) = (Identity::fresh().unwrap(), Identity::fresh().unwrap());
    let client = client_config(&a, ServerPin::Exactly(a.fingerprint())).unwrap();
    let (client, server) = shake(client, server_config(&b, ClientPin::Any).unwrap());
    assert_eq!((kind(client), kind(server)), (invalid(), invalid()));
}

fn invalid() -> io::ErrorKind {
    io::ErrorKind::InvalidData
}

#[test]
fn a_server_that_is_not_pinned_can_be_looked_at_afterwards() {
    let (a, b) = (Identity::fresh().unwrap(), Identity::fresh().unwrap());
    let client = client_config(&a, ServerPin::Any).unwrap();
    let (client, server) = shake(client, server_config(&b, ClientPin::Any).unwrap());
    assert_eq!(peer_fingerprint(&client.unwrap().1), Some(b.fingerprint()));
    assert_eq!(peer_fingerprint(&server.unwrap().1), Some(a.fingerprint()));
}

#[test]
fn a06_another_clients_key_is_refused_and_the_client_learns_of_it() {
    let (a, b) = (Identity::fresh().unwrap(), Identity::fresh().unwrap());
    let client = client_config(&a, ServerPin::Any).unwrap();
    let server = server_config(&b, ClientPin::Exactly(b.fingerprint())).unwrap();
    let (client, server) = shake(client, server);
    assert_eq!(kind(server), invalid());
    let (near, conn) = client.unwrap();
    let mut near = Duplex::tls(near, conn, IDLE).unwrap();
    assert_eq!(kind(near.reader.read(&mut [0; 8])), invalid());
}

#[test]
fn a06_a_client_without_a_key_is_refused() {
    let b = Identity::fresh().unwrap();
    let provider = provider();
    let verifier = pin::ServerVerifier::new(ServerPin::Any, &provider);
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    let (_, server) = shake(Arc::new(client), server_config(&b, ClientPin::Any).unwrap());
    assert_eq!(kind(server), invalid());
}

#[test]
fn a_peer_that_speaks_another_protocol_over_tls_is_refused() {
    let (a, b) = (Identity::fresh().unwrap(), Identity::fresh().unwrap());
    for protocols in [vec![b"h2".to_vec()], Vec::new()] {
        let mut client = (*client_config(&a, ServerPin::Any).unwrap()).clone();
        client.alpn_protocols = protocols;
        let server = server_config(&b, ClientPin::Any).unwrap();
        assert_eq!(kind(shake(Arc::new(client), server).1), invalid());
    }
}

#[test]
fn a_certificate_without_its_key_proves_nothing() {
    let (a, b) = (Identity::fresh().unwrap(), Identity::fresh().unwrap());
    // The certificate of `b` with the key of `a`, as a thief of public things would have it.
    let thief = rustls::sign::CertifiedKey::new(b.certificates(), a.signing_key());
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(thief));
    let mut server = (*server_config(&b, ClientPin::Any).unwrap()).clone();
    server.cert_resolver = resolver;
    let client = client_config(&a, ServerPin::Exactly(b.fingerprint())).unwrap();
    assert_eq!(kind(shake(client, Arc::new(server)).0), invalid());
}

#[test]
fn an_announced_end_is_an_end_and_any_other_is_a_truncation() {
    let (near, mut far) = duplexes(IDLE);
    (near.close)();
    assert_eq!(far.reader.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(far.reader.read(&mut [0; 8]).unwrap(), 0);

    let ((near, client), (far, server)) = pinned();
    let cut = near.try_clone().unwrap();
    let mut near = Duplex::tls(near, client, IDLE).unwrap();
    let mut far = Duplex::tls(far, server, IDLE).unwrap();
    near.writer.write_all(b"the last words").unwrap();
    cut.shutdown(Shutdown::Both).unwrap();
    let mut got = Vec::new();
    let end = far.reader.read_to_end(&mut got);
    assert_eq!((&got[..], kind(end)), (&b"the last words"[..], io::ErrorKind::UnexpectedEof));
}

#[test]
fn w07_data_both_ways_at_once_passes_without_deadlock() {
    const LEN: usize = 100 << 20;
    let (near, far) = duplexes(IDLE);
    let content: Arc<Vec<u8>> = Arc::new((0..(1 << 20)).map(|i| (i % 251) as u8).collect());
    let mut threads = Vec::new();
    let mut ends = Vec::new();
    for Duplex { mut reader, mut writer, close, .. } in [near, far] {
        ends.push(close);
        let piece = Arc::clone(&content);
        threads.push(thread::spawn(move || {
            (0..LEN / piece.len()).for_each(|_| writer.write_all(&piece).unwrap());
        }));
        let piece = Arc::clone(&content);
        threads.push(thread::spawn(move || {
            let mut got = vec![0; piece.len()];
            for _ in 0..LEN / piece.len() {
                reader.read_exact(&mut got).unwrap();
                assert!(got == *piece);
            }
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn closing_unblocks_both_halves_at_once() {
    let (near, _far) = duplexes(IDLE);
    let Duplex { mut reader, mut writer, close, .. } = near;
    let reads = thread::spawn(move || reader.read(&mut [0; 8]));
    let writes = thread::spawn(move || {
        loop {
            if let Err(error) = writer.write_all(&[0; 1 << 20]) {
                return error;
            }
        }
    });
    thread::sleep(Duration::from_millis(200));
    assert!(!reads.is_finished() && !writes.is_finished());
    let began = Instant::now();
    close();
    close();
    assert_ne!(kind(reads.join().unwrap()), io::ErrorKind::TimedOut);
    assert_ne!(writes.join().unwrap().kind(), io::ErrorKind::TimedOut);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn silence_and_a_peer_that_does_not_read_time_out() {
    let (mut near, _far) = duplexes(Duration::from_millis(100));
    assert_eq!(kind(near.reader.read(&mut [0; 8])), io::ErrorKind::TimedOut);
    let blocked = (0..64).try_for_each(|_| near.writer.write_all(&[0; 1 << 20]));
    assert_eq!(kind(blocked), io::ErrorKind::TimedOut);
}

#[test]
fn what_came_with_the_handshake_is_not_lost() {
    let ((mut near, mut client), (far, mut server)) = pinned();
    client.writer().write_all(b"early, late").unwrap();
    client.write_tls(&mut near).unwrap();
    let mut early = [0; 5];
    let mut raw = &far;
    server.read_tls(&mut raw).unwrap();
    server.process_new_packets().unwrap();
    server.reader().read_exact(&mut early).unwrap();
    assert_eq!(&early, b"early");
    let mut far = Duplex::tls(far, server, IDLE).unwrap();
    let mut late = [0; 6];
    far.reader.read_exact(&mut late).unwrap();
    assert_eq!(&late, b", late");
}

#[test]
fn a_flipped_bit_on_the_way_is_an_error() {
    let ((mut near, mut client), (far, server)) = pinned();
    let mut far = Duplex::tls(far, server, IDLE).unwrap();
    client.writer().write_all(b"precious").unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    *wire.last_mut().unwrap() ^= 1;
    near.write_all(&wire).unwrap();
    assert_eq!(kind(far.reader.read(&mut [0; 8])), invalid());
    assert_eq!(kind(far.reader.read(&mut [0; 8])), invalid());
}

#[test]
fn what_came_before_a_flipped_bit_arrives_and_then_the_error() {
    let ((mut near, mut client), (far, server)) = pinned();
    let mut far = Duplex::tls(far, server, IDLE).unwrap();
    let mut wire = Vec::new();
    for text in ["good", "bad"] {
        client.writer().write_all(text.as_bytes()).unwrap();
        client.write_tls(&mut wire).unwrap();
    }
    *wire.last_mut().unwrap() ^= 1;
    near.write_all(&wire).unwrap();
    let mut got = Vec::new();
    let end = far.reader.read_to_end(&mut got);
    assert_eq!((&got[..], kind(end)), (&b"good"[..], invalid()));
}

#[test]
fn a_silent_peer_keeps_us_until_the_deadline_only() {
    let a = Identity::fresh().unwrap();
    let (near, _far) = sockets();
    let deadline = Instant::now() + Duration::from_millis(200);
    let client = client_config(&a, ServerPin::Any).unwrap();
    assert_eq!(kind(connect(near, client, deadline)), io::ErrorKind::TimedOut);
    let (near, _far) = sockets();
    let deadline = Instant::now() + Duration::from_millis(200);
    let server = server_config(&a, ClientPin::Any).unwrap();
    assert_eq!(kind(accept(near, server, deadline)), io::ErrorKind::TimedOut);
    assert!(deadline.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_peer_that_sends_a_byte_now_and_then_keeps_us_until_the_deadline_only() {
    let a = Identity::fresh().unwrap();
    let (near, mut far) = sockets();
    // The head of a record of 16 KiB, and then its bytes one by one.
    far.write_all(&[22, 3, 1, 0x40, 0]).unwrap();
    let drip = thread::spawn(move || {
        while far.write_all(&[1]).is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let began = Instant::now();
    let server = server_config(&a, ClientPin::Any).unwrap();
    let refused = accept(near, server, began + Duration::from_millis(300));
    assert!(refused.is_err() && began.elapsed() < Duration::from_secs(5));
    drip.join().unwrap();
}

#[test]
fn a_peer_that_speaks_no_tls_is_an_error() {
    let a = Identity::fresh().unwrap();
    for garbage in [&b"SSH-2.0-OpenSSH_9.9\r\n"[..], &[0; 64], b"HTTP/1.1 400 Bad Request\r\n\r\n"]
    {
        let (near, mut far) = sockets();
        far.write_all(garbage).unwrap();
        let client = client_config(&a, ServerPin::Any).unwrap();
        assert_eq!(kind(connect(near, client, soon())), invalid());
        let (near, mut far) = sockets();
        far.write_all(garbage).unwrap();
        let server = server_config(&a, ClientPin::Any).unwrap();
        assert_eq!(kind(accept(near, server, soon())), invalid());
    }
    let (near, far) = sockets();
    drop(far);
    let client = client_config(&a, ServerPin::Any).unwrap();
    assert!(connect(near, client, soon()).is_err());
}

#[test]
fn an_identity_is_made_once_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/place/key.pem");
    let made: Vec<_> = (0..8)
        .map(|_| path.clone())
        .map(|path| thread::spawn(move || Identity::load_or_create(&path).unwrap().fingerprint()))
        .collect();
    let again = Identity::load_or_create(&path).unwrap();
    for made in made {
        assert_eq!(made.join().unwrap(), again.fingerprint());
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary file is left: {left:?}");
    // It works, and another one is another.
    let other = Identity::fresh().unwrap();
    assert_ne!(other.fingerprint(), again.fingerprint());
    let client = client_config(&other, ServerPin::Exactly(again.fingerprint())).unwrap();
    shake(client, server_config(&again, ClientPin::Any).unwrap()).0.unwrap();
}

#[test]
fn a_key_file_that_is_not_safe_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    Identity::load_or_create(&path).unwrap();
    let refuse = |path: &std::path::Path| {
        let error = Identity::load_or_create(path).unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        error.kind()
    };
    for mode in [0o640, 0o604, 0o620] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(refuse(&path), io::ErrorKind::PermissionDenied);
    }
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let link = dir.path().join("link.pem");
    symlink(&path, &link).unwrap();
    assert_eq!(refuse(&link), io::ErrorKind::PermissionDenied);
    assert_eq!(refuse(dir.path()), io::ErrorKind::PermissionDenied);
    std::fs::write(&path, "-----BEGIN nothing").unwrap();
    assert_eq!(refuse(&path), invalid());
}

#[test]
fn a_key_file_whose_parts_do_not_belong_together_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| {
        let path = dir.path().join(name);
        Identity::load_or_create(&path).unwrap();
        std::fs::read_to_string(path).unwrap()
    });
    let cut = |pem: &str| pem.find("-----BEGIN CERTIFICATE").unwrap();
    let mixed = dir.path().join("a");
    std::fs::write(&mixed, a[..cut(&a)].to_owned() + &b[cut(&b)..]).unwrap();
    assert_eq!(kind(Identity::load_or_create(&mixed)), invalid());
}

/// One direction over loopback; only says something when optimized.
#[test]
#[ignore = "a measurement"]
fn throughput() {
    const BLOCKS: usize = 4096;
    let (near, far) = duplexes(IDLE);
    let (mut writer, close) = (near.writer, near.close);
    let began = Instant::now();
    let sender = thread::spawn(move || {
        let (head, piece) = ([1; 24], vec![7; 60 << 10]);
        let slices: Vec<_> = (0..18).flat_map(|_| [&head[..], &piece[..]]).collect();
        for _ in 0..BLOCKS {
            let mut slices: Vec<_> = slices.iter().map(|s| io::IoSlice::new(s)).collect();
            let mut left = &mut slices[..];
            while !left.is_empty() {
                let n = writer.write_vectored(left).unwrap();
                io::IoSlice::advance_slices(&mut left, n);
            }
        }
        close();
        drop(near.reader);
        cpu()
    });
    let (mut reader, mut buf, mut got) = (far.reader, vec![0; 1 << 20], 0);
    loop {
        match reader.read(&mut buf).unwrap() {
            0 => break,
            n => got += n,
        }
    }
    let (gb, took) = (got as f64 / 1e9, began.elapsed().as_secs_f64());
    let (sent, received) = (sender.join().unwrap() / gb, cpu() / gb);
    println!("{:.2} GB/s; CPU s/GB: sender {sent:.3}, receiver {received:.3}", gb / took);
}

/// Seconds that this thread has run.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}
