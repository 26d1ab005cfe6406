//! PROTOCOL.md and the code hold each other to the same bytes and the same tables.
//!
//! `FCP_BLESS=1 cargo test -p fcp-proto --test golden` writes both into the document anew.

// Helpers of tests may panic as tests do.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod doc;

use std::collections::BTreeSet;

use doc::examples;

#[test]
fn every_example_of_the_document_is_encoded_and_decoded() {
    let examples = examples::all();
    for (name, bytes) in doc::hex_blocks(&doc::read()) {
        let example = examples.iter().find(|e| e.name == name);
        let example = example.unwrap_or_else(|| panic!("no test knows the example {name}"));
        assert_eq!(example.bytes, bytes, "{name} is encoded otherwise");
        example.check(&bytes);
    }
}

#[test]
fn the_document_shows_every_example_once() {
    let doc = doc::read();
    let shown: Vec<_> = doc::hex_blocks(&doc).into_iter().map(|(name, _)| name).collect();
    let known: Vec<_> = examples::all().iter().map(|e| e.name.to_owned()).collect();
    let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(set(&shown), set(&known));
    assert_eq!((shown.len(), known.len()), (set(&shown).len(), set(&known).len()), "twice");
}

#[test]
fn every_named_flag_has_an_example() {
    let shown: BTreeSet<_> =
        examples::all().iter().flat_map(|e| e.frames()).map(|(flag, _)| flag).collect();
    let named: BTreeSet<_> = fcp_proto::Flag::ALL.iter().copied().collect();
    assert_eq!(shown, named);
}

#[test]
fn the_document_has_the_fields_and_tables_of_the_code() {
    let doc = doc::read();
    let rendered = doc::rendered(&doc, &examples::all());
    if std::env::var_os("FCP_BLESS").is_some() {
        std::fs::write(doc::path(), &rendered).expect("PROTOCOL.md can be written");
    } else {
        assert!(doc == rendered, "PROTOCOL.md is stale: run this test with FCP_BLESS=1");
    }
    let known: Vec<_> = doc::tables::all().iter().map(|t| t.0).collect();
    assert_eq!(doc::table_names(&doc), known);
}
