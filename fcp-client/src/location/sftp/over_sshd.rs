//! What every location does, over a real sshd: by the built-in client and by the system's ssh.

use super::dial::plan::Env;
use super::dial::tests::support::{Sshd, opener};
use super::dial::{Credential, Login};
use super::pool::Pool;
use crate::location::tests::all;
use crate::location::tests::support::{OPTIONS, Place};

async fn all_over(login: impl Fn(&Sshd, Vec<Credential>) -> (Login, Env)) {
    let Some(sshd) = Sshd::start("") else { return };
    let path = sshd.key("root", "ed25519", "");
    let login = login(&sshd, vec![Credential::KeyFile { path, passphrase: None }]);
    let pool = Pool::over(opener(login), OPTIONS.pool);
    all(async || Place::over(pool.clone()).await).await;
}

#[tokio::test]
async fn by_the_built_in_client() {
    all_over(|sshd, credentials| sshd.login("root", credentials)).await;
}

#[tokio::test]
async fn by_the_systems_ssh() {
    all_over(|sshd, credentials| (sshd.system("root", credentials), Env::default())).await;
}
