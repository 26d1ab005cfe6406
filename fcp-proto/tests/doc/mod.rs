//! PROTOCOL.md as data: its hex examples and generated tables, found and rendered.

// Each test binary uses a part of this.
#![allow(dead_code)]

pub(crate) mod examples;
pub(crate) mod tables;

use examples::Example;

/// Where PROTOCOL.md lies.
pub(crate) fn path() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../PROTOCOL.md")
}

/// PROTOCOL.md.
pub(crate) fn read() -> String {
    std::fs::read_to_string(path()).expect("PROTOCOL.md stands beside the crates")
}

/// Names and bytes of the ```` ```hex NAME ```` blocks in `doc`; what follows `#` is a comment.
pub(crate) fn hex_blocks(doc: &str) -> Vec<(String, Vec<u8>)> {
    fenced(doc).into_iter().map(|(name, body)| (name.to_owned(), from_hex(body))).collect()
}

/// `doc` with every hex block and every generated table as the code has it.
pub(crate) fn rendered(doc: &str, examples: &[Example]) -> String {
    let mut out = doc.to_owned();
    for (name, body) in fenced(doc) {
        if let Some(example) = examples.iter().find(|e| e.name == name) {
            let fence = |body: &str| format!("```hex {name}\n{body}```");
            out = out.replace(&fence(body), &fence(&example.to_string()));
        }
    }
    for (name, table) in tables::all() {
        let (begin, end) = (format!("<!-- table {name} -->\n"), "<!-- end -->");
        let Some((before, rest)) = out.split_once(&begin) else { continue };
        let (_, after) = rest.split_once(end).expect("a table has an end");
        out = format!("{before}{begin}{table}{end}{after}");
    }
    out
}

/// Names of the generated tables in `doc`.
pub(crate) fn table_names(doc: &str) -> Vec<&str> {
    doc.lines()
        .filter_map(|l| l.strip_prefix("<!-- table ").and_then(|l| l.strip_suffix(" -->")))
        .collect()
}

fn fenced(doc: &str) -> Vec<(&str, &str)> {
    doc.split("```hex ")
        .skip(1)
        .map(|block| {
            let (body, _) = block.split_once("```").expect("a block has an end");
            body.split_once('\n').expect("a block begins on its own line")
        })
        .collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().chars())
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("only hexadecimal digits and comments"))
        .collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {text}");
    digits.chunks_exact(2).map(|d| (d[0] << 4 | d[1]) as u8).collect()
}
