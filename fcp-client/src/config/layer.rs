//! The layers that settings come from: options, environment, files.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use fcp_common::private::{self, Contents, PrivateError, Rule};

use super::file::{self, Section};
use super::{ConfigError, MAX_CONNECTIONS, Source, TokenSource, Valued};
use crate::cli::{CommandLine, Direct, TransferOptions, Via};

/// What no config file exceeds.
const MAX_SIZE: u64 = 1 << 20;
/// Who could write a file that is found by itself could have fcp run commands. As for ssh's own,
/// that is the file's group, too.
const RULE: Rule = Rule::given(0o022, MAX_SIZE);
const SYSTEM_FILE: &str = "/etc/fcp/config.toml";

/// Declares a struct of settings, each of which may be unset, and how one layer covers another.
macro_rules! settings {
    ($($field:ident: $value:ty,)*) => {
        /// What one layer says.
        #[derive(Clone, Debug, Default)]
        pub(super) struct Settings {
            $(pub(super) $field: Option<Valued<$value>>,)*
        }

        impl Settings {
            /// These, and what they leave open from a lower layer.
            pub(super) fn or(self, lower: Settings) -> Settings {
                Settings { $($field: self.$field.or(lower.$field),)* }
            }
        }
    };
}

settings! {
    via: Via,
    direct: Direct,
    connections: u16,
    protocol: u16,
    remote_fcpd: String,
    token: TokenSource,
    identity: Vec<PathBuf>,
    jump: String,
    port: u16,
    ssh_config: PathBuf,
    ssh_option: Vec<String>,
    rsh: CommandLine,
}

impl Settings {
    pub(super) fn from_flags(typed: &TransferOptions) -> Settings {
        fn flag<T: Clone>(value: &Option<T>, name: &'static str) -> Option<Valued<T>> {
            value.clone().map(|value| Valued { value, source: Source::Flag(name) })
        }
        fn list<T: Clone>(value: &[T], name: &'static str) -> Option<Valued<Vec<T>>> {
            flag(&(!value.is_empty()).then(|| value.to_vec()), name)
        }
        let reach = &typed.reach;
        Settings {
            via: flag(&reach.via, "--via"),
            direct: flag(&reach.direct, "--direct"),
            connections: flag(&typed.connections, "--connections"),
            protocol: flag(&typed.protocol, "--protocol"),
            remote_fcpd: flag(&reach.remote_fcpd, "--remote-fcpd"),
            token: flag(&reach.token_file.clone().map(TokenSource::File), "--token-file"),
            identity: list(&reach.identity, "-i"),
            jump: flag(&reach.jump, "-J"),
            port: flag(&reach.port, "-P"),
            ssh_config: flag(&reach.ssh_config, "-F"),
            ssh_option: list(&reach.ssh_option, "-o"),
            rsh: flag(&reach.rsh, "--rsh"),
        }
    }

    pub(super) fn from_env(
        env: &impl Fn(&str) -> Option<OsString>,
    ) -> Result<Settings, ConfigError> {
        let raw = |name: &'static str| env(name).filter(|value| !value.is_empty());
        let text = |name: &'static str| match raw(name).map(OsString::into_string) {
            Some(Err(_)) => Err(ConfigError::Env(name, "it is not UTF-8".to_owned())),
            Some(Ok(text)) => Ok(Some((name, text))),
            None => Ok(None),
        };
        let file = |path: OsString| TokenSource::File(path.into());
        Ok(Settings {
            via: parsed(text("FCP_VIA")?, one_of)?,
            direct: parsed(text("FCP_DIRECT")?, one_of)?,
            connections: parsed(text("FCP_CONNECTIONS")?, |t| {
                number(t.parse().ok(), &shown(t), MAX_CONNECTIONS)
            })?,
            remote_fcpd: parsed(text("FCP_REMOTE_FCPD")?, |t| Ok(t.to_owned()))?,
            token: raw("FCP_TOKEN_FILE")
                .map(|path| Valued { value: file(path), source: Source::Env("FCP_TOKEN_FILE") }),
            rsh: parsed(text("FCP_RSH")?, |t| {
                CommandLine::parse(t.as_ref()).map_err(str::to_owned)
            })?,
            ..Settings::default()
        })
    }
}

