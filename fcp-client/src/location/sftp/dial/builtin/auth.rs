//! Logging in: keys, the agent, and a password that is sent once.
//!
//! A server counts what it refuses and may lock the account, so a password is never tried twice,
//! and only as many keys as every server allows.

use std::path::Path;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse, Prompt};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKey};
use russh::{MethodKind, MethodSet};

use super::keys::{self, Key};
use super::{Client, Farewell, Server};
use crate::location::sftp::dial::failure::words;
use crate::location::sftp::dial::plan::Plan;
use crate::location::sftp::dial::prompt::is_for_password;
use crate::location::sftp::dial::{Credential, Login};
use crate::location::{LocationError, Reason, Result};
use crate::secret::Secret;

/// sshd ends a login after 6 failures by default; one is for the question what it takes.
const MAX_KEYS: usize = 5;
/// Most questions of a keyboard-interactive login.
const MAX_ROUNDS: usize = 8;

/// Logs in with what the login has, in its order.
///
/// # Errors
/// [`Reason::Login`] with what was tried; a broken connection.
pub(super) async fn log_in(
    handle: &mut Handle<Client>,
    server: &Server,
    login: &Login,
    plan: &Plan,
    farewell: &Farewell,
) -> Result<()> {
    let mut attempt = Attempt {
        handle,
        server,
        farewell,
        user: &plan.user,
        methods: None,
        is_in: false,
        keys: Vec::new(),
        tried: Vec::new(),
        is_sent: false,
    };
    attempt.ask().await?;
    for path in named_keys(login, plan) {
        attempt.key_file(&path, None, true).await?;
    }
    for credential in &login.credentials {
        match credential {
            Credential::Password(password) => attempt.password(password).await?,
            Credential::KeyFile { path, passphrase } => {
                attempt.key_file(path, passphrase.as_ref(), true).await?;
            }
            Credential::Agent => attempt.agent(plan).await?,
        }
    }
    if login.credentials.is_empty() {
        attempt.agent(plan).await?;
        for path in &plan.keys {
            attempt.key_file(path, None, false).await?;
        }
    }
    attempt.finish()
}

/// Keys that were named beside the credentials.
fn named_keys(login: &Login, plan: &Plan) -> Vec<std::path::PathBuf> {
    match login.ssh.identities.is_empty() || login.credentials.is_empty() {
        true => Vec::new(),
        false => plan.keys.clone(),
    }
}

/// The agent's keys, those first whose public half lies beside a key file; no others, where
/// ssh_config has it so.
fn in_order(identities: Vec<AgentIdentity>, plan: &Plan) -> Vec<(AgentIdentity, PublicKey)> {
    let named: Vec<PublicKey> = plan.keys.iter().filter_map(|path| keys::public(path)).collect();
    let is_named = |key: &PublicKey| named.iter().any(|named| named.key_data() == key.key_data());
    let all = identities.into_iter().map(|identity| {
        let key = identity.public_key().into_owned();
        (identity, key)
    });
    let (mut first, rest): (Vec<_>, Vec<_>) = all.partition(|(_, key)| is_named(key));
    if !plan.only_keys {
        first.extend(rest);
    }
    first
}

/// A login under way.
struct Attempt<'a> {
    handle: &'a mut Handle<Client>,
    server: &'a Server,
    farewell: &'a Farewell,
    user: &'a str,
    /// What the server says that it takes.
    methods: Option<MethodSet>,
    is_in: bool,
    /// The keys that were tried.
    keys: Vec<PublicKey>,
    /// What was tried and came to nothing, for people.
    tried: Vec<String>,
    /// Whether the password went out: whatever happens then, it is not sent a second time.
    is_sent: bool,
}

