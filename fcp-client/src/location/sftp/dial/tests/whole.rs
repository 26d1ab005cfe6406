//! Folders behind a real sshd, by both programs: dialled, pooled and spoken to.

use std::fs;

use bytes::Bytes;
use fcp_proto::path::RelPath;

use super::support::{Sshd, file, opener};
use crate::location::sftp::dial::plan::Env;
use crate::location::sftp::pool::{Pool, PoolOptions};
use crate::location::sftp::{Sftp, SftpOptions};
use crate::location::{DigestKind, SetMeta};

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

async fn folder(sshd: &Sshd, system: bool) -> Sftp {
    let key = sshd.path("key_ed25519_0");
    let login = match system {
        true => (sshd.system("root", file(key)), Env::default()),
        false => sshd.login("root", file(key)),
    };
    let pool = PoolOptions { max_connections: 4, max_channels: 2 };
    let options = SftpOptions { pool, lanes: 4, make_base: true };
    let base = sshd.path("data");
    let base = base.as_os_str().as_encoded_bytes();
    Sftp::over(Pool::over(opener(login), pool), "sftp test", base, options).await.unwrap()
}

/// Large content in ranges, small files many at a time, and a digest by a command.
async fn use_it(sshd: &Sshd, system: bool) {
    let folder = folder(sshd, system).await;
    let content: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(sshd.path("data/large"), &content).unwrap();
    let source = folder.open(&path("large")).await.unwrap();
    let mut pieces = source.read_range(0..content.len() as u64);
    let mut got = vec![0; content.len()];
    while let Some(piece) = pieces.next().await {
        let (at, piece) = piece.unwrap();
        got[at as usize..at as usize + piece.len()].copy_from_slice(&piece);
    }
    assert!(got == content);
    let digest = folder.digest(&path("large"), &[DigestKind::Sha256]).await.unwrap();
    assert!(digest.is_some(), "system: {system}");
    let tasks: Vec<_> = (0..50)
        .map(|number| {
            let folder = folder.clone();
            tokio::spawn(async move {
                let name = path(&format!("small{number}"));
                let content = Bytes::from(vec![number as u8; 3000]);
                let meta = SetMeta::default();
                folder.write_small(&name, content.clone(), meta, false).await.unwrap();
                let (back, _) = folder.read_small(&name, 3000).await.unwrap();
                assert_eq!(back, content);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s25_a_folder_works_by_both_programs_whatever_the_server_allows() {
    for lines in ["", "MaxSessions 2", "MaxStartups 2:100:2"] {
        for system in [false, true] {
            let Some(sshd) = Sshd::start(lines) else { return };
            sshd.key("root", "ed25519", "");
            use_it(&sshd, system).await;
        }
    }
}
