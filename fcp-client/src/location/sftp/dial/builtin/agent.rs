//! Keys that an agent holds, and signs with.

use std::time::Duration;

use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PublicKey};
use tokio::time::timeout;

use super::auth::Attempt;
use super::keys;
use crate::location::Result;
use crate::location::sftp::dial::plan::Plan;

/// How long an agent may take for what it does without asking anybody.
const PATIENCE: Duration = Duration::from_secs(5);

impl Attempt<'_> {
    /// Tries the agent's keys.
    pub(super) async fn agent(&mut self, plan: &Plan) -> Result<()> {
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
            let _ = timeout(PATIENCE, agent.bind_session(binding, false)).await;
        }
        let identities = match timeout(PATIENCE, agent.request_identities()).await {
            Ok(Ok(identities)) => identities,
            Ok(Err(error)) => {
                self.tried.push(format!("the agent does not tell its keys: {error}"));
                return Ok(());
            }
            Err(_) => {
                self.tried.push("the agent does not answer".to_owned());
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
