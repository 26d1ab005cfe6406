//! What was asked for and SFTP cannot do. Pure.

use crate::cli::Via;
use crate::config::{Resolved, Source};

/// The options that mean nothing over SFTP, as they were given; none of those that hold there
/// anyway, such as `--direct`: content goes through ssh whatever it says.
pub(super) fn unkept(config: &Resolved) -> Vec<String> {
    let mut names = Vec::new();
    let mut add = |source: &Source, name: &str| {
        if *source != Source::Default {
            names.push(format!("{name} ({source})"));
        }
    };
    if config.protocol.value.is_some() {
        add(&config.protocol.source, "--protocol");
    }
    add(&config.remote_fcpd.source, "--remote-fcpd");
    names
}

/// Whether SFTP may be used for this host: always where `--via` (or its setting) says `sftp` or
/// `auto` in so many words, with a notice for what is not kept; otherwise only where nothing was
/// asked for that it cannot do. The text is for the user.
///
/// # Errors
/// What stands in the way.
pub(super) fn check(config: &Resolved) -> Result<Option<String>, String> {
    let unkept = unkept(config);
    let said = config.via.source != Source::Default || config.via.value == Via::Sftp;
    match (unkept.is_empty(), said) {
        (true, _) => Ok(None),
        (false, true) => Ok(Some(format!("over SFTP this means nothing: {}", unkept.join(", ")))),
        (false, false) => Err(format!(
            "SFTP cannot do {}; leave that out, or say --via sftp to go without",
            unkept.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Files, resolve};

    fn checked(typed: &str) -> Result<Option<String>, String> {
        let words = ["fcp", "push"].into_iter().chain(typed.split_whitespace()).chain(["a", "h:b"]);
        let cli = crate::cli::parse(words.map(Into::into)).unwrap();
        check(&resolve(&cli.options, "h", &|_| None, &Files::default()).unwrap())
    }

    #[test]
    fn what_sftp_cannot_keep_is_named_unless_via_allows_it() {
        assert_eq!(checked(""), Ok(None));
        assert_eq!(checked("--direct never -j 4 -c -z"), Ok(None));
        assert_eq!(checked("--direct auto"), Ok(None));
        let error = checked("--protocol 2 --remote-fcpd x").unwrap_err();
        assert!(error.contains("--protocol") && error.contains("--remote-fcpd"), "{error}");
        for way in ["sftp", "auto"] {
            let notice = checked(&format!("--via {way} --protocol 2")).unwrap().unwrap();
            assert!(notice.contains("--protocol"), "{notice}");
        }
    }
}
