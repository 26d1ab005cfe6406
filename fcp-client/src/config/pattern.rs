//! Patterns of hosts' names. Pure.

/// Whether a pattern with `*` and `?` is the whole of a host's name, of whatever case.
pub(super) fn matches(pattern: &[u8], host: &[u8]) -> bool {
    let (mut p, mut h) = (0, 0);
    // Where to go on with the last `*` standing for one byte more.
    let mut again = None;
    while h < host.len() {
        match pattern.get(p) {
            Some(b'*') => {
                again = Some((p + 1, h));
                p += 1;
            }
            Some(byte) if *byte == b'?' || byte.eq_ignore_ascii_case(&host[h]) => {
                (p, h) = (p + 1, h + 1);
            }
            _ => {
                let Some((star, taken)) = again else { return false };
                again = Some((star, taken + 1));
                (p, h) = (star, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_globs_over_the_whole_name() {
        for (pattern, host, is) in [
            ("web", "web", true),
            ("web", "Web", true),
            ("web", "web1", false),
            ("*", "", true),
            ("?", "", false),
            ("web?", "web1", true),
            ("*.example.org", "a.b.example.org", true),
            ("*.example.org", "example.org", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("*a*a*a*a*a*a*a*a*b", &"a".repeat(200), false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), host.as_bytes()), is, "{pattern} {host}");
        }
    }
}