impl Attempt<'_> {
    /// Asks what the server takes; some take nobody's word and let in.
    async fn ask(&mut self) -> Result<()> {
        let answer = self.handle.authenticate_none(self.user).await;
        self.take(answer).map(drop)
    }

    fn finish(self) -> Result<()> {
        if self.is_in {
            return Ok(());
        }
        let takes = match &self.methods {
            Some(methods) => methods.iter().map(<&str>::from).collect::<Vec<_>>().join(", "),
            None => String::new(),
        };
        let tried = match self.tried.is_empty() {
            true => "there was nothing to log in with".to_owned(),
            false => self.tried.join("; "),
        };
        let text = format!("{} is not let in: {tried}. The server takes: {takes}", self.user);
        Err(self.server.failed(Reason::Login, text))
    }

    async fn password(&mut self, password: &Secret) -> Result<()> {
        if self.is_in {
            return Ok(());
        }
        if self.takes(MethodKind::Password) {
            self.is_sent = true;
            let answer = self.handle.authenticate_password(self.user, password.reveal()).await;
            if !self.take(answer)? {
                self.tried.push("the password was refused".to_owned());
            }
        } else if self.takes(MethodKind::KeyboardInteractive) {
            self.interactive(password).await?;
        } else {
            self.tried.push("it takes no password".to_owned());
        }
        Ok(())
    }

    async fn interactive(&mut self, password: &Secret) -> Result<()> {
        use KeyboardInteractiveAuthResponse::{Failure, InfoRequest, Success};
        let start = self.handle.authenticate_keyboard_interactive_start(self.user, None);
        let mut answer = start.await.map_err(|error| self.lost(&error))?;
        for _ in 0..MAX_ROUNDS {
            let prompts = match answer {
                Success => return self.take(Ok(AuthResult::Success)).map(drop),
                Failure { remaining_methods, partial_success } => {
                    let failure = AuthResult::Failure { remaining_methods, partial_success };
                    if !self.take(Ok(failure))? {
                        self.tried.push("the password was refused".to_owned());
                    }
                    return Ok(());
                }
                InfoRequest { prompts, .. } => prompts,
            };
            let answers = match &prompts[..] {
                [] => Vec::new(),
                [one] if !self.is_sent && !one.echo && is_for_password(&one.prompt) => {
                    self.is_sent = true;
                    vec![password.reveal().to_owned()]
                }
                other => return Err(self.asked(other)),
            };
            let respond = self.handle.authenticate_keyboard_interactive_respond(answers);
            answer = respond.await.map_err(|error| self.lost(&error))?;
        }
        Err(self.server.failed(Reason::Login, "it goes on asking and lets nobody in"))
    }

    /// It asks for what we do not have. The connection is given up, as the question stays.
    fn asked(&self, prompts: &[Prompt]) -> LocationError {
        let asked = prompts.first().map(|one| words(one.prompt.as_bytes())).unwrap_or_default();
        let text = match self.is_sent {
            true => format!("after the password it asks again: \"{asked}\""),
            false => format!("it asks for something else than a password: \"{asked}\""),
        };
        self.server.failed(Reason::Login, text)
    }

    /// `named` keys must be there.
    async fn key_file(
        &mut self,
        path: &Path,
        passphrase: Option<&Secret>,
        named: bool,
    ) -> Result<()> {
        if self.is_in || !self.may_try_key() {
            return Ok(());
        }
        let (file, secret) = (path.to_owned(), passphrase.cloned());
        // Opening a key takes its time on purpose.
        let load = move || keys::load(&file, secret.as_ref());
        let loaded = tokio::task::spawn_blocking(load).await;
        let key = match loaded.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(Some(key)) => key,
            Ok(None) => {
                if named {
                    self.tried.push(format!("there is no {}", fcp_common::private::shown(path)));
                }
                return Ok(());
            }
            Err(why) => {
                self.tried.push(why);
                return Ok(());
            }
        };
        if !self.is_new(key.private.public_key()) {
            return Ok(());
        }
        if !self.key(key).await? && !self.is_in {
            self.tried.push(format!("{} was refused", fcp_common::private::shown(path)));
        }
        Ok(())
    }

    async fn key(&mut self, key: Key) -> Result<bool> {
        let Some(hash) = self.hash(&key.private.algorithm()).await? else { return Ok(false) };
        if let Some(certificate) = key.certificate {
            let private = key.private.clone();
            let login = self.handle.authenticate_openssh_cert(self.user, private, certificate);
            let answer = login.await;
            if self.take(answer)? || self.is_in {
                return Ok(true);
            }
        }
        let key = PrivateKeyWithHashAlg::new(key.private, hash);
        let answer = self.handle.authenticate_publickey(self.user, key).await;
        self.take(answer)
    }

    async fn agent(&mut self, plan: &Plan) -> Result<()> {
        if self.is_in || !self.may_try_key() {
            return Ok(());
        }
        let Some(path) = &plan.agent else { return Ok(()) };
        let mut agent = match AgentClient::connect_uds(path).await {
            Ok(agent) => agent,
            Err(error) => {
                self.tried.push(format!("the agent does not answer: {error}"));
                return Ok(());
            }
        };
        if let Some(binding) = self.handle.agent_session_binding() {
            // An agent that does not know it says so, and goes on.
            let _ = agent.bind_session(binding, false).await;
        }
        let identities = match agent.request_identities().await {
            Ok(identities) => identities,
            Err(error) => {
                self.tried.push(format!("the agent does not tell its keys: {error}"));
                return Ok(());
            }
        };
        for (identity, key) in in_order(identities, plan) {
            if self.is_in || !self.may_try_key() {
                break;
            }
            let is_certificate = matches!(identity, AgentIdentity::Certificate { .. });
            if is_certificate || self.is_new(&key) {
                self.agent_key(&mut agent, identity, &key).await?;
            }
        }
        Ok(())
    }

    async fn agent_key(
        &mut self,
        agent: &mut AgentClient<impl russh::keys::agent::client::AgentStream + Unpin + Send>,
        identity: AgentIdentity,
        key: &PublicKey,
    ) -> Result<()> {
        let Some(hash) = self.hash(&key.algorithm()).await? else { return Ok(()) };
        let answer = match identity {
            AgentIdentity::PublicKey { key, .. } => {
                self.handle.authenticate_publickey_with(self.user, key, hash, agent).await
            }
            AgentIdentity::Certificate { certificate, .. } => {
                self.handle.authenticate_certificate_with(self.user, certificate, hash, agent).await
            }
        };
        let refused = match answer {
            Ok(answer) => match self.take(Ok(answer))? {
                true => return Ok(()),
                false => "was refused".to_owned(),
            },
            Err(error) => format!("cannot sign: {error}"),
        };
        let name = key.fingerprint(HashAlg::Sha256);
        self.tried.push(format!("the agent's key {name} {refused}"));
        Ok(())
    }

    /// The digest of an RSA signature, `None` inside for other keys; `None` where there is no good
    /// one.
    async fn hash(&mut self, algorithm: &Algorithm) -> Result<Option<Option<HashAlg>>> {
        if !matches!(algorithm, Algorithm::Rsa { .. }) {
            return Ok(Some(None));
        }
        let best = self.handle.best_supported_rsa_hash().await;
        match best.map_err(|error| self.lost(&error))? {
            Some(Some(hash)) => Ok(Some(Some(hash))),
            // It does not say, which nobody does who knows SHA-1 only because of its age.
            None => Ok(Some(Some(HashAlg::Sha512))),
            Some(None) => {
                self.tried.push("it takes RSA keys with SHA-1 only, which is broken".to_owned());
                Ok(None)
            }
        }
    }

    /// Whether the key was not tried yet.
    fn is_new(&mut self, key: &PublicKey) -> bool {
        let is_new = self.keys.iter().all(|tried| tried.key_data() != key.key_data());
        if is_new {
            self.keys.push(key.clone());
        }
        is_new
    }

    fn may_try_key(&self) -> bool {
        self.keys.len() < MAX_KEYS && self.takes(MethodKind::PublicKey)
    }

    fn takes(&self, method: MethodKind) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.contains(&method))
    }

    /// Takes note of an answer. Whether it was a success, even if more is wanted.
    fn take(&mut self, answer: std::result::Result<AuthResult, russh::Error>) -> Result<bool> {
        match answer.map_err(|error| self.lost(&error))? {
            AuthResult::Success => {
                self.is_in = true;
                Ok(true)
            }
            AuthResult::Failure { remaining_methods, .. } if remaining_methods.is_empty() => {
                // The library tells that there is no connection any more in this way, too, and no
                // server that goes on takes nothing.
                Err(self.lost(&russh::Error::HUP))
            }
            AuthResult::Failure { remaining_methods, partial_success } => {
                self.methods = Some(remaining_methods);
                if partial_success {
                    self.tried.push("one step was accepted, and another is wanted".to_owned());
                }
                Ok(partial_success)
            }
        }
    }

    /// Some servers hang up on whom they do not let in, and some on a password.
    fn lost(&self, error: &russh::Error) -> LocationError {
        let error = super::lost(self.server, error, self.farewell);
        let is_final = self.is_sent || self.farewell.get().is_some();
        let tried = self.tried.join("; ");
        match is_final {
            true if tried.is_empty() => LocationError { reason: Reason::Login, ..error },
            true => {
                let text = format!("{}; before that: {tried}", error.text);
                LocationError { reason: Reason::Login, text, ..error }
            }
            false => error,
        }
    }
}
