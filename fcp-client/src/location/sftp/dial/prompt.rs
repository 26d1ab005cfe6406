//! Which questions of a server or of ssh are for the password. Pure.

/// What a password is called in a prompt.
const PASSWORD: [&str; 8] = [
    "password",
    "passwort",
    "kennwort",
    "mot de passe",
    "contraseña",
    "senha",
    "wachtwoord",
    "парол",
];
/// What makes it something else: a new one is wanted, a code, or a decision.
const OTHER: [&str; 12] = [
    "new",
    "retype",
    "again",
    "change",
    "code",
    "token",
    "otp",
    "one-time",
    "verification",
    "yes/no",
    "fingerprint",
    "passphrase",
];

/// Whether a prompt wants the account's password, and nothing but that.
pub(super) fn is_for_password(prompt: &str) -> bool {
    // ssh puts the account before it, whose name may be anything.
    let prompt = prompt.trim();
    let prompt = match prompt.strip_prefix('(').and_then(|rest| rest.split_once(") ")) {
        Some((_, rest)) => rest,
        None => prompt.rsplit_once("'s ").map_or(prompt, |(_, rest)| rest),
    };
    let prompt = prompt.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| prompt.contains(word));
    has(&PASSWORD) && !has(&OTHER) && prompt.chars().count() <= 100 && !prompt.contains('\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j15_only_a_prompt_for_the_password_gets_it() {
        for yes in [
            "Password: ",
            "bob@h's password: ",
            "newton@h's password: ",
            "(bob@h) Password: ",
            "Password for bob@h:",
            "Passwort: ",
        ] {
            assert!(is_for_password(yes), "{yes}");
        }
        for no in [
            "",
            "Verification code: ",
            "New password: ",
            "Retype new password: ",
            "One-time password (OTP): ",
            "Enter passphrase for key '/password': ",
            "Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
            "The authenticity of host 'password' can't be established.\nPassword",
            "PIN: ",
        ] {
            assert!(!is_for_password(no), "{no}");
        }
    }
}