/// A setting of the environment.
fn parsed<T>(
    variable: Option<(&'static str, String)>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<Valued<T>>, ConfigError> {
    let Some((name, text)) = variable else { return Ok(None) };
    let value = parse(&text).map_err(|why| ConfigError::Env(name, why))?;
    Ok(Some(Valued { value, source: Source::Env(name) }))
}

/// One of a few words.
pub(super) fn one_of<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<_> = names.map(|value| value.get_name().to_owned()).collect();
        format!("one of {} is needed, not {}", names.join(", "), shown(text))
    })
}

/// A number from 1 to `max`; `None` is one that does not fit at all.
pub(super) fn number(number: Option<u64>, given: &str, max: u16) -> Result<u16, String> {
    let fits = number.and_then(|number| u16::try_from(number).ok());
    fits.filter(|number| (1..=max).contains(number))
        .ok_or_else(|| format!("a number from 1 to {max} is needed, not {given}"))
}

/// A foreign text between quotes, short enough for a line.
pub(super) fn shown(text: &str) -> String {
    const SHOWN: usize = 60;
    let short: String = text.chars().take(SHOWN).collect();
    let more = if short.len() < text.len() { "..." } else { "" };
    format!("'{}{more}'", fcp_proto::escape(short.as_bytes()))
}

/// The config files as they were read.
#[derive(Debug, Default)]
pub struct Files {
    /// The one that goes before the other first.
    files: Vec<Vec<Section>>,
}

/// Where config files are looked for, the one that goes before the other first.
///
/// `explicit` (`--config`) stands in place of all, and else `FCP_CONFIG` does. The user's file is
/// below `XDG_CONFIG_HOME`, if that is absolute, and else below `HOME`.
pub fn candidates(
    explicit: Option<&Path>,
    env: &impl Fn(&str) -> Option<OsString>,
) -> Vec<PathBuf> {
    if let Some(only) = named(explicit, env) {
        return vec![only];
    }
    let absolute = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    let user = base.map(|base| base.join("fcp/config.toml"));
    user.into_iter().chain([PathBuf::from(SYSTEM_FILE)]).collect()
}

/// The one file that was asked for.
fn named(explicit: Option<&Path>, env: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let from_env = || env("FCP_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    explicit.map(Path::to_path_buf).or_else(from_env)
}

impl Files {
    /// Reads the files of [`candidates`]. One that is not there says nothing, but for one that was
    /// named.
    ///
    /// # Errors
    /// A file that cannot be read, that somebody else may have written, or with a mistake in it.
    pub fn load(
        explicit: Option<&Path>,
        env: &impl Fn(&str) -> Option<OsString>,
    ) -> Result<Files, ConfigError> {
        let must_exist = named(explicit, env).is_some();
        let home = env("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let mut files = Files::default();
        for path in candidates(explicit, env) {
            let name = fcp_proto::escape(path.as_os_str().as_encoded_bytes());
            match read(&path, must_exist) {
                Ok(Some(found)) => {
                    files.add(&found.bytes, &name, found.is_secret, home.as_deref())?;
                }
                Ok(None) => {}
                Err(error) => return Err(ConfigError::File(name, error.fault.to_string())),
            }
        }
        Ok(files)
    }

    /// Adds the content of a file that goes after those already there. `private` is one that
    /// nobody else can read, `home` what `~/` stands for.
    pub(super) fn add(
        &mut self,
        bytes: &[u8],
        name: &str,
        private: bool,
        home: Option<&Path>,
    ) -> Result<(), ConfigError> {
        self.files.push(file::parse(bytes, name, private, home)?);
        Ok(())
    }

    /// What the sections for this host say, the one that goes before the others first.
    pub(super) fn settings_for(&self, host: &str) -> impl Iterator<Item = &Settings> {
        let sections = self.files.iter().flatten();
        sections.filter(move |section| section.is_for(host)).map(|section| &section.settings)
    }
}

/// A file that was named may be anybody's, and a pipe. Of others there may be none, nor any of
/// their directories: service accounts have `/dev/null` as their home.
fn read(path: &Path, named: bool) -> Result<Option<Contents>, PrivateError> {
    if named {
        return private::read_named(path, MAX_SIZE).map(Some);
    }
    match private::read(path, &RULE) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        found => found,
    }
}
